"""The difference of a score between two sets of test cases that the same fits predict, with an interval that covers.

MOVER combines the intervals of the two scores: the squares of the distances of their ends from the values are added,
and twice the product of the distances times the correlation of the scores is subtracted (Zou and Donner, "Construction
of confidence limits about effect measures: A general approach", Statistics in Medicine 27, 2008).  Scores correlate if
patients have cases in both sets; influence values summed within patients estimate the correlation.  Over several draws,
the square of Student's t interval of the draws' differences is added.

The p-value of no difference inverts this interval: it is 1 minus the level at which an end of the interval is 0.  So it
is at most 0.05 exactly if the 95 % interval excludes 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mt.probe.scores.metrics import linearised_over_cases
from mt.probe.scores.scoring import fewest_units, too_few
from mt.types import Array, Groups, ScoredRows

# Raised whenever the numbers of a difference change: stored ones of another revision are computed again.
REVISION = 2
# The search for a p-value, in standard errors: where it begins and ends (p = 0.99 and 1e-15), and how exact it is.
_NEAREST, _FURTHEST, _CLOSE = 0.01, 8.0, 1e-4


@dataclass(frozen=True)
class Difference:
    """One score minus another: the mean difference over draws and its interval over test cases and draws.

    a, b: the two scores.  low, high: NaN without an interval; `reason` says why.
    units: the number of patients (or cases, if patients are not known) of the rarest class on each side.
    shared: the number of patients on both sides.  independent: whether a side has no groups.
    p: two-sided, of no difference, from the intervals of all levels; NaN without an interval.
    """

    a: float
    b: float
    low: float
    high: float
    level: float
    n_draws: int
    units: tuple[int, int]
    shared: int
    independent: bool
    reason: str = ""
    p: float = float("nan")

    @property
    def value(self) -> float:
        return self.a - self.b

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval excludes 0; False without an interval."""
        return self.low > 0 or self.high < 0


def difference(
    metric: str, a: Sequence[ScoredRows], b: Sequence[ScoredRows], *, level: float = 0.95, tested: bool = False
) -> Difference:
    """Return the score of `a` minus that of `b`.

    a, b: one element per draw, each with the same cases; draw d of both comes from the same fit.  tested: also return
    the p-value, which computes about eight intervals more.
    """
    units = fewest_units(a[0]), fewest_units(b[0])
    sides = [_Side.of(metric, one, level) for one in (a, b)]
    shared = set(sides[0].groups) & set(sides[1].groups)
    independent = a[0].groups is None or b[0].groups is None
    lacks = [one.reason for one in sides if one.reason]
    lacks += [few for few in (too_few(a[0]), too_few(b[0])) if few]
    low = high = p = np.nan
    if not lacks:
        low, high = _ends(sides[0], sides[1], shared, level)
        if tested:
            p = _p_value(metric, a, b, shared, (low, high), level)
    return Difference(
        sides[0].value, sides[1].value, low, high, level, len(a), units, len(shared), independent, "".join(lacks[:1]), p
    )


def _ends(a: _Side, b: _Side, shared: set[object], level: float) -> tuple[float, float]:
    """Return the ends of the interval over test cases and draws."""
    low, high = _mover(a, b, _correlation(a, b, shared) if shared else 0.0)
    return _with_draws([x - y for x, y in zip(a.draws, b.draws, strict=True)], low, high, level)


def _p_value(
    metric: str,
    a: Sequence[ScoredRows],
    b: Sequence[ScoredRows],
    shared: set[object],
    known: tuple[float, float],
    level: float,
) -> float:
    """Return 1 minus the level at which the interval reaches 0; `known` are its ends at `level`.

    The search is over the normal quantile z of a level, in which an end is almost a straight line.
    """
    from scipy.optimize import brentq
    from scipy.special import ndtr, ndtri

    def clear(ends: tuple[float, float]) -> float:
        """Return how far the interval is from 0; negative if it holds 0."""
        return max(ends[0], -ends[1])

    def at(z: float) -> float:
        one = float(2 * ndtr(z) - 1)
        return clear(_ends(_Side.of(metric, a, one), _Side.of(metric, b, one), shared, one))

    z = float(ndtri((1 + level) / 2))
    excluded = clear(known) > 0
    if not excluded and at(_NEAREST) <= 0:
        return 1.0
    if excluded and at(_FURTHEST) > 0:
        return float(2 * ndtr(-_FURTHEST))
    between = (z, _FURTHEST) if excluded else (_NEAREST, z)
    return float(2 * ndtr(-brentq(at, *between, xtol=_CLOSE)))


@dataclass(frozen=True, eq=False)
class _Side:
    """A score on one set of cases: its value at each draw, and the mean with its interval and influence by group."""

    draws: tuple[float, ...]
    value: float
    centre: float
    low: float
    high: float
    groups: dict[object, float]
    reason: str

    @classmethod
    def of(cls, metric: str, cases: Sequence[ScoredRows], level: float) -> _Side:
        groups, folds = cases[0].groups, [one.fold for one in cases if one.fold is not None]
        found, interval = linearised_over_cases(
            metric, cases[0].y, [one.p for one in cases], groups=groups, level=level, folds=folds
        )
        draws = tuple(_value(metric, one) for one in cases) if len(cases) > 1 else (found.value,)
        centre = found.value if found.centre is None else found.centre
        by_group = _by_group(found.influence, groups)
        return cls(draws, found.value, centre, interval.low, interval.high, by_group, interval.reason)


def _value(metric: str, cases: ScoredRows) -> float:
    from mt.probe.scores.metrics import value_of
    from mt.probe.scores.sample import checked

    y, p = checked(cases.y, cases.p)
    return value_of(metric, y, [p], [] if cases.fold is None else [cases.fold])


def _by_group(influence: Array | None, groups: Groups | None) -> dict[object, float]:
    """Return the sum of influence values of each group; zeros if the metric has none, empty without groups."""
    if groups is None:
        return {}
    names, number = np.unique(np.asarray(groups), return_inverse=True)
    sums = np.zeros(len(names)) if influence is None else np.bincount(number, weights=influence)
    return dict(zip(names.tolist(), sums.tolist(), strict=True))


def _correlation(a: _Side, b: _Side, shared: set[object]) -> float:
    """Return the correlation of two scores whose cases share groups; 0 if the metric has no influence values."""
    spread = np.sqrt(sum(x**2 for x in a.groups.values()) * sum(x**2 for x in b.groups.values()))
    joint = sum(a.groups[group] * b.groups[group] for group in shared)
    return float(joint / spread) if spread > 0 else 0.0


def _mover(a: _Side, b: _Side, rho: float) -> tuple[float, float]:
    middle = a.centre - b.centre
    down = _distance(a.centre - a.low, b.high - b.centre, rho)
    up = _distance(a.high - a.centre, b.centre - b.low, rho)
    return min(middle - down, a.value - b.value), max(middle + up, a.value - b.value)


def _distance(one: float, other: float, rho: float) -> float:
    return float(np.sqrt(max(0.0, one**2 + other**2 - 2 * rho * one * other)))


def _with_draws(each: Sequence[float], low: float, high: float, level: float) -> tuple[float, float]:
    """Return the interval widened by the draws: Student's t with D - 1 degrees of freedom, added in squares."""
    if len(each) < 2:
        return low, high
    from scipy.special import stdtrit

    mean = float(np.mean(each))
    half = float(stdtrit(len(each) - 1, (1 + level) / 2) * np.std(each, ddof=1) / np.sqrt(len(each)))
    return mean - float(np.hypot(mean - low, half)), mean + float(np.hypot(high - mean, half))
