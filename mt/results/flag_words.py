"""Flags of scores in words, for readers who do not know the flags' names."""

from __future__ import annotations

FLAG_WORDS = {
    "fixed_C": "too few labels to hold any out: C is 1, without a choice",
    "first_model": "too few labels to hold any out: the best single model is the first, without a choice",
    "fixed_k": "too few labels to hold any out: k is the smallest, without a choice",
    "fixed_weight": "too few labels to hold any out: both parts count the same",
    "no_validation": "too few labels to hold any out: the last epoch was kept",
    "no_lda": "blend is its logistic regression alone",
    "too_few_to_train": "too few labels to train a network: DVME is its start",
    "uses_unlabelled": "looked at all train images, most of them without their labels",
    "one_class": "a draw holds one class, which is predicted everywhere",
    "missing_class": "a draw lacks a class, which gets probability 0",
    "constant_label": "a label has one value in a draw: its base rate is predicted",
    "start_kept": "training end to end gained nothing inside the budget: the start is kept",
    "training_failed": "every training on the whole budget failed: the start is kept",
    "fixed_schedule": "too few labels to hold any out: the trained networks and their start count the same",
    "unconverged": "a fit stopped before its tolerance",
    "collapsed": "all test cases get the same prediction",
}


def in_words(flag: str) -> str:
    """Return what a flag means; a flag that is words already is returned as it is."""
    return FLAG_WORDS.get(flag, flag)
