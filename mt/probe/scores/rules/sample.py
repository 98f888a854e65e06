"""What an interval is computed from, what it is, and the variance of a metric.

The variance of a metric comes from its influence values I_i, the change of the metric per unit weight of case i:
θ̂ - θ ≈ Σ_i I_i.  They are summed within units (a group, or a case without groups), so that cases of a unit may depend
on each other.  The mean over draws has the mean of their influence values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from mt.stratification import Ints
from mt.types import Array


@dataclass(frozen=True)
class Sample:
    """Test cases with the predictions of each draw.

    y: (n,) labels, or (n, L) for multilabel.  ps: one array of predictions per draw.  unit: (n,) the unit number of
    each case; clustered: whether units are known groups.
    """

    y: Array
    ps: tuple[Array, ...]
    unit: Ints
    clustered: bool
    level: float

    @cached_property
    def n_units(self) -> int:
        return int(self.unit.max()) + 1

    @cached_property
    def classes(self) -> Array:
        return np.unique(self.y)

    @property
    def fewest(self) -> int:
        """The units that hold a case of the rarest class, of the classes that occur."""
        return min(self.units_with(self.y == k) for k in self.classes)

    def units_with(self, rows: Array) -> int:
        """Return how many units hold one of these cases."""
        return len(np.unique(self.unit[rows]))

    def z(self) -> float:
        from scipy.special import ndtri

        return float(ndtri((1 + self.level) / 2))

    def t(self, freedom: float) -> float:
        from scipy.special import stdtrit

        return float(stdtrit(max(1.0, freedom), (1 + self.level) / 2))

    def mean(self, of_draw: Callable[[Array], Any]) -> Array:
        """Return the mean over draws of what a function says of each draw's predictions."""
        return np.asarray(np.mean([of_draw(p) for p in self.ps], axis=0))


@dataclass(frozen=True)
class Estimate:
    """A metric's mean over draws, its interval over test cases, and how that was computed.

    influence: (n,) influence values, for combinations.  centre: the value minus its estimated bias, on which the
    interval is built.  reason: why there is no interval; low and high are NaN then.
    """

    value: float
    low: float
    high: float
    method: str
    influence: Array | None = None
    centre: float | None = None
    reason: str = ""


Rule = Callable[[Sample], Estimate]


def refused(value: float, reason: str) -> Estimate:
    """Return a value without an interval."""
    return Estimate(value, np.nan, np.nan, "", reason=reason)


def influence_of(part: Estimate) -> Array:
    if part.influence is None:
        raise ValueError("no influence values")
    return part.influence


def covariance(influence: Array, sample: Sample, *, by_class: bool = False) -> Array:
    """Return the covariance (m, m) of m metrics from their influence values (m, n), summed within units.

    Sums over M units spread too little by (M - 1) / M, which is corrected; by_class: apart for the units that hold each
    of two classes, as Obuchowski does ("Nonparametric Analysis of Clustered ROC Curve Data", Biometrics 53, 1997;
    without groups it is DeLong's variance).  Groups are corrected once more, which is the jackknife's variance: their
    sizes differ, and the linear terms alone covered 0.92 to 0.93 with 20 patients.
    """
    if not by_class:
        x = _unit_sums(influence, sample.unit)
        return np.asarray(inflation(sample.n_units, sample) * x @ x.T)
    positive = sample.y == 1
    x, z = (_unit_sums(influence * part, sample.unit) for part in (positive, ~positive))
    m, n = sample.units_with(positive), sample.units_with(~positive)
    both = inflation(sample.n_units, sample) * (x @ z.T + z @ x.T)
    return np.asarray(inflation(m, sample) * x @ x.T + inflation(n, sample) * z @ z.T + both)


def _unit_sums(influence: Array, unit: Ints) -> Array:
    n_units = int(unit.max()) + 1
    return np.stack([np.bincount(unit, weights=row, minlength=n_units) for row in influence])


def inflation(n: int, sample: Sample) -> float:
    once = n / (n - 1) if n > 1 else 1.0
    return once**2 if sample.clustered else once
