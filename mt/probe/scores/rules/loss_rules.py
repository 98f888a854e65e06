"""Intervals of mean losses and of kappa, and what holds for metrics that have no rule of their own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mt.probe.scores import sum_metrics as sums
from mt.probe.scores.bootstrap import Resampled
from mt.probe.scores.rules.formulas import floored
from mt.probe.scores.rules.sample import Estimate, Rule, Sample, covariance, refused
from mt.types import Array

_BLOCKS = 500  # blocks of units that the jackknife removes one at a time


def loss(losses: Callable[[Array, Array], Array], chance: float) -> Rule:
    """The interval of a mean loss: log scale, Student's t; degrees of freedom: units of the rarest class, minus 1.

    chance: the loss of a binary prediction of 1/2, the scale where the cases show no variance.
    """

    def rule(sample: Sample) -> Estimate:
        each = sample.mean(lambda p: losses(sample.y, p))
        value = float(each.mean())
        influence = (each - value) / len(each)
        variance = float(covariance(influence[None], sample)[0, 0])
        t = sample.t(sample.fewest - 1)
        if variance < 1e-16 * max(value, 1) or value <= 0:
            low, high = floored(value, t, sample.n_units, 0.0, np.inf, chance)
            return Estimate(value, low, high, "two pseudo-cases", influence)
        ratio = np.exp(t * np.sqrt(variance) / value)
        return Estimate(value, float(value / ratio), float(value * ratio), "log, Student's t", influence)

    return rule


brier = loss(lambda y, p: (p - y) ** 2, 0.25)
log_loss = loss(sums.surprise, float(np.log(2)))


def quadratic_kappa(sample: Sample) -> Estimate:
    """Fisher's z scale with linearised variance and Student's t over the units."""
    value = float(sample.mean(lambda p: sums.kappa_and_influence(sample.y, p)[0]))
    influence = sample.mean(lambda p: sums.kappa_and_influence(sample.y, p)[1])
    variance = float(covariance(influence[None], sample)[0, 0])
    t = sample.t(sample.n_units - 1)
    if variance < 1e-16 or abs(value) >= 1:
        low, high = floored(value, t, sample.n_units, -1.0, 1.0, 1.0)
        return Estimate(value, low, high, "two pseudo-cases", influence)
    half = t * np.sqrt(variance) / (1 - value**2)
    low, high = np.tanh(np.arctanh(value) - half), np.tanh(np.arctanh(value) + half)
    return Estimate(value, float(low), float(high), "Fisher's z, linearised variance", influence)


def jackknife(over: Resampled) -> Rule:
    """The interval of a metric without a rule: jackknife over units (or 500 blocks of units), Student's t."""

    def rule(sample: Sample) -> Estimate:
        n_blocks = min(sample.n_units, _BLOCKS)
        block = np.random.default_rng(0).permutation(np.arange(sample.n_units) % n_blocks)
        weights = np.concatenate([np.ones((1, sample.n_units)), block != np.arange(n_blocks)[:, None]]).astype(
            np.uint16
        )
        value, *without = np.mean([over(sample.y, p, sample.unit)(weights) for p in sample.ps], axis=0)
        variance = (n_blocks - 1) * float(np.var(without))
        if not variance > 1e-16:
            return refused(float(value), "the score stays the same, or is not defined, without some of the cases")
        half = sample.t(n_blocks - 1) * np.sqrt(variance)
        return Estimate(float(value), float(value - half), float(value + half), "jackknife, Student's t")

    return rule


def no_interval_of_ece(sample: Sample) -> Estimate:
    """No interval: chance alone makes the expected calibration error positive, and its bias depends on the truth."""
    value = float(sample.mean(lambda p: sums.ece(sample.y, p, sample.unit)(np.ones((1, sample.n_units)))[0]))
    return refused(
        value,
        "the expected calibration error is positive by chance alone; judge calibration by its intercept, slope and "
        "observed/expected ratio (mt.calibration)",
    )
