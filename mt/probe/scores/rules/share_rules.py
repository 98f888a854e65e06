"""Intervals of proportions and of means of proportions: accuracy, sensitivity, F1, balanced accuracy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mt.probe.scores.predictions import predicted_class
from mt.probe.scores.rules.classes import over_classes
from mt.probe.scores.rules.formulas import wilson
from mt.probe.scores.rules.sample import Estimate, Rule, Sample, covariance, influence_of
from mt.types import Array


def _effective(sample: Sample, share: float, variance: float, trials: float, units: float) -> float:
    """Return the effective number of trials: those of independent trials with the same variance.

    It is at most the number of trials in all draws, and is smaller by (z / t)² where the variance rests on few groups
    (Korn and Graubard, "Confidence Intervals for Proportions With Small Expected Number of Positive Counts Estimated
    From Survey Data", Survey Methodology 24, 1998).
    """
    if not sample.clustered and len(sample.ps) == 1:
        return trials
    found = share * (1 - share) / variance if variance > 0 else units
    if sample.clustered:
        found *= (sample.z() / sample.t(units - 1)) ** 2
    return min(found, trials * len(sample.ps))


def proportion(hits: Callable[[Array, Array], Array], trials: Callable[[Array, Array], Array]) -> Rule:
    """Wilson's interval of the share of trials that are hits, with the effective sample size where there are groups."""

    def rule(sample: Sample) -> Estimate:
        def one(p: Array) -> tuple[float, Array, int, int]:
            hit, tried = hits(sample.y, p), trials(sample.y, p)
            share = float(hit.sum() / tried.sum())
            return share, tried * (hit - share) / tried.sum(), int(tried.sum()), sample.units_with(tried)

        shares, influences, counts, units = zip(*map(one, sample.ps), strict=True)
        value, influence = float(np.mean(shares)), np.mean(influences, axis=0)
        variance = float(covariance(influence[None], sample)[0, 0])
        n = _effective(sample, value, variance, float(np.mean(counts)), float(np.mean(units)))
        low, high = wilson(value, n, sample.z())
        return Estimate(value, low, high, "Wilson", influence)

    return rule


accuracy = proportion(lambda y, p: predicted_class(p) == y, lambda y, p: np.ones(len(y), dtype=bool))
sensitivity = proportion(lambda y, p: (y == 1) & (predicted_class(p) == 1), lambda y, p: y == 1)
_jaccard = proportion(
    lambda y, p: (y == 1) & (predicted_class(p) == 1), lambda y, p: (y == 1) | (predicted_class(p) == 1)
)


def f1(sample: Sample) -> Estimate:
    """Wilson's interval of the Jaccard index J, on the scale F1 = 2 J / (1 + J).

    J is a proportion: true positives among the cases that are positive or are called so.
    """
    found = _jaccard(sample)
    value, low, high = (2 * j / (1 + j) for j in (found.value, found.low, found.high))
    slope = 2 / (1 + found.value) ** 2
    return Estimate(value, low, high, "Wilson on the Jaccard index", slope * influence_of(found))


def _votes(p: Array) -> Array:
    """Return (n, classes) ones where the class is the predicted one."""
    n_classes = 2 if p.ndim == 1 else p.shape[1]
    return np.asarray(predicted_class(p)[:, None] == np.arange(n_classes), dtype=np.float64)


def _true(truth: Array, shown: list[Array]) -> Array:
    return np.asarray(truth.any(axis=0))


def _true_or_predicted(truth: Array, shown: list[Array]) -> Array:
    return np.asarray(truth.any(axis=0) | np.all([votes.any(axis=0) for votes in shown], axis=0))


balanced_accuracy = over_classes(sensitivity, _votes, _true)
macro_f1 = over_classes(f1, _votes, _true_or_predicted)
