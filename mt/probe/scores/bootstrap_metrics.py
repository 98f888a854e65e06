"""Every metric as a function of multiplicities: how often a resample holds each case, or each group of cases.

A resample is never built.  With w the multiplicity of each unit (a group, or a case without groups):

- AUC = Σ_ij w_i w_j ψ(p_i, p_j) / (Σ_i w_i Σ_j w_j) over positives i and negatives j, ψ one, or one half in a tie.
  The scores are sorted once; then a resample is two sparse products, which count the positives and the negatives
  between two neighbouring scores, and a running sum.  With few units ψ is summed up over pairs of units beforehand, and
  a resample is a quadratic form.
- What depends on sums over cases alone (accuracy, F1, kappa, Brier, ECE, ...) is one matrix product.
- Any other function falls back to the repeated rows.

All are exact: equal to the metric on the resample's rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mt.probe.scores import metrics
from mt.stratification import Ints

Array = NDArray[Any]
# (resamples, n_units) multiplicities -> (resamples,) values, NaN where the metric is not defined.
Statistic = Callable[[Array], Array]
MetricLike = str | Callable[[Array, Array], float]

# Up to this many units the AUC is a quadratic form; beyond, running sums are cheaper.
PAIRED_UNITS = 256
# Beyond this many classes the matrix of sums a case grows too large.
SUMMED_CLASSES = 64
# Numbers taken at once where every resample has one or more a case: they stay in a core's cache.
_AT_ONCE = 2**17


def weighted(metric: MetricLike, y: Array, p: Array, unit: Ints) -> Statistic:
    """Return the metric of labels `y` and probabilities `p` as a function of the multiplicities of the units.

    `unit` (n,) is the unit number of each case.  Averages over classes hold the classes that all cases together hold;
    a resample that lacks one of them is undefined (NaN).
    """
    n_classes = 2 if p.ndim == 1 else p.shape[1]
    if callable(metric) or (metric in _SUMS and n_classes > SUMMED_CLASSES):
        function = metric if callable(metric) else metrics.get(metric).function
        return _repeated(function, y, p, unit)
    if metric in _SUMS:
        features, value = _SUMS[metric]
        sums = _sum_by_unit(features(y, p), unit)
        return lambda w: value(w.astype(np.float64) @ sums)
    if p.ndim == 1:
        return _RANKED[metric](y, p, unit)
    truth = y if y.ndim == 2 else (y[:, None] == np.arange(n_classes)).astype(np.int64)
    kept = [k for k in range(n_classes) if truth[:, k].min() != truth[:, k].max()]
    return _mean([_RANKED[metric](truth[:, k], p[:, k], unit) for k in kept])


def _repeated(function: Callable[[Array, Array], float], y: Array, p: Array, unit: Ints) -> Statistic:
    def one(w: Array) -> float:
        rows = np.repeat(np.arange(len(unit)), w[unit])
        return float(function(y[rows], p[rows])) if len(rows) else np.nan

    return lambda weights: np.array([one(w) for w in weights])


def _mean(statistics: list[Statistic]) -> Statistic:
    if not statistics:
        return lambda w: np.full(len(w), np.nan)
    return lambda w: np.asarray(np.mean([statistic(w) for statistic in statistics], axis=0))


# Rank metrics --------------------------------------------------------------------------------------------------------


def _auc(y: Array, p: Array, unit: Ints) -> Statistic:
    positives, negatives = _sorted_by_score(p, y == 1), _sorted_by_score(p, y == 0)
    lower = np.searchsorted(p[negatives], p[positives], side="left")
    upper = np.searchsorted(p[negatives], p[positives], side="right")
    n_units = int(unit.max()) + 1
    if n_units <= PAIRED_UNITS:
        return _auc_of_unit_pairs(unit[positives], unit[negatives], lower, upper, n_units)
    return _auc_of_running_sums(unit[positives], unit[negatives], lower, upper)


def _auc_of_unit_pairs(positive: Ints, negative: Ints, lower: Ints, upper: Ints, n_units: int) -> Statistic:
    """Σ_gh w_g w_h Ψ_gh with Ψ_gh = Σ ψ over the positives of unit g and the negatives of unit h."""
    pairs = np.empty((n_units, n_units))
    below = np.zeros(len(negative) + 1)
    for other in range(n_units):
        np.cumsum(negative == other, out=below[1:])
        pairs[:, other] = np.bincount(positive, weights=(below[lower] + below[upper]) / 2, minlength=n_units)
    totals = np.outer(np.bincount(positive, minlength=n_units), np.bincount(negative, minlength=n_units))

    def statistic(weights: Array) -> Array:
        w = weights.astype(np.float64)
        return _ratio(((w @ pairs) * w).sum(axis=1), ((w @ totals) * w).sum(axis=1))

    return statistic


def _auc_of_running_sums(positive: Ints, negative: Ints, lower: Ints, upper: Ints) -> Statistic:
    """Σ_i w_i (weight of the negatives below i + half of those tied with i), positives and negatives sorted.

    `lower` and `upper` are how many negatives lie below each positive, without and with those tied.
    """
    from scipy.sparse import csr_array

    n_units = int(max(positive.max(initial=0), negative.max(initial=0))) + 1
    firsts = np.unique(np.concatenate([lower, upper]))
    # Row k counts the negatives among firsts[k - 1] ... firsts[k]; the last row those above all positives.
    between = csr_array(
        (np.ones(len(negative)), negative, np.concatenate([[0], firsts, [len(negative)]])),
        shape=(len(firsts) + 1, n_units),
    )
    # Row k holds the positives that have firsts[k] negatives below, by halves: without and with those tied.
    places = np.searchsorted(firsts, np.concatenate([lower, upper]))
    halves, units = np.full(len(places), 0.5), np.concatenate([positive, positive])
    here = csr_array((halves, (places, units)), shape=(len(firsts), n_units))

    def statistic(weights: Array) -> Array:
        w = np.ascontiguousarray(weights[:, :n_units].T, dtype=np.float64)
        below = np.cumsum(between @ w, axis=0)
        found = here @ w
        return _ratio(np.einsum("kb,kb->b", found, below[:-1]), found.sum(axis=0) * below[-1])

    return _piecewise(statistic, len(firsts) + n_units)


def _piecewise(statistic: Statistic, numbers: int) -> Statistic:
    """Return the same statistic, taken of so few resamples at once that `numbers` numbers each stay in the cache."""
    step = max(1, _AT_ONCE // numbers)
    return lambda w: np.concatenate([statistic(w[first : first + step]) for first in range(0, len(w), step)])


def _average_precision(y: Array, p: Array, unit: Ints) -> Statistic:
    """Σ_t (recall_t - recall_{t-1}) precision_t over the distinct scores t, from the highest down."""
    descending, ends = _descending(p)
    units, positive = unit[descending], y[descending].astype(np.float64)

    def statistic(weights: Array) -> Array:
        w = _take(weights, units).astype(np.float64)
        found = _take(np.cumsum(w * positive, axis=1), ends)
        returned = _take(np.cumsum(w, axis=1), ends)
        gained = np.diff(found, axis=1, prepend=0)
        precision = found / np.maximum(returned, 1)
        values = _ratio(np.einsum("bt,bt->b", gained, precision), found[:, -1])
        return np.where(found[:, -1] < returned[:, -1], values, np.nan)

    return _piecewise(statistic, len(units))


def _sensitivity(y: Array, p: Array, unit: Ints) -> Statistic:
    """The positives found at the lowest score above which at most 5 % of the negatives lie."""
    descending, ends = _descending(p)
    units, positive = unit[descending], y[descending].astype(np.float64)

    def statistic(weights: Array) -> Array:
        w = _take(weights, units).astype(np.float64)
        found = _take(np.cumsum(w * positive, axis=1), ends)
        alarms = _take(np.cumsum(w * (1 - positive), axis=1), ends)
        allowed = (alarms <= (1 - metrics.SPECIFICITY + 1e-12) * alarms[:, -1:]).sum(axis=1)
        at_threshold = np.hstack([np.zeros((len(w), 1)), found])[np.arange(len(w)), allowed]
        return np.where(alarms[:, -1] > 0, _ratio(at_threshold, found[:, -1]), np.nan)

    return _piecewise(statistic, len(units))


_RANKED: dict[str, Callable[[Array, Array, Ints], Statistic]] = {
    "roc_auc": _auc,
    "macro_auc": _auc,
    "mean_auc": _auc,
    "average_precision": _average_precision,
    "mean_ap": _average_precision,
    "sensitivity_at_95_specificity": _sensitivity,
}


def _sorted_by_score(p: Array, chosen: Array) -> Ints:
    rows = np.flatnonzero(chosen)
    return rows[np.argsort(p[rows], kind="stable")]


def _descending(p: Array) -> tuple[Ints, Ints]:
    """Return the cases from the highest score down, and the last place of each distinct score."""
    order = np.argsort(-p, kind="stable")
    return order, np.append(np.flatnonzero(np.diff(p[order])), len(p) - 1)


def _take(table: Array, columns: Ints) -> Array:
    # mode="clip" spares numpy the check of every index, which would take longer than the copy.
    return np.take(table, columns, axis=1, mode="clip")


def _ratio(numerator: Array, denominator: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(denominator > 0, numerator / denominator, np.nan)


# Metrics of sums over cases ------------------------------------------------------------------------------------------


def _sum_by_unit(features: Array, unit: Ints) -> Array:
    return np.column_stack([np.bincount(unit, weights=column) for column in features.T])


def _accuracy_features(y: Array, p: Array) -> Array:
    return np.column_stack([metrics.predicted(p) == y, np.ones(len(y))])


def _brier_features(y: Array, p: Array) -> Array:
    return np.column_stack([(p - y) ** 2, np.ones(len(y))])


def _log_loss_features(y: Array, p: Array) -> Array:
    columns = metrics.class_columns(p)
    likelihood = np.clip(columns[np.arange(len(y)), y], np.finfo(np.float64).eps, 1)
    return np.column_stack([-np.log(likelihood), np.ones(len(y))])


def _mean_of_sums(sums: Array) -> Array:
    return _ratio(sums[:, 0], sums[:, 1])


def _hit_features(y: Array, p: Array) -> Array:
    """Return, a class: correct, true and predicted (n, 3 classes)."""
    classes = np.arange(2 if p.ndim == 1 else p.shape[1])
    true, found = y[:, None] == classes, metrics.predicted(p)[:, None] == classes
    return np.hstack([true & found, true, found]).astype(np.float64)


def _present_hit_features(y: Array, p: Array) -> Array:
    """As `_hit_features`, of the classes that the cases hold."""
    columns = np.isin(np.arange(2 if p.ndim == 1 else p.shape[1]), y)
    return _hit_features(y, p)[:, np.tile(columns, 3)]


def _mean_recall(sums: Array) -> Array:
    hits, true, _ = np.split(sums, 3, axis=1)
    return np.asarray(_ratio(hits, true).mean(axis=1))


def _f1_of_class_1(sums: Array) -> Array:
    hits, true, found = np.split(sums, 3, axis=1)
    values = _ratio(2 * hits[:, 1], true[:, 1] + found[:, 1])
    return np.where(true[:, 1] > 0, values, np.nan)


def _mean_f1(sums: Array) -> Array:
    hits, true, found = np.split(sums, 3, axis=1)
    occurs = true + found > 0
    return _ratio(np.where(occurs, 2 * hits / np.maximum(true + found, 1), 0).sum(axis=1), occurs.sum(axis=1))


def _kappa_features(y: Array, p: Array) -> Array:
    """Return 1, (y - g)², y, y², g, g² of grades y and predictions g."""
    g = metrics.predicted(p)
    return np.column_stack([np.ones(len(y)), (y - g) ** 2, y, y**2, g, g**2]).astype(np.float64)


def _kappa(sums: Array) -> Array:
    """1 - Σ (y - g)² / E, where E = Σ_ij (i - j)² n_i m_j / n is what the marginals n_i and m_j alone give."""
    n, disagreement, y, y2, g, g2 = sums.T
    expected = y2 + g2 - 2 * y * g / np.maximum(n, 1)
    # Whole numbers make up the sums: what is left of zero after rounding is zero.
    return np.where(expected > 1e-9 * np.maximum(n, 1), 1 - _ratio(disagreement, expected), np.nan)


def _ece_features(y: Array, p: Array) -> Array:
    confidence, correct, bins = metrics.calibration(y, p)
    in_bin = bins[:, None] == np.arange(metrics.ECE_BINS)
    return np.column_stack([in_bin * (confidence - correct)[:, None], np.ones(len(y))])


def _ece(sums: Array) -> Array:
    return _ratio(np.abs(sums[:, :-1]).sum(axis=1), sums[:, -1])


_SUMS: dict[str, tuple[Callable[[Array, Array], Array], Statistic]] = {
    "accuracy": (_accuracy_features, _mean_of_sums),
    "brier": (_brier_features, _mean_of_sums),
    "log_loss": (_log_loss_features, _mean_of_sums),
    "balanced_accuracy": (_present_hit_features, _mean_recall),
    "f1": (_hit_features, _f1_of_class_1),
    "macro_f1": (_hit_features, _mean_f1),
    "quadratic_kappa": (_kappa_features, _kappa),
    "ece": (_ece_features, _ece),
}
