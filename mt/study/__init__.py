"""A study: a grid of datasets, models, budgets and methods from one file."""
