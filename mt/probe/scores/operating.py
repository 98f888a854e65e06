"""What a threshold achieves on test cases: 2x2 counts, rates, predictive values, likelihood ratios, net benefit.

A case is called positive where its probability is at least the threshold.  With TP, FP, FN and TN:

    sensitivity = TP / (TP + FN)    PPV = TP / (TP + FP)    LR+ = sensitivity / (1 - specificity)
    specificity = TN / (TN + FP)    NPV = TN / (TN + FN)    LR- = (1 - sensitivity) / specificity

Rates have Wilson's interval, with the effective sample size if there are groups.  A ratio of two rates has the
MOVER interval of Donner and Zou ("Closed-form confidence intervals for functions of the normal mean and standard
deviation", Statistical Methods in Medical Research 21, 2012), which stays valid if a cell of the table is empty.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mt.errors import InputError
from mt.probe.scores.calibration import Measure
from mt.probe.scores.sample import (
    Estimate,
    Sample,
    checked,
    covariance,
    influence_of,
    units_of,
)
from mt.probe.scores.sum_metrics import share_interval
from mt.types import Array, Groups

REVISION = 1  # raised whenever a number of this file changes
RATES = ("sensitivity", "specificity", "ppv", "npv", "lr_positive", "lr_negative")
AT_PREVALENCE = ("ppv_at_prevalence", "npv_at_prevalence")
Cells = tuple[Array, Array]  # which cases are positive, and which are called positive


@dataclass(frozen=True)
class OperatingPoint:
    """What thresholds, one per draw, achieve on the same test cases.

    tp, fp, fn, tn: counts, the mean over draws.  measures: the rates of `RATES` by name and, if a prevalence was given,
    those of `AT_PREVALENCE`; each with its mean over draws and its interval over test cases, or NaN and the reason.
    """

    thresholds: tuple[float, ...]
    tp: float
    fp: float
    fn: float
    tn: float
    measures: dict[str, Measure]


def operating_point(
    y: ArrayLike,
    p: ArrayLike,
    threshold: float,
    *,
    groups: Groups | None = None,
    level: float = 0.95,
    prevalence: float | None = None,
) -> OperatingPoint:
    """Return counts, rates and ratios if the cases with at least this probability are called positive.

    y: (n,) zeros and ones.  p: (n,) probabilities.  groups: the patient of each case; without them cases are assumed
    independent.  level: of the intervals.  prevalence: that of another population, whose PPV and NPV are computed from
    the likelihood ratios.  Choose the threshold on other cases than these: otherwise every rate is too optimistic.
    Raises InputError for labels and probabilities that do not belong together, or are not of one label, and for a level
    or prevalence outside (0, 1).
    """
    return operating_points(y, [p], [threshold], groups=groups, level=level, prevalence=prevalence)


def operating_points(
    y: ArrayLike,
    ps: Sequence[ArrayLike],
    thresholds: Sequence[float],
    *,
    groups: Groups | None = None,
    level: float = 0.95,
    prevalence: float | None = None,
) -> OperatingPoint:
    """Return the mean of `operating_point` over several draws, each with its predictions and its threshold."""
    _check_share(prevalence, "prevalence")
    sample = _called(y, ps, thresholds, groups, level)
    tables = [_counts(sample.y == 1, p == 1) for p in sample.ps]
    found = {
        "sensitivity": _rate(sample, lambda positive, called: (positive & called, positive), "no case is positive"),
        "specificity": _rate(sample, lambda positive, called: (~positive & ~called, ~positive), "no case is negative"),
        "ppv": _rate(sample, lambda positive, called: (positive & called, called), "no case is called positive"),
        "npv": _rate(sample, lambda positive, called: (~positive & ~called, ~called), "no case is called negative"),
    }
    ratios = _likelihood_ratios(sample, found)
    measures = {name: _measure(estimate) for name, estimate in found.items()} | ratios
    if prevalence is not None:
        measures["ppv_at_prevalence"] = _of_odds(ratios["lr_positive"], prevalence)
        measures["npv_at_prevalence"] = _complement(_of_odds(ratios["lr_negative"], prevalence))
    tp, fp, fn, tn = np.mean(tables, axis=0).tolist()
    return OperatingPoint(tuple(map(float, thresholds)), tp, fp, fn, tn, measures)


@dataclass(frozen=True)
class DecisionCurve:
    """Net benefit per case at each threshold probability (m,): of the model with its interval, and of treating all.

    Treating nobody has a net benefit of 0.
    """

    thresholds: Array
    model: Array
    low: Array
    high: Array
    treat_all: Array


def decision_curve(
    y: ArrayLike,
    p: ArrayLike,
    *,
    groups: Groups | None = None,
    level: float = 0.95,
    thresholds: Sequence[float] | None = None,
) -> DecisionCurve:
    """Return the net benefit of predictions at each threshold probability, with pointwise intervals.

    It is TP / n - (FP / n) · t / (1 - t) at threshold t (Vickers and Elkin, Medical Decision Making 26, 2006).
    y: (n,) zeros and ones.  p: (n,) probabilities.  groups: the patient of each case.  level: of the intervals.
    thresholds: 0.01, 0.02 ... 0.99 by default.
    Raises InputError for thresholds outside (0, 1), and for labels and probabilities that do not belong together.
    """
    return decision_curves(y, [p], groups=groups, level=level, thresholds=thresholds)


def decision_curves(
    y: ArrayLike,
    ps: Sequence[ArrayLike],
    *,
    groups: Groups | None = None,
    level: float = 0.95,
    thresholds: Sequence[float] | None = None,
) -> DecisionCurve:
    """Return the mean curve of several draws."""
    grid = np.arange(1, 100) / 100 if thresholds is None else np.asarray(thresholds, dtype=np.float64)
    if not len(grid) or not ((grid > 0) & (grid < 1)).all():
        raise InputError("threshold probabilities of a decision curve must lie between 0 and 1, both excluded")
    points = [_net_benefit(_called(y, ps, [t] * len(ps), groups, level), float(t / (1 - t))) for t in grid]
    positive = float(np.mean(np.asarray(y) == 1))
    everybody = positive - (1 - positive) * grid / (1 - grid)
    model, low, high = (np.array(values) for values in zip(*points, strict=True))
    return DecisionCurve(grid, model, low, high, everybody)


def _called(
    y: ArrayLike, ps: Sequence[ArrayLike], thresholds: Sequence[float], groups: Groups | None, level: float
) -> Sample:
    """Return the sample whose predictions are 1 where a case is called positive."""
    if not 0 < level < 1:
        raise InputError(f"level is between 0 and 1 (0.95 is 95 %), got {level:g}")
    labels = checked(y, ps[0])[0]
    found = [checked(y, p)[1] for p in ps]
    if labels.ndim != 1 or any(p.ndim != 1 for p in found):
        raise InputError("a threshold applies to one label: pass its labels (n,) and its probabilities (n,)")
    if np.isnan(thresholds).any():
        raise InputError("a threshold is NaN")
    called = tuple((p >= t).astype(np.float64) for p, t in zip(found, thresholds, strict=True))
    return Sample(labels, called, units_of(len(labels), groups), groups is not None, level)


def _check_share(share: float | None, name: str) -> None:
    if share is not None and not 0 < share < 1:
        raise InputError(f"{name} is between 0 and 1, both excluded (0.02 is 2 %), got {share:g}")


def _counts(positive: Array, called: Array) -> list[int]:
    return [
        int((positive & called).sum()),
        int((~positive & called).sum()),
        int((positive & ~called).sum()),
        int((~positive & ~called).sum()),
    ]


def _rate(sample: Sample, parts: Callable[[Array, Array], Cells], why_not: str) -> Estimate:
    """Return a rate with Wilson's interval.  parts: returns which cases are hits, and which are counted at all."""
    empty = [not parts(sample.y == 1, p == 1)[1].any() for p in sample.ps]
    if any(empty):
        of = f" in {sum(empty)} of {len(empty)} draws" if len(empty) > 1 else ""
        return Estimate(np.nan, np.nan, np.nan, "", reason=why_not + of)
    if sample.n_units == 1:
        value = float(sample.mean(lambda p: np.divide(*(part.sum() for part in parts(sample.y == 1, p == 1)))))
        return Estimate(value, np.nan, np.nan, "", reason="all cases are of one group")
    return share_interval(lambda y, p: parts(y == 1, p == 1)[0], lambda y, p: parts(y == 1, p == 1)[1], sample)


