"""How far a score may be off: over test cases, over draws, and over both together.

`Interval` speaks of the test cases alone, `Spread` of the draws alone; `with_draws` combines the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mt.errors import InputError
from mt.probe.scores import metrics
from mt.probe.scores.bootstrap import units_of
from mt.probe.scores.calibration import MEASURES
from mt.probe.scores.predictions import checked
from mt.probe.scores.rank_metrics import auc_and_influence
from mt.probe.scores.rules.loss_rules import jackknife
from mt.probe.scores.rules.sample import Rule, Sample, covariance, refused
from mt.types import Array, Groups


@dataclass(frozen=True)
class Interval:
    """The interval of a score over test cases; NaN at both ends where there is none, with the reason.

    `independent` is True where no groups were known and cases are assumed independent; `n_units` counts the groups, or
    the cases where there are none.
    """

    low: float
    high: float
    level: float
    method: str
    independent: bool
    n_units: int
    reason: str = ""

    @property
    def note(self) -> str:
        """What a table says under the interval."""
        if self.reason:
            return f"no interval: {self.reason}"
        unit = "cases, assumed independent" if self.independent else "groups of cases"
        return f"{100 * self.level:g} % interval over {self.n_units:,} test {unit} ({self.method})"


@dataclass(frozen=True)
class Spread:
    """The mean of a score over draws and its standard deviation, None where there is one draw."""

    mean: float
    sd: float | None
    n_draws: int


def over_draws(values: Sequence[float]) -> Spread:
    """Return the spread of one score per draw."""
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Spread(mean=float(np.mean(values)), sd=sd, n_draws=len(values))


def interval(
    metric: str, y: ArrayLike, p: ArrayLike, *, groups: Groups | None = None, level: float = 0.95
) -> tuple[float, float]:
    """Return the ends of the interval of a metric over test cases, as tables show it.

    metric: a name of `mt.METRICS`, or "calibration_intercept", "calibration_slope" or "observed_expected".

    y: (n,) class numbers, or (n, labels) zeros and ones.  p: (n,) P(class 1), (n, classes) or (n, labels).
    groups: the patient (or slide, ...) of each case; without them cases are assumed independent.
    Raises InputError where the score is not defined, or has no interval that covers, with the reason.
    """
    if not 0 < level < 1:
        raise InputError(f"level is between 0 and 1 (0.95 is 95 %), got {level:g}")
    labels, probabilities = checked(y, p)
    if metric not in MEASURES:
        metrics.get(metric).check(labels, probabilities)
    found = over_cases(metric, labels, [probabilities], groups=groups, level=level)[1]
    if found.reason:
        name = metric if metric in MEASURES else metrics.get(metric).label
        raise InputError(f"No interval of {name}: {found.reason}")
    return found.low, found.high


def over_cases(
    metric: str, y: ArrayLike, ps: Sequence[ArrayLike], *, groups: Groups | None = None, level: float = 0.95
) -> tuple[float, Interval]:
    """Return the mean of a metric over draws and its interval over test cases; `ps` holds each draw's predictions."""
    labels = checked(y, ps[0])[0]
    unit = units_of(len(labels), groups)
    sample = Sample(labels, tuple(checked(y, p)[1] for p in ps), unit, groups is not None, level)
    value = value_of(metric, labels, sample.ps)
    if np.isnan(value):
        found = refused(value, "the score is not defined on these cases")
    elif sample.n_units == 1:
        found = refused(value, "all cases are of one group")
    else:
        found = _rule(metric)(sample)
    # A removed bias can leave the value just outside: the interval is extended to it.  NaN stays NaN, coming first.
    low, high = min(found.low, value), max(found.high, value)
    return value, Interval(low, high, level, found.method, groups is None, sample.n_units, found.reason)


def _rule(metric: str) -> Rule:
    if metric in MEASURES:
        return MEASURES[metric]
    return metrics.get(metric).rule or jackknife(metrics.get(metric).over)


def value_of(metric: str, y: Array, ps: Sequence[Array]) -> float:
    """Return the mean of a metric over draws, of checked labels and predictions; NaN where it is not defined."""
    if metric in MEASURES:
        return MEASURES[metric](Sample(y, tuple(ps), np.arange(len(y)), False, 0.95)).value
    return float(np.mean([metrics.get(metric).value(y, p) for p in ps]))


def with_draws(
    metric: str, values: Sequence[float], low: float, high: float, *, level: float = 0.95
) -> tuple[float, float]:
    """Return the interval of the expected score over draws and test cases, within the metric's limits.

    values: one score per draw.  low, high: the interval of their mean over test cases.

    Both parts of the uncertainty are combined by MOVER: distances from the mean add in squares (Zou and Donner,
    Statistics in Medicine 27, 2008); draws have Student's t with D - 1 degrees of freedom.
    """
    from scipy.special import stdtrit

    n_draws, mean = len(values), float(np.mean(values))
    half = float(stdtrit(n_draws - 1, (1 + level) / 2) * np.std(values, ddof=1) / np.sqrt(n_draws))
    lowest, highest = metrics.get(metric).limits
    down, up = float(np.hypot(mean - low, half)), float(np.hypot(high - mean, half))
    return max(lowest, mean - down), min(highest, mean + up)


def delong(y: ArrayLike, scores: ArrayLike) -> tuple[Array, Array]:
    """Return the AUCs (m,) of `scores` (m, n) or (n,) on independent cases and their covariance (m, m).

    DeLong, DeLong and Clarke-Pearson, "Comparing the Areas under Two or More Correlated Receiver Operating
    Characteristic Curves", Biometrics 44, 1988.  Raises InputError with fewer than two cases of a class.
    """
    return obuchowski(y, scores, groups=None)


def obuchowski(y: ArrayLike, scores: ArrayLike, groups: Groups | None) -> tuple[Array, Array]:
    """Return the AUCs (m,) of `scores` (m, n) or (n,) and their covariance (m, m) when cases are clustered in groups.

    Obuchowski, "Nonparametric Analysis of Clustered ROC Curve Data", Biometrics 53, 1997; without groups it is
    DeLong's.  Raises InputError when fewer than two groups hold positives, or negatives.
    """
    table = np.atleast_2d(np.asarray(scores, dtype=np.float64))
    labels = checked(y, table[0])[0]
    sample = Sample(labels, (), units_of(len(labels), groups), False, 0.95)
    units_with = [sample.units_with(labels == k) for k in (0, 1)]
    if min(units_with) < 2:
        raise InputError(
            f"the variance of an AUC needs two units of each class, found {units_with[0]} and {units_with[1]}"
        )
    found = [auc_and_influence(labels, row) for row in table]
    influence = np.stack([influence for _, influence in found])
    return np.array([auc for auc, _ in found]), covariance(influence, sample, by_class=True)
