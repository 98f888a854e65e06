"""Intervals of metrics of the order of scores: ROC AUC, average precision, sensitivity at 95 % specificity."""

from __future__ import annotations

import numpy as np

from mt.probe.scores import rank_metrics as rank
from mt.probe.scores.bootstrap import replicate
from mt.probe.scores.rules.classes import over_classes
from mt.probe.scores.rules.formulas import logit, newcombe, wilson
from mt.probe.scores.rules.sample import Estimate, Sample, covariance, inflation
from mt.types import Array

_RESAMPLES = 400  # for the one variance that has no formula
_JACKKNIFED = 500  # cases of a class that are removed one at a time


def auc(sample: Sample) -> Estimate:
    """Logit scale, Obuchowski's variance, Student's t; degrees of freedom: units of the rarer class, minus 1.

    At 0 and 1, where that variance is zero, and with one unit of a class: the score interval with Hanley and McNeil's
    variance (Newcombe, "Confidence intervals for an effect size measure based on the Mann-Whitney statistic",
    Statistics in Medicine 25, 2006, method 5).
    """
    value = float(sample.mean(lambda p: rank.auc_and_influence(sample.y, p)[0]))
    influence = sample.mean(lambda p: rank.auc_and_influence(sample.y, p)[1])
    m, n = sample.units_with(sample.y == 1), sample.units_with(sample.y == 0)
    variance = float(covariance(influence[None], sample, by_class=True)[0, 0])
    if min(m, n) < 2 or not 0 < value < 1 or variance < 1e-16:
        low, high = newcombe(value, m, n, sample.z())
        return Estimate(value, low, high, "Newcombe's score interval", influence)
    low, high = logit(value, variance, sample.t(min(m, n) - 1))
    author = "Obuchowski" if sample.clustered else "DeLong"
    return Estimate(value, low, high, f"logit, {author}'s variance", influence)


def average_precision(sample: Sample) -> Estimate:
    """Logit scale with linearised variance, and Student's t as for the AUC; at 0 and 1 Wilson's interval over the units
    that hold a positive."""
    value = float(sample.mean(lambda p: rank.precision_and_influence(sample.y, p)[0]))
    influence = sample.mean(lambda p: rank.precision_and_influence(sample.y, p)[1])
    variance = float(covariance(influence[None], sample, by_class=True)[0, 0])
    if sample.fewest < 2 or not 0 < value < 1 or variance < 1e-16:
        low, high = wilson(value, sample.units_with(sample.y == 1), sample.z())
        return Estimate(value, low, high, "Wilson", influence)
    centre = min(max(value - float(sample.mean(lambda p: _precision_bias(sample.y, p))), value / 2), (1 + value) / 2)
    low, high = logit(centre, variance, sample.t(sample.fewest - 1))
    return Estimate(value, low, high, "logit, linearised variance, bias removed", influence, centre)


def _precision_bias(y: Array, p: Array) -> float:
    """Return the jackknife's estimate of the bias of average precision, which few positives make too high.

    It removes one case at a time and subtracts the first-order change -I_i; what remains is the bias.  For a class of
    more than 500 cases the bias is below 0.1 standard errors and counts as 0.
    """
    value, influence = rank.precision_and_influence(y, p)
    statistic, bias = rank.average_precision(y, p, np.arange(len(y))), 0.0
    for k in (0, 1):
        rows = np.flatnonzero(y == k)
        if 1 < len(rows) <= _JACKKNIFED:
            weights = np.ones((len(rows), len(y)), dtype=np.uint8)
            weights[np.arange(len(rows)), rows] = 0
            bias += (len(rows) - 1) * float(np.mean(statistic(weights) - value + influence[rows]))
    return bias


def sensitivity_at_95_specificity(sample: Sample) -> Estimate:
    """Wilson's interval with the number of trials that have the bootstrap's variance, threshold included."""
    statistics = [rank.sensitivity_at_95_specificity(sample.y, p, sample.unit) for p in sample.ps]
    whole = np.ones((1, sample.n_units))
    value = float(np.mean([statistic(whole)[0] for statistic in statistics]))
    found, _ = replicate(statistics, sample.y, sample.unit, n_resamples=_RESAMPLES, seed=0)
    units = sample.units_with(sample.y == 1)
    variance = float(np.nanvar(found.mean(axis=1))) * inflation(units, sample)
    share = float(np.nanmean(found))
    n = min(share * (1 - share) / variance if variance > 0 else units, float((sample.y == 1).sum()))
    n *= (sample.z() / sample.t(min(sample.fewest, 10**6) - 1)) ** 2
    low, high = wilson(value, n, sample.z())
    return Estimate(value, low, high, "Wilson, bootstrap variance")


mean_auc = over_classes(auc)
mean_precision = over_classes(average_precision)