def _measure(found: Estimate) -> Measure:
    return Measure(found.value, found.low, found.high, found.reason)


def _refused(reason: str, value: float = np.nan) -> Measure:
    return Measure(value, np.nan, np.nan, reason)


def _likelihood_ratios(sample: Sample, found: dict[str, Estimate]) -> dict[str, Measure]:
    """Return LR+ and LR- of the mean sensitivity and specificity."""
    sensitivity, specificity = found["sensitivity"], found["specificity"]
    for part in (sensitivity, specificity):
        if part.reason:
            return dict.fromkeys(("lr_positive", "lr_negative"), _refused(part.reason))
    alarms, missed = _one_minus(specificity), _one_minus(sensitivity)
    return {
        "lr_positive": _ratio(sensitivity, alarms, sample, "no case is called positive"),
        "lr_negative": _ratio(missed, specificity, sample, "no case is called negative"),
    }


def _one_minus(found: Estimate) -> Estimate:
    return Estimate(1 - found.value, 1 - found.high, 1 - found.low, found.method, -influence_of(found))


def _correlation(a: Estimate, b: Estimate, sample: Sample) -> float:
    """Return the correlation of two estimates; 0 if one shows no variance.

    Since it is estimated from M units, it is shrunk by 1 - 1 / M: otherwise a width could cancel to zero.
    """
    spread = covariance(np.stack([influence_of(a), influence_of(b)]), sample)
    scale = float(np.sqrt(spread[0, 0] * spread[1, 1]))
    return float(spread[0, 1]) / scale * (1 - 1 / sample.n_units) if scale > 1e-16 else 0.0


