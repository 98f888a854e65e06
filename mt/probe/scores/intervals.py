"""How far a score may be off: over test cases, and apart from that over draws.

The two are never mixed: `Interval` speaks of the test cases alone, `Spread` of the draws alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mt.errors import InputError
from mt.probe.scores.bootstrap import replicate, units_of, whole
from mt.probe.scores.metrics import MetricLike, weighted
from mt.probe.scores.predictions import checked
from mt.types import Array, Groups


@dataclass(frozen=True)
class Interval:
    """The uncertainty of a score over test cases; NaN at both ends where the score is not defined or there is
    one group only, from which nothing can be said.

    `method` is "bootstrap", "delong" or "obuchowski"; `redrawn` counts resamples that were undefined at first;
    `independent` is True where no groups were known and cases are assumed independent; `n_units` counts the groups,
    or else the cases.
    """

    low: float
    high: float
    level: float
    method: str
    redrawn: int
    independent: bool
    n_units: int

    @property
    def note(self) -> str:
        """What a table says under the interval."""
        unit = "cases, assumed independent" if self.independent else "groups of cases"
        return f"{100 * self.level:g} % interval over {self.n_units:,} test {unit} ({self.method})"


@dataclass(frozen=True)
class Spread:
    """The mean of a score over draws and its standard deviation, None where there is one draw."""

    mean: float
    sd: float | None
    n_draws: int


def over_draws(values: Sequence[float]) -> Spread:
    """Return the spread of one score a draw."""
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Spread(mean=float(np.mean(values)), sd=sd, n_draws=len(values))


def bootstrap_interval(
    metric: MetricLike, y: ArrayLike, p: ArrayLike, *, groups: Groups | None = None,
    n_resamples: int = 1000, seed: int = 0, level: float = 0.95,
) -> Interval:  # fmt: skip
    """Return the percentile bootstrap interval of a metric over test groups, or over cases without groups."""
    return bootstrap_mean_interval(metric, y, [p], groups=groups, n_resamples=n_resamples, seed=seed, level=level)


def bootstrap_mean_interval(
    metric: MetricLike, y: ArrayLike, ps: Sequence[ArrayLike], *, groups: Groups | None = None,
    n_resamples: int = 1000, seed: int = 0, level: float = 0.95,
) -> Interval:  # fmt: skip
    """Return the interval over test cases of the mean of a metric over draws, `ps` holding the predictions of each.

    All draws are scored on the same resamples; the draws themselves are not resampled.
    """
    labels = checked(y, ps[0])[0]
    unit = units_of(len(labels), groups)
    statistics = [weighted(metric, *checked(y, p), unit) for p in ps]
    n_units = int(unit.max()) + 1
    defined = n_units > 1 and not any(np.isnan(statistic(whole(n_units))[0]) for statistic in statistics)
    low = high = np.nan
    redrawn = 0
    if defined:
        values, redrawn = replicate(statistics, labels, unit, n_resamples=n_resamples, seed=seed)
        low, high = percentile_bounds(values.mean(axis=1), n_units=n_units, level=level)
    return Interval(low, high, level, "bootstrap", redrawn, groups is None, n_units)


def percentile_bounds(values: Array, *, n_units: int, level: float) -> tuple[float, float]:
    """Return the bounds of a percentile interval, widened for few units.

    A percentile interval of n units is narrow by sqrt((n - 1) / n) and by normal instead of Student quantiles; its
    tails are moved out accordingly (Hesterberg, "What Teachers Should Know About the Bootstrap", The American
    Statistician 69, 2015, section 3.3: the expanded percentile interval).  Undefined values are left out.
    """
    from scipy.special import ndtr, stdtrit

    tail = (1 - level) / 2
    if n_units > 1:
        tail = float(ndtr(np.sqrt(n_units / (n_units - 1)) * stdtrit(n_units - 1, tail)))
    low, high = np.nanquantile(values, [tail, 1 - tail])
    return float(low), float(high)


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
    labels, table = np.asarray(y).astype(np.int64), np.atleast_2d(np.asarray(scores, dtype=np.float64))
    unit = units_of(len(labels), groups)
    positive, negative = labels == 1, labels == 0
    n_units, units_with = int(unit.max()) + 1, [len(np.unique(unit[positive])), len(np.unique(unit[negative]))]
    if min(units_with) < 2:
        raise InputError(
            f"the variance of an AUC needs two units of each class, found {units_with[1]} and {units_with[0]}"
        )
    placements = np.stack([_placements(row[positive], row[negative]) for row in table])
    auc = placements[:, : int(positive.sum())].mean(axis=1)
    # Sums over a unit of the placements' deviations: V10(X_i.) - m_i θ and V01(Y_i.) - n_i θ in the paper.
    unit_of_placement = np.concatenate([unit[positive], unit[negative]])
    is_positive = np.arange(len(unit_of_placement)) < positive.sum()
    deviations = placements - auc[:, None]
    x, z = (_sums(deviations[:, part], unit_of_placement[part], n_units) for part in (is_positive, ~is_positive))
    x, z = x / positive.sum(), z / negative.sum()
    covariance = (
        _inflation(units_with[0]) * x @ x.T
        + _inflation(units_with[1]) * z @ z.T
        + _inflation(n_units) * (x @ z.T + z @ x.T)
    )
    return auc, covariance


def auc_interval(y: ArrayLike, p: ArrayLike, *, groups: Groups | None = None, level: float = 0.95) -> Interval:
    """Return the interval of one ROC AUC by DeLong's variance, with groups by Obuchowski's, within [0, 1]."""
    from scipy.stats import t

    auc, covariance = obuchowski(y, p, groups)
    n_units = int(units_of(len(np.asarray(y)), groups).max()) + 1
    half = float(t.ppf((1 + level) / 2, n_units - 1) * np.sqrt(covariance[0, 0]))
    low, high = max(0.0, float(auc[0]) - half), min(1.0, float(auc[0]) + half)
    return Interval(low, high, level, "delong" if groups is None else "obuchowski", 0, groups is None, n_units)


def _placements(positive: Array, negative: Array) -> Array:
    """Return the share of negatives below each positive, then the share of positives above each negative."""
    from scipy.stats import rankdata

    m, n = len(positive), len(negative)
    ranks = rankdata(np.concatenate([positive, negative]))
    below = (ranks[:m] - rankdata(positive)) / n
    above = 1 - (ranks[m:] - rankdata(negative)) / m
    return np.concatenate([below, above])


def _sums(values: Array, unit: Array, n_units: int) -> Array:
    return np.stack([np.bincount(unit, weights=row, minlength=n_units) for row in values])


def _inflation(n: int) -> float:
    return n / (n - 1)
