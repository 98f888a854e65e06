"""Calibration: what probabilities promise beside what happened, with intervals that cover.

The expected calibration error (ECE) is positive by chance alone, so its value means little without that of a calibrated
model on the same cases.  Intercept, slope and the observed/expected ratio have estimates without that fault.
Several classes count as two: the predicted class's probability, and whether it is right.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from mt.errors import InputError
from mt.probe.scores.sample import Estimate, Rule, Sample, checked, covariance, refused, units_of
from mt.probe.scores.sum_metrics import ECE_BINS, binned
from mt.types import Array, Groups

LEAST_P = 1e-7  # probabilities of 0 and 1 have no logit
_DRAWS = 4000  # of a calibrated model's errors
_STEPS = 50


@dataclass(frozen=True)
class Measure:
    """A value with its interval; NaN at both ends where there is none, with the reason."""

    value: float
    low: float
    high: float
    reason: str = ""


@dataclass(frozen=True)
class Calibration:
    """How far probabilities can be trusted.

    ece: expected calibration error in 15 bins of equal width.  ece_debiased: minus the part that chance adds in each
    bin.  ece_if_calibrated: the mean and the 95 % range of the ECE of a calibrated model with these probabilities.
    intercept: 0 where the mean probability is right.  slope: 1 where the probabilities are neither too extreme (below
    1) nor too timid (above 1).  observed_expected: events per expected event.
    """

    ece: float
    ece_debiased: float
    ece_if_calibrated: Measure
    intercept: Measure
    slope: Measure
    observed_expected: Measure


def calibration(y: ArrayLike, p: ArrayLike, *, groups: Groups | None = None, level: float = 0.95) -> Calibration:
    """Return the calibration of predictions (n,) or (n, classes), with intervals over test cases.

    groups: the patient of each case; without them cases are assumed independent.  Raises InputError for multilabel:
    its labels are calibrated one by one.
    """
    labels, probabilities = checked(y, p)
    if labels.ndim == 2:
        raise InputError("calibration is of one label at a time: pass a column of labels and of probabilities")
    if probabilities.min() < 0 or probabilities.max() > 1:
        raise InputError(f"probabilities lie in [0, 1], found {probabilities.min():g} to {probabilities.max():g}")
    sample = Sample(labels, (probabilities,), units_of(len(labels), groups), groups is not None, level)
    found = {name: _measure(rule(sample)) for name, rule in MEASURES.items()}
    debiased, if_calibrated = ece_facts(labels, probabilities)
    return Calibration(
        ece=float(np.abs(binned(labels, probabilities)[0].sum(axis=0)).sum() / len(labels)),
        ece_debiased=debiased,
        ece_if_calibrated=if_calibrated,
        intercept=found["calibration_intercept"],
        slope=found["calibration_slope"],
        observed_expected=found["observed_expected"],
    )


def calibration_curve(
    y: ArrayLike, p: ArrayLike, *, groups: Groups | None = None, level: float = 0.95, points: int = 50
) -> dict[str, Array]:
    """Return the flexible calibration curve and its pointwise band: arrays "p", "observed", "low" and "high" (points,).

    Logistic regression on a restricted cubic spline of the logit of the probability, knots at its 10 %, 50 % and 90 %
    quantiles (Harrell, "Regression Modeling Strategies", 2015, section 2.4.5), with linearised variance on the scale of
    the logit.  All arrays are empty where the regression has no solution, as for classes that predictions separate.
    """
    labels, probabilities = _two_classes(*checked(y, p))
    sample = Sample(labels, (probabilities,), units_of(len(labels), groups), groups is not None, level)
    x = logit(probabilities)
    knots = np.unique(np.quantile(x, [0.1, 0.5, 0.9]))
    lowest, highest = np.quantile(x, [0.02, 0.98]).tolist()
    grid = np.linspace(lowest, highest, points)
    beta, influence = _logistic(_spline(x, knots), labels, np.zeros(len(labels)))
    if np.isnan(beta).any():
        return {name: np.empty(0) for name in ("p", "observed", "low", "high")}
    at = _spline(grid, knots)
    spread = covariance(influence.T, sample)
    fewest = min(sample.units_with(labels == k) for k in (0, 1))
    half = sample.t(fewest - 1) * np.sqrt(np.einsum("pi,ij,pj->p", at, spread, at))
    middle = at @ beta
    ends = {"p": grid, "observed": middle, "low": middle - half, "high": middle + half}
    return {name: 1 / (1 + np.exp(-value)) for name, value in ends.items()}


def _spline(x: Array, knots: Array) -> Array:
    """Return 1, x, and with three knots the restricted cubic term, which is linear beyond the outer ones."""
    columns = [np.ones(len(x)), x]
    if len(knots) == 3:
        first, middle, last = knots
        below, within, above = (np.maximum(x - knot, 0) ** 3 for knot in knots)
        tail = below - within * (last - first) / (last - middle) + above * (middle - first) / (last - middle)
        columns.append(tail / (last - first) ** 2)
    return np.column_stack(columns)


def ece_facts(y: Array, p: Array) -> tuple[float, Measure]:
    """Return the debiased expected calibration error, and the mean and range of a calibrated model's."""
    gaps, confidence, bins = binned(y, p)
    return _debiased(gaps) / len(y), _if_calibrated(confidence, bins)


def _measure(found: Estimate) -> Measure:
    return Measure(found.value, found.low, found.high, found.reason)


