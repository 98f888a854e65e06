"""Metrics of sums over cases (accuracy, F1, kappa, Brier score, ECE, ...): on resamples, and their intervals.

Each is a table of numbers per case, summed by unit before, and a formula of the weighted sums.  A resample costs one
matrix product, and its value equals the metric on the resample's rows.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from mt.probe.scores.sample import (
    Estimate,
    Resampled,
    Rule,
    Sample,
    Statistic,
    class_columns,
    covariance,
    influence_of,
    n_classes,
    over_classes,
    predicted_class,
    ratio,
    refused,
    whole,
    wilson,
)
from mt.stratification import Ints
from mt.types import Array

ECE_BINS = 15
# Up to this many classes, counts per class are a matrix product; with more the matrix grows too large.
SUMMED_CLASSES = 64

Features = Callable[[Array, Array], Array]
# Weights of the units -> correct, true and predicted cases per class, (resamples, classes) each.
Counts = Callable[[Array], tuple[Array, Array, Array]]


def _of_sums(features: Features, formula: Statistic, y: Array, p: Array, unit: Ints) -> Statistic:
    """Return the metric that is a formula of the sums of `features` (n, k) over the cases."""
    sums = _sum_by_unit(features(y, p), unit)
    return lambda w: formula(w.astype(np.float64) @ sums)


def _of_counts(formula: Callable[[Array, Array, Array], Array], y: Array, p: Array, unit: Ints) -> Statistic:
    """Return the metric that is a formula of the numbers of correct, true and predicted cases of each class."""
    counts = _counts(y, predicted_class(p), n_classes(y, p), unit)
    return lambda w: formula(*counts(w))


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


def balanced_accuracy(y: Array, p: Array, unit: Ints) -> Statistic:
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
    """Return 1 - Σ (y - g)² / E, where E = Σ_ij (i - j)² n_i m_j / n is expected from the marginals n_i and m_j."""
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
    """Return each case's confidence in its predicted class, whether the class is right (0 or 1), and its bin."""
    confidence = class_columns(p).max(axis=1)
    bins = np.clip(np.ceil(confidence * ECE_BINS).astype(np.int64) - 1, 0, ECE_BINS - 1)
    return confidence, (predicted_class(p) == y).astype(np.float64), bins


def binned(y: Array, p: Array) -> tuple[Array, Array, Array]:
    """Return gaps (n, bins), confidences (n,) and bin numbers (n,).

    A case's gap, confidence minus correctness, stands in the column of its bin; its other columns are 0.
    """
    confidence, correct, bins = calibration(y, p)
    in_bin = bins[:, None] == np.arange(ECE_BINS)
    return in_bin * (confidence - correct)[:, None], confidence, bins


def _gaps(y: Array, p: Array) -> Array:
    return np.column_stack([binned(y, p)[0], np.ones(len(y))])


def _mean_gap(sums: Array) -> Array:
    return ratio(np.abs(sums[:, :-1]).sum(axis=1), sums[:, -1])


accuracy = partial(_of_sums, _hits, _mean_of_sums)
brier = partial(_of_sums, _squares, _mean_of_sums)
log_loss = partial(_of_sums, _surprises, _mean_of_sums)
ece = partial(_of_sums, _gaps, _mean_gap)
quadratic_kappa = partial(_of_sums, _grades, _kappa)
f1 = partial(_of_counts, _f1_of_class_1)
macro_f1 = partial(_of_counts, _mean_f1)


_BLOCKS = 500  # blocks of units that the jackknife removes one at a time, at most


def _mean_loss_interval(losses: Features, chance: float, highest: float, sample: Sample) -> Estimate:
    """Return the interval of a mean loss on the log scale, with Student's t.

    The degrees of freedom are the units of the rarest class minus 1.  Cases of one class show nothing of the losses of
    the others: they have no interval.
    chance: the loss of a binary prediction of 1/2; it sets the width if the cases show no variance.  highest: the
    greatest value that the loss can have.
    """
    each = sample.mean(lambda p: losses(sample.y, p))
    value = float(each.mean())
    if len(sample.classes) == 1:
        return refused(value, _lacking(sample))
    influence = (each - value) / len(each)
    variance = float(covariance(influence[None], sample)[0, 0])
    t = sample.t(sample.fewest - 1)
    if variance < 1e-16 * max(value, 1) or value <= 0:
        low, high = _floored(value, t, sample.n_units, 0.0, highest, chance)
        return Estimate(value, low, high, "two pseudo-cases", influence)
    factor = np.exp(t * np.sqrt(variance) / value)
    low, high = float(value / factor), min(highest, float(value * factor))
    return Estimate(value, low, high, "log, Student's t", influence)


brier_interval = partial(_mean_loss_interval, lambda y, p: (p - y) ** 2, 0.25, 1.0)
log_loss_interval = partial(_mean_loss_interval, surprise, float(np.log(2)), np.inf)


def kappa_interval(sample: Sample) -> Estimate:
    """Return kappa's interval on Fisher's z scale, with linearised variance and Student's t over the units."""
    value = float(sample.mean(lambda p: kappa_and_influence(sample.y, p)[0]))
    influence = sample.mean(lambda p: kappa_and_influence(sample.y, p)[1])
    variance = float(covariance(influence[None], sample)[0, 0])
    t = sample.t(sample.n_units - 1)
    if variance < 1e-16 or abs(value) >= 1:
        low, high = _floored(value, t, sample.n_units, -1.0, 1.0, 1.0)
        return Estimate(value, low, high, "two pseudo-cases", influence)
    half = t * np.sqrt(variance) / (1 - value**2)
    low, high = np.tanh(np.arctanh(value) - half), np.tanh(np.arctanh(value) + half)
    return Estimate(value, float(low), float(high), "Fisher's z, linearised variance", influence)


