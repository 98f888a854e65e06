"""Test folds: a dataset without a test split is evaluated by repeated stratified group k-fold cross-validation.

All splits of a dataset are joined.  Each repeat divides the images into K folds: no group is in two folds, and each
fold holds its share of every class.  For each fold a method is fitted on a budget drawn from the other K - 1 folds and
tested on this fold, so that every image is tested exactly once per repeat.  The predictions of a repeat make one fit,
stored by row id as on a test split; `mt.probe.scores.within_folds` says how scores and intervals treat its folds.

A method that answers questions on train and test features (a probe, a fusion) here answers one question per fold, on
parts of the joined features: `CrossValidation` makes these questions and joins their answers.
"""
