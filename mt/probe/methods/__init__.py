"""How a protocol is fitted on a budget: logistic regression, gradient heads, nearest neighbours."""