def jackknife(over: Resampled, sample: Sample) -> Estimate:
    """Return the interval of a metric without a rule: the jackknife over units (or 500 blocks) and Student's t."""
    n_blocks = min(sample.n_units, _BLOCKS)
    block = np.random.default_rng(0).permutation(np.arange(sample.n_units) % n_blocks)
    weights = np.concatenate([whole(sample.n_units), block != np.arange(n_blocks)[:, None]]).astype(np.uint16)
    value, *without = np.mean([over(sample.y, p, sample.unit)(weights) for p in sample.ps], axis=0)
    variance = (n_blocks - 1) * float(np.var(without))
    if not variance > 1e-16:
        return refused(float(value), "the score stays the same, or is not defined, without some of the cases")
    half = sample.t(n_blocks - 1) * np.sqrt(variance)
    return Estimate(float(value), float(value - half), float(value + half), "jackknife, Student's t")


def no_interval_of_ece(sample: Sample) -> Estimate:
    """Return no interval: the ECE is positive by chance alone, and its bias depends on the unknown true calibration."""
    value = float(sample.mean(lambda p: ece(sample.y, p, sample.unit)(whole(sample.n_units))[0]))
    return refused(
        value,
        "the expected calibration error is positive by chance alone; judge calibration by its intercept, slope and "
        "observed/expected ratio (mt.calibration)",
    )


def _floored(value: float, t: float, n_units: int, lowest: float, highest: float, scale: float) -> tuple[float, float]:
    """Return an interval for cases without variance, as if two more units lay one `scale` above and one below."""
    half = t * np.sqrt(2) * scale / (n_units + 2)
    return max(lowest, value - half), min(highest, value + half)


def _effective(sample: Sample, share: float, variance: float, trials: float, units: float) -> float:
    """Return the effective number of trials: as many independent trials would have the same variance.

    It is at most the number of trials in all draws.  With groups it is multiplied by (z / t)², since few groups
    estimate the variance (Korn and Graubard, "Confidence Intervals for Proportions With Small Expected Number of
    Positive Counts Estimated From Survey Data", Survey Methodology 24, 1998).
    """
    if not sample.clustered and len(sample.ps) == 1:
        return trials
    found = share * (1 - share) / variance if variance > 0 else units
    if sample.clustered:
        found *= (sample.z() / sample.t(units - 1)) ** 2
    return min(found, trials * len(sample.ps))


def share_interval(hits: Features, trials: Features, sample: Sample) -> Estimate:
    """Return Wilson's interval of the share of trials that are hits, with the effective sample size for groups."""

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


accuracy_interval = partial(
    share_interval, lambda y, p: predicted_class(p) == y, lambda y, p: np.ones(len(y), dtype=bool)
)
_sensitivity_interval = partial(share_interval, lambda y, p: (y == 1) & (predicted_class(p) == 1), lambda y, p: y == 1)
_jaccard_interval = partial(
    share_interval,
    lambda y, p: (y == 1) & (predicted_class(p) == 1),
    lambda y, p: (y == 1) | (predicted_class(p) == 1),
)


def f1_interval(sample: Sample) -> Estimate:
    """Return Wilson's interval of the Jaccard index J, transformed to F1 = 2 J / (1 + J).

    J is a proportion: true positives among the cases that are positive or predicted positive.
    """
    found = _jaccard_interval(sample)
    value, low, high = (2 * j / (1 + j) for j in (found.value, found.low, found.high))
    slope = 2 / (1 + found.value) ** 2
    return Estimate(value, low, high, "Wilson on the Jaccard index", slope * influence_of(found))


def _votes(p: Array) -> Array:
    """Return (n, classes) float64: 1 for the predicted class, else 0."""
    n_classes = 2 if p.ndim == 1 else p.shape[1]
    return np.asarray(predicted_class(p)[:, None] == np.arange(n_classes), dtype=np.float64)


def _of_every_class(one: Rule, sample: Sample) -> Estimate:
    """Return the interval of a mean over all classes; without test cases of a class there is none.

    The mean over the other classes estimates another score: with 50 cases and a class of 5 %, intervals around it
    covered 0.89.
    """
    if len(sample.classes) < n_classes(sample.y, sample.ps[0]):
        return refused(np.nan, _lacking(sample))
    return over_classes(one, sample, columns=_votes)


def _lacking(sample: Sample) -> str:
    return without_cases(n_classes(sample.y, sample.ps[0]) - len(sample.classes), n_classes(sample.y, sample.ps[0]))


def without_cases(lacking: int, classes: int) -> str:
    """Return the reason why cases that lack some of the classes have no interval."""
    return (
        f"{lacking} of {classes} classes {'has' if lacking == 1 else 'have'} no test case; at least 1 of each is needed"
    )


balanced_accuracy_interval = partial(_of_every_class, _sensitivity_interval)
macro_f1_interval = partial(_of_every_class, f1_interval)
