"""Logistic regression with an L2 penalty, every C, label and fold at once."""
