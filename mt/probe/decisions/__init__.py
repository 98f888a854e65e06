"""From ranks to decisions: out-of-fold scores of the budget, thresholds and scaling chosen on them."""
