"""Resamples of test cases, shared by all statistics of a call: groups with replacement, or cases without groups.

Replicates come in chunks with a random stream each, so that the numbers do not depend on how many threads there are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from mt.errors import InputError
from mt.stratification import Ints, label_matrix, unit_counts
from mt.system.threads import cores
from mt.types import MISSING, Array, Groups

# (resamples, n_units) multiplicities -> (resamples,) values, NaN where the metric is not defined.  A resample is never
# built: a statistic is a function of how often the resample holds each unit (a group, or a case without groups).
Statistic = Callable[[Array], Array]
# Labels, probabilities and the unit number of each case -> the metric as a function of multiplicities.
Resampled = Callable[[Array, Array, Ints], Statistic]

# Multiplicities in a chunk.
_CHUNK_NUMBERS = 2**17
# Resamples of which the statistics are taken at once, at least: chunks are put together.
_TOGETHER = 64


def units_of(n_cases: int, groups: Groups | None) -> Ints:
    """Return the unit number of each case: its group, or itself."""
    if groups is None:
        return np.arange(n_cases)
    if len(groups) != n_cases:
        raise InputError(f"one group per case is needed: {n_cases} cases, {len(groups)} groups")
    return np.unique(np.asarray(groups), return_inverse=True)[1].astype(np.int64)


def replicate(
    statistics: Sequence[Statistic], y: Array, unit: Ints, *, n_resamples: int, seed: int
) -> tuple[Array, int]:
    """Return (n_resamples, statistics) values, all statistics on the same resamples, and how many were redrawn.

    A resample on which some statistic is not defined, for lack of a class, is redrawn stratified by class: units
    are then resampled among those that hold the same classes.  A value that is still undefined stays NaN.
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

    step = max(1, _TOGETHER // chunk_size)
    with ThreadPoolExecutor(cores()) as threads:
        parts = list(threads.map(together, range(0, n_chunks, step)))
    return np.concatenate([values for values, _ in parts]), sum(redrawn for _, redrawn in parts)


def whole(n_units: int) -> Array:
    """Return the multiplicities of the sample itself: one resample in which every unit occurs once."""
    return np.ones((1, n_units), dtype=np.uint16)


def repeated(function: Callable[[Array, Array], float], y: Array, p: Array, unit: Ints) -> Statistic:
    """Return any function of labels and probabilities as a function of multiplicities: its rows are repeated."""

    def one(w: Array) -> float:
        rows = np.repeat(np.arange(len(unit)), w[unit])
        return float(function(y[rows], p[rows])) if len(rows) else np.nan

    return lambda weights: np.array([one(w) for w in weights])


def ratio(numerator: Array, denominator: Array) -> Array:
    """Return the quotient, NaN where the denominator is not positive."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(denominator > 0, numerator / denominator, np.nan)


def _strata(y: Array, unit: Ints) -> Ints:
    """Return the stratum number of each unit: which classes (multilabel: labels, and none) its cases hold.

    Where labels are missing, also which labels its cases are known not to hold.
    """
    held = label_matrix(y)
    if y.ndim == 2 and (y == MISSING).any():
        held = np.hstack([held, y == 0])
    counts, _ = unit_counts(held, unit.tolist())
    return np.unique(counts > 0, axis=0, return_inverse=True)[1].ravel().astype(np.int64)


def _multiplicities(strata: Ints, rng: np.random.Generator) -> Array:
    """Return how often each unit occurs when as many units as there are are drawn from each stratum."""
    if not strata.any():
        drawn = rng.integers(0, len(strata), len(strata))
    else:
        sizes = np.bincount(strata)
        by_stratum = np.argsort(strata, kind="stable")
        starts = np.repeat(np.cumsum(sizes) - sizes, sizes)
        drawn = by_stratum[starts + (rng.random(len(strata)) * np.repeat(sizes, sizes)).astype(np.int64)]
    return np.bincount(drawn, minlength=len(strata)).astype(np.uint16)
