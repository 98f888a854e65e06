"""A sample of test cases: checked labels and predictions, units and their resamples, and the parts of intervals.

Probabilities `p` are (n,) = P(class 1) for binary, (n, classes) for multiclass and ordinal, (n, labels) for multilabel.
Labels `y` are (n,) class numbers, or (n, labels) zeros and ones for multilabel, MISSING where a label is not known.

A unit is a group, or a case if there are no groups.  The variance of a metric comes from its influence values I_i,
the change of the metric per unit weight of case i: θ̂ - θ ≈ Σ_i I_i.  They are summed within units, so that cases of a
unit may depend on each other.  The influence values of a mean over draws are the means of the draws' values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mt.errors import InputError
from mt.stratification import Ints, label_matrix, unit_counts
from mt.system.device import cores
from mt.terminal.progress import counted
from mt.types import MISSING, Array, Groups, sortable


def checked(y: ArrayLike, p: ArrayLike) -> tuple[Array, Array]:
    """Return labels as int64 and probabilities as float64 after checking that they belong together.

    Raises InputError for shapes that disagree, labels that are not class numbers, and predictions that are not finite
    numbers.
    """
    labels, probabilities = table_of(y, "labels"), table_of(p, "predictions")
    if len(labels) == 0 or len(labels) != len(probabilities):
        raise InputError(f"as many predictions as labels are needed: {len(labels)} labels, {len(probabilities)} rows")
    if labels.ndim == 2 and labels.shape != probabilities.shape:
        raise InputError(f"multilabel predictions have the shape {labels.shape}, found {probabilities.shape}")
    if probabilities.ndim == 2 and probabilities.shape[1] < (1 if labels.ndim == 2 else 2):
        raise InputError(f"predictions have the shape (n,) or (n, classes or labels), found {probabilities.shape}")
    try:
        numbers = probabilities.astype(np.float64, casting="unsafe" if probabilities.dtype.kind == "O" else "same_kind")
    except (TypeError, ValueError):
        raise InputError(f"predictions must be numbers, found {probabilities.ravel()[0]!r}") from None
    if not np.isfinite(numbers).all():
        raise InputError("predictions must be finite, found NaN or infinity")
    return _class_numbers(labels, n_classes(labels, numbers)), numbers


def table_of(values: ArrayLike, name: str) -> Array:
    """Return an array of one or two axes; raise InputError for anything else."""
    try:
        table = np.asarray(values)
    except ValueError:
        raise InputError(f"all rows of {name} must have the same length") from None
    if table.ndim not in (1, 2):
        raise InputError(f"{name} have one axis, or two with a column per class or label; found {table.ndim}")
    return table


def _class_numbers(labels: Array, classes: int) -> Array:
    """Return labels as int64 after checking that each is one of 0 ... classes - 1."""
    if labels.dtype.kind not in "biuf":
        raise InputError(f"labels are the class numbers 0 to {classes - 1}, found {labels.ravel()[0]!r}")
    if labels.dtype.kind == "f" and np.isnan(labels).any():
        raise InputError(
            f"{counted(int(np.isnan(labels).sum()), 'label is', 'labels are')} NaN: remove the cases without a label"
        )
    lowest = MISSING if labels.ndim == 2 else 0
    wrong = (labels < lowest) | (labels >= classes) | (labels != np.floor(labels))
    if wrong.any():
        found = ", ".join(f"{value:g}" for value in np.unique(labels[wrong])[:3].astype(np.float64))
        raise InputError(f"labels are the class numbers 0 to {classes - 1} of these predictions, found {found}")
    return labels.astype(np.int64)


def n_classes(y: Array, p: Array) -> int:
    """Return how many values a label can have: 2 for binary and multilabel, else the columns of `p`."""
    return 2 if p.ndim == 1 or y.ndim == 2 else p.shape[1]


def predicted_class(p: Array) -> Array:
    """Return the most probable class; in a tie the first.  Binary: class 1 above 1/2."""
    return p.argmax(axis=1) if p.ndim == 2 else (p > 0.5).astype(np.int64)


def class_columns(p: Array) -> Array:
    """Return float64 probabilities with a column per class; each row, stored as float32, is normalised to sum to 1."""
    columns = np.column_stack([1 - p, p]) if p.ndim == 1 else p
    return np.asarray(columns / columns.sum(axis=1, keepdims=True), dtype=np.float64)


def indicator(y: Array, p: Array) -> Array:
    """Return (n, classes or labels) zeros and ones, MISSING where a label is not known."""
    if y.ndim == 2:
        return y
    return np.asarray(y[:, None] == np.arange(n_classes(y, p)), dtype=np.int64)


def both_values(truth: Array) -> Array:
    """Return for each column (classes,) of an indicator whether it holds both a 0 and a 1."""
    return np.asarray((truth == 0).any(axis=0) & (truth == 1).any(axis=0))


def known_cases(column: Array) -> slice | Array:
    """Return the rows of one indicator column whose label is known, as a slice if these are all rows."""
    known = column != MISSING
    return slice(None) if known.all() else np.flatnonzero(known)


def left_out(y: ArrayLike, p: ArrayLike) -> list[int]:
    """Return the classes or labels that averages over classes omit: no case has them, or all cases have them.

    For a label, only the cases for which it is known count.
    """
    return np.flatnonzero(~both_values(indicator(*checked(y, p)))).tolist()


# Resamples: units with replacement, the same for all statistics of a call ---------------------------------------------

# (resamples, n_units) multiplicities -> (resamples,) values, NaN where the metric is not defined.  A resample is never
# built: a statistic is a function of how often the resample holds each unit.
Statistic = Callable[[Array], Array]
# Labels, probabilities and the unit number of each case -> the metric as a function of multiplicities.
Resampled = Callable[[Array, Array, Ints], Statistic]

# Multiplicities in a chunk.  Each chunk has a random stream of its own: numbers do not depend on how many threads run.
_CHUNK_NUMBERS = 2**17
# Fewest resamples on which statistics are computed at once: smaller chunks are joined.
_TOGETHER = 64
# And of which fewer are drawn at once by each thread, if they hold more multiplicities.
_DRAWN_AT_ONCE = 2**24
# Bytes per case: of a statistic of one column of scores, and of a thread that takes it of a resample.
_OF_STATISTIC, _OF_THREAD = 50, 80
_SMALL = 64 << 20  # bytes that are there


def units_of(n_cases: int, groups: Groups | None) -> Ints:
    """Return the unit number (n_cases,) of each case: that of its group, or its own without groups.

    Raises InputError for another number of groups than cases, and for cases without a group.
    """
    if groups is None:
        return np.arange(n_cases)
    names = sortable(groups)
    if names.ndim != 1 or len(names) != n_cases:
        raise InputError(f"one group per case is needed: {n_cases} cases, {names.size} groups")
    if names.dtype.kind in "fO" and (missing := sum(name is None or name != name for name in names.tolist())):
        raise InputError(f"{counted(missing, 'case has', 'cases have')} no group (None or NaN)")
    return np.unique(names, return_inverse=True)[1].astype(np.int64)


def replicate(
    statistics: Sequence[Statistic], y: Array, unit: Ints, *, n_resamples: int, seed: int
) -> tuple[Array, int]:
    """Return (n_resamples, statistics) values, all statistics on the same resamples, and how many were redrawn.

    A resample that lacks a class, so that a statistic is not defined, is redrawn stratified by class: units are then
    resampled among those that hold the same classes.  A value that is still undefined stays NaN.
    """
    if not statistics:
        return np.empty((n_resamples, 0)), 0
    strata = _strata(y, unit)
    chunk_size = max(2, _CHUNK_NUMBERS // len(y))

    n_chunks = -(-n_resamples // chunk_size)

    def together(first: int) -> tuple[Array, int]:
        numbers = range(first, min(first + step, n_chunks))
        streams = [np.random.default_rng([seed, number]) for number in numbers]
        drawn_by = np.repeat(np.arange(len(numbers)), chunk_size)[: n_resamples - first * chunk_size]
        none = np.zeros(len(strata), dtype=np.int64)
        weights = np.stack([_multiplicities(none, streams[k]) for k in drawn_by])
        values = np.column_stack([statistic(weights) for statistic in statistics])
        undefined = np.isnan(values).any(axis=1)
        if undefined.any():
            again = np.stack([_multiplicities(strata, streams[k]) for k in drawn_by[undefined]])
            values[undefined] = np.column_stack([statistic(again) for statistic in statistics])
        return values, int(undefined.sum())

    step = max(1, min(_TOGETHER, _DRAWN_AT_ONCE // len(strata)) // chunk_size)
    with ThreadPoolExecutor(cores()) as threads:
        parts = list(threads.map(together, range(0, n_chunks, step)))
    return np.concatenate([values for values, _ in parts]), sum(redrawn for _, redrawn in parts)


def check_resampling(n_cases: int, n_columns: int) -> None:
    """Raise InputError where memory does not hold the statistics of these columns of scores, to be resampled."""
    needed = n_cases * (_OF_STATISTIC * n_columns + _OF_THREAD * cores())
    if needed > _SMALL:
        from mt.system.memory import check_memory

        check_memory(
            f"Resampling {n_cases:,} test cases with {n_columns:,} columns of scores",
            needed,
            "The scores are kept. Compare fewer models (--model) or draws (--seeds), or print scores alone: --json",
        )


def whole(n_units: int) -> Array:
    """Return the multiplicities of the sample itself: one resample in which every unit occurs once."""
    return np.ones((1, n_units), dtype=np.uint16)


def repeated(function: Callable[[Array, Array], float], y: Array, p: Array, unit: Ints) -> Statistic:
    """Return any function of labels and probabilities as a function of multiplicities, by repeating rows."""

    def one(w: Array) -> float:
        rows = np.repeat(np.arange(len(unit)), w[unit])
        return float(function(y[rows], p[rows])) if len(rows) else np.nan

    return lambda weights: np.array([one(w) for w in weights])


def ratio(numerator: Array, denominator: Array) -> Array:
    """Return the quotient, NaN where the denominator is not positive."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(denominator > 0, numerator / denominator, np.nan)


