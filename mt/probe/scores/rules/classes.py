"""The interval of a mean over classes or labels, from those of its parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from mt.probe.scores.predictions import both_values, indicator, known_cases
from mt.probe.scores.rules.sample import Estimate, Rule, Sample, covariance, influence_of, refused
from mt.types import Array

Kept = Callable[[Array, list[Array]], Array]


def _varied(truth: Array, shown: list[Array]) -> Array:
    """Return which classes some cases hold and others do not."""
    return both_values(truth)


def over_classes(one: Rule, columns: Callable[[Array], Array] = lambda p: p, kept: Kept = _varied) -> Rule:
    """The mean over classes or labels: their intervals combined by MOVER.

    low = θ̂ - sqrt(Σ_kl ρ_kl (θ̂_k - l_k) (θ̂_l - l_l)) / K, likewise high (Zou and Donner, "Construction of confidence
    limits about effect measures: A general approach", Statistics in Medicine 27, 2008), with the correlations ρ of the
    classes' influence values.  columns: predictions as one column per class.  kept: which classes are averaged, given
    the true and the predicted columns.  Each label is over the cases for which it is known.
    """

    def rule(sample: Sample) -> Estimate:
        truth = indicator(sample.y, sample.ps[0])
        shown = [columns(p) for p in sample.ps]
        averaged = np.flatnonzero(kept(truth, shown))
        if not len(averaged):
            return refused(np.nan, "all cases are of one class")
        columns_of = [replace(sample, y=truth[:, k], ps=tuple(p[:, k] for p in shown)) for k in averaged]
        return _mover([_over_known(one, column) for column in columns_of], sample)

    return rule


def _over_known(one: Rule, sample: Sample) -> Estimate:
    """Return a rule's estimate on the cases whose label is known; the others have no influence on it."""
    rows = known_cases(sample.y)
    if isinstance(rows, slice):
        return one(sample)
    unit = np.unique(sample.unit[rows], return_inverse=True)[1].astype(np.int64)
    found = one(replace(sample, y=sample.y[rows], ps=tuple(p[rows] for p in sample.ps), unit=unit))
    influence = np.zeros(len(sample.y))
    influence[rows] = influence_of(found)
    return replace(found, influence=influence)


def _mover(parts: Sequence[Estimate], sample: Sample) -> Estimate:
    influence = np.stack([influence_of(part) for part in parts])
    spread = covariance(influence, sample)
    sd = np.sqrt(np.diag(spread))
    with np.errstate(divide="ignore", invalid="ignore"):
        rho = np.where(np.outer(sd, sd) > 0, spread / np.outer(sd, sd), np.eye(len(parts)))
    # Estimated from M units, correlations are not exact: without the shrinkage they could cancel to a width of zero.
    rho = np.where(np.eye(len(parts)) > 0, 1.0, rho * (1 - 1 / sample.n_units))
    centres = np.array([part.value if part.centre is None else part.centre for part in parts])
    below, above = centres - [part.low for part in parts], [part.high for part in parts] - centres
    down, up = (float(np.sqrt(max(0.0, side @ rho @ side))) / len(parts) for side in (below, above))
    value, centre = float(np.mean([part.value for part in parts])), float(centres.mean())
    method = f"{parts[0].method}; classes combined by MOVER"
    return Estimate(value, max(0.0, centre - down), min(1.0, centre + up), method, influence.mean(axis=0), centre)