def _ratio(top: Estimate, bottom: Estimate, sample: Sample, why_not: str) -> Measure:
    """Return top / bottom with its MOVER interval: the values R for which top - R · bottom can be 0.

    If only `bottom` is 0, the ratio is infinite and its interval open above; if both are 0, there is no ratio.
    """
    if top.value == 0 and bottom.value == 0:
        return _refused(why_not)
    rho = _correlation(top, bottom, sample)
    low = _root(top, bottom, (top.value - top.low) * (bottom.high - bottom.value) * rho, (top.low, bottom.high), -1)
    high = _root(top, bottom, (top.high - top.value) * (bottom.value - bottom.low) * rho, (top.high, bottom.low), 1)
    value = top.value / bottom.value if bottom.value > 0 else np.inf
    return Measure(value, min(low, value), max(high, value))


def _root(top: Estimate, bottom: Estimate, shared: float, ends: tuple[float, float], sign: int) -> float:
    """Return a root R of (a - R b)² = (a - l)² - 2 R s + R² (u - b)², at least 0.

    a and b are the rates, l and u the ends of their intervals, and s is `shared`, their covariance term.
    """
    a, b, (end_a, end_b) = top.value, bottom.value, ends
    square = end_b * (2 * b - end_b)
    middle, rest = a * b - shared, end_a * (2 * a - end_a)
    root = float(np.sqrt(max(0.0, middle**2 - square * rest)))
    if abs(square) < 1e-12:
        if sign > 0:
            return float(np.inf)
        return max(0.0, rest / (2 * middle)) if middle > 0 else 0.0
    return max(0.0, (middle + sign * root) / square)


def _of_odds(ratio: Measure, prevalence: float) -> Measure:
    """Return the probability of the condition, given a test result with this likelihood ratio and the prevalence."""
    if ratio.reason:
        return ratio
    odds = prevalence / (1 - prevalence)

    def after(one: float) -> float:
        return 1.0 if np.isinf(one) else one * odds / (1 + one * odds)

    return Measure(after(ratio.value), after(ratio.low), after(ratio.high))


def _complement(found: Measure) -> Measure:
    return Measure(1 - found.value, 1 - found.high, 1 - found.low, found.reason)


def _net_benefit(sample: Sample, weight: float) -> tuple[float, float, float]:
    """Return TP / n - weight · FP / n, and its MOVER interval from the Wilson intervals of both shares."""
    every = np.ones(len(sample.y), dtype=bool)
    hits = share_interval(lambda y, p: (y == 1) & (p == 1), lambda y, p: every, sample)
    alarms = share_interval(lambda y, p: (y == 0) & (p == 1), lambda y, p: every, sample)
    rho = _correlation(hits, alarms, sample) if sample.n_units > 1 else 0.0

    def reach(first: float, second: float) -> float:
        return float(np.sqrt(max(0.0, first**2 + second**2 - 2 * rho * first * second)))

    value = hits.value - weight * alarms.value
    down = reach(hits.value - hits.low, weight * (alarms.high - alarms.value))
    up = reach(hits.high - hits.value, weight * (alarms.value - alarms.low))
    return value, value - down, value + up