def _strata(y: Array, unit: Ints) -> Ints:
    """Return the stratum number of each unit: units that hold the same classes (multilabel: labels) share one.

    If labels are missing, the labels that its cases are known not to hold must agree too.
    """
    held = label_matrix(y)
    if y.ndim == 2 and (y == MISSING).any():
        held = np.hstack([held, y == 0])
    counts, _ = unit_counts(held, unit.tolist())
    return np.unique(counts > 0, axis=0, return_inverse=True)[1].ravel().astype(np.int64)


def _multiplicities(strata: Ints, rng: np.random.Generator) -> Array:
    """Return how often each unit occurs in a resample, which draws from each stratum its own number of units."""
    if not strata.any():
        drawn = rng.integers(0, len(strata), len(strata))
    else:
        sizes = np.bincount(strata)
        by_stratum = np.argsort(strata, kind="stable")
        starts = np.repeat(np.cumsum(sizes) - sizes, sizes)
        drawn = by_stratum[starts + (rng.random(len(strata)) * np.repeat(sizes, sizes)).astype(np.int64)]
    return np.bincount(drawn, minlength=len(strata)).astype(np.uint16)


# Intervals: the sample, an estimate, and the covariance of metrics ----------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """Test cases with the predictions of each draw.

    y: (n,) labels, or (n, L) for multilabel.  ps: one array of predictions per draw.  unit: (n,) the unit number of
    each case.  clustered: whether units are known groups.  level: of intervals, 0.95 for 95 %.  folds: if each test
    fold has a model of its own, the fold of each case, one array per draw.
    """

    y: Array
    ps: tuple[Array, ...]
    unit: Ints
    clustered: bool
    level: float
    folds: tuple[Array, ...] = ()

    @cached_property
    def n_units(self) -> int:
        return int(self.unit.max()) + 1

    @cached_property
    def classes(self) -> Array:
        return np.unique(self.y)

    @property
    def fewest(self) -> int:
        """The number of units that hold the rarest of the classes that occur."""
        return min(self.units_with(self.y == k) for k in self.classes)

    def units_with(self, rows: Array) -> int:
        """Return the number of units that hold at least one of these cases."""
        return len(np.unique(self.unit[rows]))

    def effective_units_with(self, rows: Array) -> float:
        """Return Kish's effective number of units with c of these cases: (Σ c)² / Σ c² ("Survey Sampling", 1965)."""
        counts = np.unique(self.unit[rows], return_counts=True)[1].astype(np.float64)
        return float(counts.sum() ** 2 / (counts**2).sum()) if len(counts) else 0.0

    def z(self) -> float:
        from scipy.special import ndtri

        return float(ndtri((1 + self.level) / 2))

    def t(self, freedom: float) -> float:
        from scipy.special import stdtrit

        return float(stdtrit(max(1.0, freedom), (1 + self.level) / 2))

    def mean(self, of_draw: Callable[[Array], Any]) -> Array:
        """Return the mean over draws of a function of each draw's predictions."""
        return np.asarray(np.mean([of_draw(p) for p in self.ps], axis=0))

    def linearised(self, one: Callable[[Array, Array], tuple[float, Array]]) -> tuple[float, Array]:
        """Return the mean over draws (and test folds) of a metric, and of its influence values."""
        found = self.by_draw(one)
        return float(np.mean([value for value, _ in found])), np.mean([influence for _, influence in found], axis=0)

    def by_draw(self, one: Callable[[Array, Array], tuple[float, Array]]) -> list[tuple[float, Array]]:
        """Return each draw's metric and influence values; with test folds, the means over folds."""
        if not self.folds:
            return [one(self.y, p) for p in self.ps]
        from mt.probe.scores.within_folds import mean_and_influence

        return [mean_and_influence(one, self.y, p, fold) for p, fold in zip(self.ps, self.folds, strict=True)]

    def statistics(self, one: Resampled) -> list[Statistic]:
        """Return each draw's metric as a function of multiplicities; with test folds, the mean over folds."""
        if not self.folds:
            return [one(self.y, p, self.unit) for p in self.ps]
        from mt.probe.scores.within_folds import mean_statistic

        return [mean_statistic(one, self.y, p, self.unit, fold) for p, fold in zip(self.ps, self.folds, strict=True)]


