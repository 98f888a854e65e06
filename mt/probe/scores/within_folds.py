"""Scores of predictions from several models, one per test fold, and the dependence between folds.

Metrics of the order of scores (ROC AUC, average precision, sensitivity) are computed in each fold and averaged: scores
of two models have no common scale, and pooling them biases the AUC (Forman and Scholz, "Apples-to-Apples in
Cross-Validation Studies", SIGKDD Explorations 12, 2010).  Metrics of single cases and of counts are computed on the
pooled predictions, which for a mean over cases is the mean over folds.

The variance over cases comes from influence values within each fold (LeDell, Petersen and van der Laan,
"Computationally efficient confidence intervals for cross-validated area under the ROC curve estimates", Electronic
Journal of Statistics 9, 2015).  A case has one value per repeat, and these are averaged before they are squared, so
that repeats do not count as cases.  That is the variance with the fitted models held fixed.  Folds share training rows,
and each trains the models that test the others, so the variance of the estimate is larger (Bates, Hastie and
Tibshirani, "Cross-validation: what does it estimate and how well does it do it?", 2021).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from mt.types import MISSING, Array

Linearised = Callable[[Array, Array], tuple[float, Array]]
OfWeights = Callable[[Array], Array]  # (resamples, n_units) multiplicities -> (resamples,) values


def defined_folds(y: Array, fold: Array) -> Iterator[Array]:
    """Yield the labelled rows of each fold that holds both classes."""
    for number in np.unique(fold):
        rows = np.flatnonzero((fold == number) & (y != MISSING))
        if len(rows) and y[rows].min() < y[rows].max():
            yield rows


def mean_and_influence(one: Linearised, y: Array, p: Array, fold: Array) -> tuple[float, Array]:
    """Return the mean of a metric over folds, and its influence values: each fold's, divided by the number of folds."""
    found = [(rows, *one(y[rows], p[rows])) for rows in defined_folds(y, fold)]
    influence = np.zeros(len(y))
    for rows, _, own in found:
        influence[rows] = own / len(found)
    return float(np.mean([value for _, value, _ in found])) if found else np.nan, influence


def mean_statistic(
    one: Callable[[Array, Array, Array], OfWeights], y: Array, p: Array, unit: Array, fold: Array
) -> OfWeights:
    """Return the mean of a metric over folds as a function of multiplicities.

    A resample takes the mean over the folds in which it is defined.
    """
    statistics = [one(y[rows], p[rows], unit[rows]) for rows in defined_folds(y, fold)]

    def statistic(weights: Array) -> Array:
        values = np.array([each(weights) for each in statistics]).reshape(len(statistics), len(weights))
        known = ~np.isnan(values)
        count = known.sum(axis=0)
        total = np.where(known, values, 0.0).sum(axis=0)
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)

    return statistic


def dependence(n_folds: int) -> float:
    """Return the variance of a cross-validated score divided by its variance with the fitted models held fixed.

    Nadeau and Bengio ("Inference for the Generalization Error", Machine Learning 52, 2003) correct the variance of a
    mean over J splits from S²/J to S² (1/J + n_test / n_train): with J = K folds, by the factor 1 + K / (K - 1).
    """
    return 1 + n_folds / (n_folds - 1)


def widened(value: float, low: float, high: float, factor: float, limits: tuple[float, float]) -> tuple[float, float]:
    """Return an interval whose distances from the value are multiplied by the root of a variance factor.

    For a score from 0 to 1 the distances are those of the logits, if all are finite.
    """
    root = np.sqrt(factor)
    if limits == (0.0, 1.0) and 0 < low <= value <= high < 1:
        logits = np.log(np.array([low, value, high]) / (1 - np.array([low, value, high])))
        ends = logits[1] + root * (logits[[0, 2]] - logits[1])
        return float(1 / (1 + np.exp(-ends[0]))), float(1 / (1 + np.exp(-ends[1])))
    return max(limits[0], value - root * (value - low)), min(limits[1], value + root * (high - value))