def _debiased(gaps: Array) -> float:
    """Return Σ_b |S_b| minus its bias, S_b the sum of gaps in bin b, taken as normal with the variance of its cases.

    Of N(μ, σ²) the mean absolute value exceeds |μ| by σ sqrt(2/π) exp(-μ²/2σ²) - 2 |μ| Φ(-|μ|/σ), here at μ = S_b
    (Kumar, Liang and Ma, "Verified Uncertainty Calibration", NeurIPS 2019, section 4, do so for squares).
    """
    from scipy.special import ndtr

    sums, sd = np.abs(gaps.sum(axis=0)), np.sqrt((gaps**2).sum(axis=0))
    ratio = np.divide(sums, sd, out=np.zeros_like(sums), where=sd > 0)
    bias = sd * np.sqrt(2 / np.pi) * np.exp(-(ratio**2) / 2) - 2 * sums * ndtr(-ratio)
    return float(max(0.0, (sums - bias).sum()))


def _if_calibrated(confidence: Array, bins: Array) -> Measure:
    """Return the mean and the 95 % range of the ECE where each prediction is right as often as it says."""
    rng, n = np.random.default_rng(0), len(confidence)
    sd = np.sqrt(np.bincount(bins, weights=confidence * (1 - confidence), minlength=ECE_BINS))
    values = np.abs(rng.normal(size=(_DRAWS, ECE_BINS)) * sd).sum(axis=1) / n
    low, high = np.quantile(values, [0.025, 0.975])
    return Measure(float(np.sqrt(2 / np.pi) * sd.sum() / n), float(low), float(high))


# Intercept, slope, observed/expected ----------------------------------------------------------------------------------

_Fit = Callable[[Array, Array], tuple[float, Array]]  # truth, probability -> value, influence values; NaN: undefined


def _measured(fit: _Fit, sample: Sample, *, log: bool = False, why_not: str) -> Estimate:
    """Return an estimate and its interval: linearised variance and Student's t on the units of the rarer class.

    log: on the scale of the logarithm, where t on all units is enough.
    """
    fits = [fit(*_two_classes(sample.y, p)) for p in sample.ps]
    value, influence = float(np.mean([one for one, _ in fits])), np.mean([i for _, i in fits], axis=0)
    if not np.isfinite(value):
        return refused(value, why_not)
    truth = _two_classes(sample.y, sample.ps[0])[0]
    fewest = min(sample.units_with(truth == k) for k in (0, 1))
    error = float(np.sqrt(covariance(influence[None], sample)[0, 0]))
    half = error * sample.t((sample.n_units if log else fewest) - 1)
    if not 1e-8 < half < np.inf:
        return refused(value, why_not)
    if log:
        ratio = float(np.exp(half / value))
        return Estimate(value, value / ratio, value * ratio, "log, Student's t", influence)
    return Estimate(value, value - half, value + half, "linearised variance, Student's t", influence)


def _two_classes(y: Array, p: Array) -> tuple[Array, Array]:
    """Return binary labels and the probability of 1: of class 1, or with several classes of the predicted class."""
    if p.ndim == 1:
        return y, p
    return (p.argmax(axis=1) == y).astype(np.int64), p.max(axis=1) / p.sum(axis=1)


def logit(p: Array) -> Array:
    """Return log(p / (1 - p)) of probabilities kept off 0 and 1."""
    clipped = np.clip(p, LEAST_P, 1 - LEAST_P)
    return np.asarray(np.log(clipped / (1 - clipped)))


def _intercept(y: Array, p: Array) -> tuple[float, Array]:
    """Return a of logit P(y = 1) = a + logit p, and its influence values."""
    coefficients, influence = _logistic(np.ones((len(y), 1)), y, logit(p))
    return float(coefficients[0]), influence[:, 0]


def _slope(y: Array, p: Array) -> tuple[float, Array]:
    """Return b of logit P(y = 1) = a + b logit p, and its influence values."""
    x = np.column_stack([np.ones(len(y)), logit(p)])
    if np.ptp(x[:, 1]) < 1e-9:
        return np.nan, np.zeros(len(y))
    coefficients, influence = _logistic(x, y, np.zeros(len(y)))
    return float(coefficients[1]), influence[:, 1]


def _logistic(x: Array, y: Array, offset: Array) -> tuple[Array, Array]:
    """Return maximum-likelihood coefficients by Newton's method, and each case's influence on them (n, k).

    NaN where the likelihood has no maximum: one class, or classes that the predictions separate.
    """
    beta, undefined = np.zeros(x.shape[1]), (np.full(x.shape[1], np.nan), np.zeros(x.shape))
    for _ in range(_STEPS):
        mean = 1 / (1 + np.exp(-np.clip(x @ beta + offset, -40, 40)))
        information = (x * (mean * (1 - mean))[:, None]).T @ x
        if np.linalg.cond(information) > 1e12 or np.abs(beta).max() > 1e3:
            return undefined
        step = np.linalg.solve(information, x.T @ (y - mean))
        # A step is at most 2 units of the linear predictor, which keeps Newton's method from overshooting.
        beta = beta + step * min(1.0, 2 / max(1e-12, float(np.abs(x @ step).max())))
        if np.abs(step).max() < 1e-9:
            return beta, (x * (y - mean)[:, None]) @ np.linalg.inv(information)
    return undefined


def _observed_expected(y: Array, p: Array) -> tuple[float, Array]:
    observed, expected = float(y.sum()), float(p.sum())
    if not observed or not expected:
        return np.nan, np.zeros(len(y))
    ratio = observed / expected
    return ratio, ratio * (y / observed - p / expected)


_SEPARATED = "the cases are of one class, or the predictions separate the classes"
MEASURES: dict[str, Rule] = {
    "calibration_intercept": partial(_measured, _intercept, why_not=_SEPARATED),
    "calibration_slope": partial(_measured, _slope, why_not=_SEPARATED),
    "observed_expected": partial(_measured, _observed_expected, log=True, why_not="no events were observed"),
}
