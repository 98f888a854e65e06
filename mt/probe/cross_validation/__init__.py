"""Test folds: a dataset without a test split is evaluated by repeated stratified group k-fold cross-validation.

All splits of a dataset are joined.  Each repeat deals the images into K folds: no group is in two of them, and each
holds its share of every class.  A method is fitted on a budget drawn from the other K - 1 folds and tests the images
of one, so that every image is tested exactly once per repeat.  The predictions of a repeat make one fit, kept by row
id as on a test split; how scores and intervals treat its folds is in `mt.probe.scores.within_folds`.

A method that answers questions on train and test features (a probe, a fusion) answers here one question per fold, on
features that are parts of the joined ones: `CrossValidation` makes these questions and puts their answers together.
"""