@dataclass(frozen=True)
class Estimate:
    """A metric's mean over draws, its interval over test cases, and how the interval was computed.

    influence: (n,) influence values, needed to combine estimates.  centre: the value minus its estimated bias, around
    which the interval is built.  reason: why there is no interval; low and high then are NaN.
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

    The variance of sums over M units is too small by (M - 1) / M, which is corrected.  by_class: correct it separately
    for the units that hold each of two classes, as Obuchowski does ("Nonparametric Analysis of Clustered ROC Curve
    Data", Biometrics 53, 1997; without groups it is DeLong's variance).  Groups are corrected twice, which gives the
    jackknife's variance: since group sizes differ, intervals without it covered 0.92 to 0.93 with 20 patients.
    """
    if not by_class:
        x = unit_sums(influence, sample.unit)
        return np.asarray(inflation(sample.n_units, sample) * x @ x.T)
    positive = sample.y == 1
    x, z = (unit_sums(influence * part, sample.unit) for part in (positive, ~positive))
    m, n = sample.units_with(positive), sample.units_with(~positive)
    both = inflation(sample.n_units, sample) * (x @ z.T + z @ x.T)
    return np.asarray(inflation(m, sample) * x @ x.T + inflation(n, sample) * z @ z.T + both)


def unit_sums(influence: Array, unit: Ints) -> Array:
    n_units = int(unit.max()) + 1
    return np.stack([np.bincount(unit, weights=row, minlength=n_units) for row in influence])


