"""Logistic regression with an L2 penalty, for every C, label and fold at once."""
