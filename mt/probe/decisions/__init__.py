"""Decisions: out-of-fold scores of the budget, and the thresholds and scaling that are chosen on them."""
