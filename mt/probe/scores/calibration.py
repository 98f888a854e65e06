"""Calibration: predicted probabilities compared with observed frequencies, with intervals that cover.

The expected calibration error (ECE) is positive by chance alone, so its value means little without that of a calibrated
model on the same cases.  Intercept, slope and the observed/expected ratio do not have this bias.
Several classes are reduced to two: whether the predicted class is right, with its probability.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from mt.errors import InputError
from mt.probe.scores.sample import Estimate, Rule, Sample, checked, covariance, refused, units_of
from mt.probe.scores.sum_metrics import ECE_BINS, binned
from mt.types import Array, Groups

LEAST_P = 1e-7  # probabilities are clipped to [1e-7, 1 - 1e-7]: 0 and 1 have no logit
_DRAWS = 4000  # random draws of a calibrated model's ECE
_STEPS = 50  # of Newton's method, at most


@dataclass(frozen=True)
class Measure:
    """A value with its 95 % (or `level`) interval; without one, both ends are NaN and `reason` says why."""

    value: float
    low: float
    high: float
    reason: str = ""


@dataclass(frozen=True)
class Calibration:
    """How far probabilities can be trusted.

    ece: expected calibration error in 15 bins of equal width.  ece_debiased: the ECE minus the part that chance adds in
    each bin.  ece_if_calibrated: the mean and the 95 % range of the ECE of a calibrated model with these probabilities.
    intercept: 0 if the mean probability is right.  slope: 1 if the spread of the probabilities is right; below 1 they
    are too extreme, above 1 too close to the mean.  observed_expected: observed events per expected event.
    """

    ece: float
    ece_debiased: float
    ece_if_calibrated: Measure
    intercept: Measure
    slope: Measure
    observed_expected: Measure


@dataclass(frozen=True)
class EceFacts:
    """The debiased ECE, and the mean and 95 % range of the ECE of a calibrated model with the same probabilities."""

    debiased: float
    if_calibrated: float
    low: float
    high: float

    @classmethod
    def mean(cls, draws: Sequence[EceFacts]) -> EceFacts:
        """Return the means over draws."""
        return cls(*np.mean([(one.debiased, one.if_calibrated, one.low, one.high) for one in draws], axis=0).tolist())

    @property
    def by_chance(self) -> str:
        """What a calibrated model would have, in words: `0.094 (0.061-0.124)`."""
        return f"{self.if_calibrated:.3f} ({self.low:.3f}-{self.high:.3f})"


def calibration(y: ArrayLike, p: ArrayLike, *, groups: Groups | None = None, level: float = 0.95) -> Calibration:
    """Return the calibration of predictions, with intervals over test cases.

    y: (n,) class numbers.  p: (n,) P(class 1), or (n, classes).  groups: the patient of each case; without them cases
    are assumed independent.  level: of the intervals; the range of `ece_if_calibrated` is always the 95 % one.
    Raises InputError for labels and predictions that do not belong together, for numbers outside [0, 1], and for
    several labels per case: pass one column of labels and of probabilities at a time; also for a level outside (0, 1).
    """
    labels, probabilities = judged(y, p, level)
    sample = Sample(labels, (probabilities,), units_of(len(labels), groups), groups is not None, level)
    found = {name: _measure(rule(sample)) for name, rule in MEASURES.items()}
    facts = ece_facts(labels, probabilities)
    return Calibration(
        ece=float(np.abs(binned(labels, probabilities)[0].sum(axis=0)).sum() / len(labels)),
        ece_debiased=facts.debiased,
        ece_if_calibrated=Measure(facts.if_calibrated, facts.low, facts.high),
        intercept=found["calibration_intercept"],
        slope=found["calibration_slope"],
        observed_expected=found["observed_expected"],
    )


def calibration_curve(
    y: ArrayLike, p: ArrayLike, *, groups: Groups | None = None, level: float = 0.95, points: int = 50
) -> dict[str, Array]:
    """Return the flexible calibration curve and its pointwise band: arrays "p", "observed", "low" and "high" (points,).

    The curve is a logistic regression on a restricted cubic spline of the logit of the probability, with knots at its
    10 %, 50 % and 90 % quantiles (Harrell, "Regression Modeling Strategies", 2015, section 2.4.5).  The band has the
    linearised variance on the logit scale.  All arrays are empty if the regression has no solution, for example if the
    predictions separate the classes.

    y, p, groups: as in `calibration`.  level: of the band.  points: from the 2 % to the 98 % quantile of the logits.
    Raises InputError for what `calibration` refuses, and for fewer than two points.
    """
    if points < 2:
        raise InputError(f"a calibration curve has at least 2 points, got {points}")
    labels, probabilities = _two_classes(*judged(y, p, level))
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


def judged(y: ArrayLike, p: ArrayLike, level: float) -> tuple[Array, Array]:
    """Return checked labels (n,) and probabilities, (n,) or (n, classes).

    Raises InputError for several labels per case, for numbers outside [0, 1], for rows of zeros, and for a level
    outside (0, 1).
    """
    if not 0 < level < 1:
        raise InputError(f"level is between 0 and 1 (0.95 is 95 %), got {level:g}")
    labels, probabilities = checked(y, p)
    if labels.ndim == 2:
        raise InputError("calibration takes one label at a time: pass one column of labels and of probabilities")
    if probabilities.min() < 0 or probabilities.max() > 1:
        raise InputError(f"probabilities must lie in [0, 1], found {probabilities.min():g} to {probabilities.max():g}")
    if probabilities.ndim == 2 and not probabilities.any(axis=1).all():
        raise InputError("the probabilities of some case are all 0: they must sum to 1 over the classes")
    return labels, probabilities


def _spline(x: Array, knots: Array) -> Array:
    """Return the columns 1, x and, with three knots, the restricted cubic term, linear beyond the outer knots."""
    columns = [np.ones(len(x)), x]
    if len(knots) == 3:
        first, middle, last = knots
        below, within, above = (np.maximum(x - knot, 0) ** 3 for knot in knots)
        tail = below - within * (last - first) / (last - middle) + above * (middle - first) / (last - middle)
        columns.append(tail / (last - first) ** 2)
    return np.column_stack(columns)


def ece_facts(y: Array, p: Array) -> EceFacts:
    """Return the debiased ECE, and the mean and range of the ECE of a calibrated model."""
    gaps, confidence, bins = binned(y, p)
    expected = _if_calibrated(confidence, bins)
    return EceFacts(_debiased(gaps) / len(y), expected.value, expected.low, expected.high)


def _measure(found: Estimate) -> Measure:
    return Measure(found.value, found.low, found.high, found.reason)


def _debiased(gaps: Array) -> float:
    """Return Σ_b |S_b| minus its bias, at least 0; S_b is the sum of the gaps in bin b.

    S_b is taken as normal with the variance of its cases.  The mean absolute value of N(μ, σ²) exceeds |μ| by
    σ sqrt(2/π) exp(-μ²/2σ²) - 2 |μ| Φ(-|μ|/σ), here at μ = S_b (Kumar, Liang and Ma, "Verified Uncertainty
    Calibration", NeurIPS 2019, section 4, correct squares in this way).
    """
    from scipy.special import ndtr

    sums, sd = np.abs(gaps.sum(axis=0)), np.sqrt((gaps**2).sum(axis=0))
    ratio = np.divide(sums, sd, out=np.zeros_like(sums), where=sd > 0)
    bias = sd * np.sqrt(2 / np.pi) * np.exp(-(ratio**2) / 2) - 2 * sums * ndtr(-ratio)
    return float(max(0.0, (sums - bias).sum()))


def _if_calibrated(confidence: Array, bins: Array) -> Measure:
    """Return the mean and the 95 % range of the ECE if each prediction is right with its own probability."""
    rng, n = np.random.default_rng(0), len(confidence)
    sd = np.sqrt(np.bincount(bins, weights=confidence * (1 - confidence), minlength=ECE_BINS))
    values = np.abs(rng.normal(size=(_DRAWS, ECE_BINS)) * sd).sum(axis=1) / n
    low, high = np.quantile(values, [0.025, 0.975])
    return Measure(float(np.sqrt(2 / np.pi) * sd.sum() / n), float(low), float(high))


# Intercept, slope, observed/expected ----------------------------------------------------------------------------------

_Fit = Callable[[Array, Array], tuple[float, Array]]  # truth, probability -> value, influence values; NaN: undefined


def _measured(fit: _Fit, sample: Sample, *, log: bool = False, why_not: str) -> Estimate:
    """Return an estimate and its interval by linearised variance and Student's t on the units of the rarer class.

    log: compute the interval on the log scale, with the degrees of freedom of all units.
    why_not: the reason to give if there is no interval.
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
    """Return binary labels (n,) and the probability (n,) that each is 1.

    For several classes the label says whether the predicted class is right.
    """
    if p.ndim == 1:
        return y, p
    return (p.argmax(axis=1) == y).astype(np.int64), p.max(axis=1) / p.sum(axis=1)


def logit(p: Array) -> Array:
    """Return log(p / (1 - p)) of probabilities clipped to [1e-7, 1 - 1e-7]."""
    clipped = np.clip(p, LEAST_P, 1 - LEAST_P)
    return np.asarray(np.log(clipped / (1 - clipped)))


def _intercept(y: Array, p: Array) -> tuple[float, Array]:
    """Return a in logit P(y = 1) = a + logit p, and its influence values (n,)."""
    coefficients, influence = _logistic(np.ones((len(y), 1)), y, logit(p))
    return float(coefficients[0]), influence[:, 0]


def _slope(y: Array, p: Array) -> tuple[float, Array]:
    """Return b in logit P(y = 1) = a + b logit p, and its influence values (n,)."""
    x = np.column_stack([np.ones(len(y)), logit(p)])
    if np.ptp(x[:, 1]) < 1e-9:
        return np.nan, np.zeros(len(y))
    coefficients, influence = _logistic(x, y, np.zeros(len(y)))
    return float(coefficients[1]), influence[:, 1]


def _logistic(x: Array, y: Array, offset: Array) -> tuple[Array, Array]:
    """Return maximum-likelihood coefficients (k,) by Newton's method, and each case's influence on them (n, k).

    The coefficients are NaN if the likelihood has no maximum: one class, or classes that the predictions separate.
    """
    beta, undefined = np.zeros(x.shape[1]), (np.full(x.shape[1], np.nan), np.zeros(x.shape))
    for _ in range(_STEPS):
        mean = 1 / (1 + np.exp(-np.clip(x @ beta + offset, -40, 40)))
        information = (x * (mean * (1 - mean))[:, None]).T @ x
        if np.linalg.cond(information) > 1e12 or np.abs(beta).max() > 1e3:
            return undefined
        step = np.linalg.solve(information, x.T @ (y - mean))
        # A step changes the linear predictor by at most 2, which keeps Newton's method from overshooting.
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