def inflation(n: int, sample: Sample) -> float:
    """Return the factor that corrects a variance over n units: n / (n - 1), its square if units are groups."""
    once = n / (n - 1) if n > 1 else 1.0
    return once**2 if sample.clustered else once


def over_classes(
    one: Rule, sample: Sample, *, columns: Callable[[Array], Array] = lambda p: p, few: int = 0
) -> Estimate:
    """Return the interval of a mean over K classes or labels: MOVER combines the intervals of the classes.

    low = θ̂ - sqrt(Σ_kl ρ_kl (θ̂_k - l_k) (θ̂_l - l_l)) / K, likewise high (Zou and Donner, "Construction of confidence
    limits about effect measures: A general approach", Statistics in Medicine 27, 2008), with the correlations ρ of the
    classes' influence values.  Classes that no case or every case holds are omitted.  A label is scored on the cases
    for which it is known.  columns: returns predictions with one column per class.  few: classes with fewer units count
    as perfectly correlated with each other, so that their distances add up.
    """
    truth = indicator(sample.y, sample.ps[0])
    shown = [columns(p) for p in sample.ps]
    averaged = np.flatnonzero(both_values(truth))
    if not len(averaged):
        return refused(np.nan, "all cases are of one class")
    columns_of = [replace(sample, y=truth[:, k], ps=tuple(p[:, k] for p in shown)) for k in averaged]
    alike = np.array([min(column.units_with(column.y == k) for k in (0, 1)) < few for column in columns_of])
    return _mover([_over_known(one, column) for column in columns_of], sample, np.outer(alike, alike))


