"""The answer, first: which model is best with how many labels, what fusing gains, and what cannot be concluded."""
