"""Metrics of sums over cases (accuracy, F1, kappa, Brier score, ECE, ...) as functions of multiplicities.

Each is a table of numbers per case, summed by unit beforehand, and a formula of the weighted sums: a resample costs one
matrix product and equals the metric on the resample's rows.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mt.probe.scores.bootstrap import Resampled, Statistic, ratio
from mt.probe.scores.predictions import class_columns, n_classes, predicted_class
from mt.stratification import Ints
from mt.types import Array

ECE_BINS = 15
# Up to this many classes, counts per class are a matrix product; with more the matrix grows too large.
SUMMED_CLASSES = 64

Features = Callable[[Array, Array], Array]
# Weights of the units -> correct, true and predicted cases per class, (resamples, classes) each.
Counts = Callable[[Array], tuple[Array, Array, Array]]


def _of_sums(features: Features, formula: Statistic) -> Resampled:
    """Return the metric that is a formula of the sums of `features` (n, k) over the cases."""

    def resampled(y: Array, p: Array, unit: Ints) -> Statistic:
        sums = _sum_by_unit(features(y, p), unit)
        return lambda w: formula(w.astype(np.float64) @ sums)

    return resampled


def _of_counts(formula: Callable[[Array, Array, Array], Array]) -> Resampled:
    """Return the metric that is a formula of how many cases of each class are correct, true and predicted.

    Classes are those that all cases together hold in truth or prediction.
    """

    def resampled(y: Array, p: Array, unit: Ints) -> Statistic:
        counts = _counts(y, predicted_class(p), n_classes(y, p), unit)
        return lambda w: formula(*counts(w))

    return resampled


def _counts(y: Array, found: Array, classes: int, unit: Ints) -> Counts:
    if classes <= SUMMED_CLASSES:
        true, chosen = (labels[:, None] == np.arange(classes) for labels in (y, found))
        sums = _sum_by_unit(np.hstack([true & chosen, true, chosen]).astype(np.float64), unit)
        return lambda w: tuple(np.split(w.astype(np.float64) @ sums, 3, axis=1))  # type: ignore[return-value]
    right = y == found

    def one_by_one(weights: Array) -> tuple[Array, Array, Array]:
        rows = [w[unit] for w in weights]
        correct, true, chosen = (
            np.stack([np.bincount(labels[kept], weights=w[kept], minlength=classes) for w in rows])
            for labels, kept in ((y, right), (y, slice(None)), (found, slice(None)))
        )
        return correct, true, chosen

    return one_by_one


def _sum_by_unit(features: Array, unit: Ints) -> Array:
    return np.column_stack([np.bincount(unit, weights=column) for column in features.T])


def _mean_of_sums(sums: Array) -> Array:
    return ratio(sums[:, 0], sums[:, 1])


def _hits(y: Array, p: Array) -> Array:
    return np.column_stack([predicted_class(p) == y, np.ones(len(y))])


def _squares(y: Array, p: Array) -> Array:
    return np.column_stack([(p - y) ** 2, np.ones(len(y))])


def surprise(y: Array, p: Array) -> Array:
    """Return the negative log probability (n,) of each case's class; a probability of 0 counts as 2.2e-16."""
    likelihood = class_columns(p)[np.arange(len(y)), y]
    return np.asarray(-np.log(np.clip(likelihood, np.finfo(np.float64).eps, 1)))


def _surprises(y: Array, p: Array) -> Array:
    return np.column_stack([surprise(y, p), np.ones(len(y))])


def _balanced_accuracy(y: Array, p: Array, unit: Ints) -> Statistic:
    counts, present = _counts(y, predicted_class(p), n_classes(y, p), unit), np.unique(y)

    def statistic(w: Array) -> Array:
        correct, true, _ = counts(w)
        return np.asarray(ratio(correct[:, present], true[:, present]).mean(axis=1))

    return statistic


def _f1_of_class_1(correct: Array, true: Array, chosen: Array) -> Array:
    values = ratio(2 * correct[:, 1], true[:, 1] + chosen[:, 1])
    return np.where(true[:, 1] > 0, values, np.nan)


def _mean_f1(correct: Array, true: Array, chosen: Array) -> Array:
    occurs = true + chosen > 0
    return ratio(np.where(occurs, 2 * correct / np.maximum(true + chosen, 1), 0).sum(axis=1), occurs.sum(axis=1))


def _grades(y: Array, p: Array) -> Array:
    """Return 1, (y - g)², y, y², g, g² of grades y and predictions g."""
    g = predicted_class(p)
    return np.column_stack([np.ones(len(y)), (y - g) ** 2, y, y**2, g, g**2]).astype(np.float64)


def _kappa(sums: Array) -> Array:
    """1 - Σ (y - g)² / E, where E = Σ_ij (i - j)² n_i m_j / n is what the marginals n_i and m_j alone give."""
    n, disagreement, y, y2, g, g2 = sums.T
    expected = y2 + g2 - 2 * y * g / np.maximum(n, 1)
    # The sums are whole numbers: a remainder below 1e-9 is rounding.
    return np.where(expected > 1e-9 * np.maximum(n, 1), 1 - ratio(disagreement, expected), np.nan)


def kappa_and_influence(y: Array, p: Array) -> tuple[float, Array]:
    """Return kappa and its influence values (n,): the gradient of the formula times each case's terms."""
    terms = _grades(y, p)
    sums = terms.sum(axis=0)
    steps = 1e-6 * np.maximum(1, np.abs(sums))
    up, down = (_kappa(sums + sign * np.diag(steps)) for sign in (1, -1))
    return float(_kappa(sums[None])[0]), np.asarray(terms @ ((up - down) / (2 * steps)))


def calibration(y: Array, p: Array) -> tuple[Array, Array, Array]:
    """Return each case's confidence in its predicted class, whether that is right, and its bin."""
    confidence = class_columns(p).max(axis=1)
    bins = np.clip(np.ceil(confidence * ECE_BINS).astype(np.int64) - 1, 0, ECE_BINS - 1)
    return confidence, (predicted_class(p) == y).astype(np.float64), bins


def binned(y: Array, p: Array) -> tuple[Array, Array, Array]:
    """Return confidence minus correctness of each case in the column of its bin (n, bins), confidences, and bins."""
    confidence, correct, bins = calibration(y, p)
    in_bin = bins[:, None] == np.arange(ECE_BINS)
    return in_bin * (confidence - correct)[:, None], confidence, bins


def _gaps(y: Array, p: Array) -> Array:
    return np.column_stack([binned(y, p)[0], np.ones(len(y))])


def _mean_gap(sums: Array) -> Array:
    return ratio(np.abs(sums[:, :-1]).sum(axis=1), sums[:, -1])


accuracy = _of_sums(_hits, _mean_of_sums)
brier = _of_sums(_squares, _mean_of_sums)
log_loss = _of_sums(_surprises, _mean_of_sums)
ece = _of_sums(_gaps, _mean_gap)
quadratic_kappa = _of_sums(_grades, _kappa)
balanced_accuracy = _balanced_accuracy
f1 = _of_counts(_f1_of_class_1)
macro_f1 = _of_counts(_mean_f1)