def _over_known(one: Rule, sample: Sample) -> Estimate:
    """Return a rule's estimate on the cases whose label is known; the others have no influence on it."""
    rows = known_cases(sample.y)
    if isinstance(rows, slice):
        return one(sample)
    unit = np.unique(sample.unit[rows], return_inverse=True)[1].astype(np.int64)
    ps, folds = (tuple(each[rows] for each in several) for several in (sample.ps, sample.folds))
    found = one(replace(sample, y=sample.y[rows], ps=ps, unit=unit, folds=folds))
    influence = np.zeros(len(sample.y))
    influence[rows] = influence_of(found)
    return replace(found, influence=influence)


def _mover(parts: Sequence[Estimate], sample: Sample, alike: Array) -> Estimate:
    influence = np.stack([influence_of(part) for part in parts])
    spread = covariance(influence, sample)
    sd = np.sqrt(np.diag(spread))
    with np.errstate(divide="ignore", invalid="ignore"):
        rho = np.where(np.outer(sd, sd) > 0, spread / np.outer(sd, sd), np.eye(len(parts)))
    # Correlations are estimated from M units: without this shrinkage a width could cancel to zero.
    rho = np.where((np.eye(len(parts)) > 0) | alike, 1.0, rho * (1 - 1 / sample.n_units))
    centres = np.array([part.value if part.centre is None else part.centre for part in parts])
    below, above = centres - [part.low for part in parts], [part.high for part in parts] - centres
    down, up = (float(np.sqrt(max(0.0, side @ rho @ side))) / len(parts) for side in (below, above))
    value, centre = float(np.mean([part.value for part in parts])), float(centres.mean())
    method = f"{parts[0].method}; classes combined by MOVER"
    return Estimate(value, max(0.0, centre - down), min(1.0, centre + up), method, influence.mean(axis=0), centre)


def wilson(share: float, n: float, z: float) -> tuple[float, float]:
    """Return Wilson's interval of a share of n independent trials (n need not be whole)."""
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return min(share, max(0.0, float(middle - half))), max(share, min(1.0, float(middle + half)))
