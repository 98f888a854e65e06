"""Metrics of the order of scores (ROC AUC, average precision, sensitivity): on resamples, and their intervals.

With w the multiplicity of each unit (a group, or a case without groups):

AUC = Σ_ij w_i w_j ψ(p_i, p_j) / (Σ_i w_i Σ_j w_j) over positives i and negatives j; ψ is 1 if p_i > p_j, ½ in a tie,
else 0.  The scores are sorted once; then a resample takes two sparse products, which count the positives and the
negatives between two neighbouring scores, and a running sum.  With few units ψ is summed over pairs of units before,
and a resample is a quadratic form.  All are exact: equal to the metric on the resample's rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from mt.errors import InputError
from mt.probe.scores.sample import (
    Estimate,
    Resampled,
    Sample,
    Statistic,
    both_values,
    check_resampling,
    checked,
    covariance,
    indicator,
    inflation,
    known_cases,
    over_classes,
    ratio,
    replicate,
    table_of,
    unit_sums,
    units_of,
    wilson,
)
from mt.stratification import Ints
from mt.types import Array, Groups

SPECIFICITY = 0.95
# Up to this many units the AUC is a quadratic form; above it, running sums take less time.
PAIRED_UNITS = 256
# Numbers processed at once if every resample needs one per case: they stay in a core's cache.
_AT_ONCE = 2**17


def _mean_over_classes(one: Resampled, y: Array, p: Array, unit: Ints) -> Statistic:
    """Return the mean of a binary metric over the classes or labels that some cases hold and others do not.

    A label is scored on the cases for which it is known.
    """
    truth = indicator(y, p)
    kept = [(k, known_cases(truth[:, k])) for k in np.flatnonzero(both_values(truth))]
    statistics = [one(truth[rows, k], p[rows, k], unit[rows]) for k, rows in kept]
    if not statistics:
        return lambda w: np.full(len(w), np.nan)
    return lambda w: np.asarray(np.mean([statistic(w) for statistic in statistics], axis=0))


def roc_auc(y: Array, p: Array, unit: Ints) -> Statistic:
    """Return the area under the ROC curve as a function of the units' multiplicities."""
    positives, negatives = _sorted_by_score(p, y == 1), _sorted_by_score(p, y == 0)
    lower = np.searchsorted(p[negatives], p[positives], side="left")
    upper = np.searchsorted(p[negatives], p[positives], side="right")
    n_units = int(unit.max()) + 1
    if n_units <= PAIRED_UNITS:
        return _auc_of_unit_pairs(unit[positives], unit[negatives], lower, upper, n_units)
    return _auc_of_running_sums(unit[positives], unit[negatives], lower, upper)


def _auc_of_unit_pairs(positive: Ints, negative: Ints, lower: Ints, upper: Ints, n_units: int) -> Statistic:
    """Return the AUC from Σ_gh w_g w_h Ψ_gh, Ψ_gh = Σ ψ over the positives of unit g and the negatives of unit h."""
    pairs = np.empty((n_units, n_units))
    below = np.zeros(len(negative) + 1)
    for other in range(n_units):
        np.cumsum(negative == other, out=below[1:])
        pairs[:, other] = np.bincount(positive, weights=(below[lower] + below[upper]) / 2, minlength=n_units)
    totals = np.outer(np.bincount(positive, minlength=n_units), np.bincount(negative, minlength=n_units))

    def statistic(weights: Array) -> Array:
        w = weights[:, :n_units].astype(np.float64)  # the last units may hold no case
        return ratio(((w @ pairs) * w).sum(axis=1), ((w @ totals) * w).sum(axis=1))

    return statistic


def _auc_of_running_sums(positive: Ints, negative: Ints, lower: Ints, upper: Ints) -> Statistic:
    """Return the AUC from Σ_i w_i (weight of the negatives below i + half of those tied with i) over sorted positives.

    `lower` and `upper` are the numbers of negatives below each positive, without and with those tied with it.
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
        return ratio(np.einsum("kb,kb->b", found, below[:-1]), found.sum(axis=0) * below[-1])

    return _piecewise(statistic, len(firsts) + n_units)


def _piecewise(statistic: Statistic, numbers: int) -> Statistic:
    """Return the same statistic, computed on few enough resamples at once that `numbers` numbers each fit the cache."""
    step = max(1, _AT_ONCE // numbers)
    return lambda w: np.concatenate([statistic(w[first : first + step]) for first in range(0, len(w), step)])


def average_precision(y: Array, p: Array, unit: Ints) -> Statistic:
    """Return Σ_t (recall_t - recall_{t-1}) precision_t over the distinct scores t, from the highest down."""
    descending, ends = _descending(p)
    units, positive = unit[descending], y[descending].astype(np.float64)

    def statistic(weights: Array) -> Array:
        w = _take(weights, units).astype(np.float64)
        found = _take(np.cumsum(w * positive, axis=1), ends)
        returned = _take(np.cumsum(w, axis=1), ends)
        gained = np.diff(found, axis=1, prepend=0)
        precision = found / np.maximum(returned, 1)
        values = ratio(np.einsum("bt,bt->b", gained, precision), found[:, -1])
        return np.where(found[:, -1] < returned[:, -1], values, np.nan)

    return _piecewise(statistic, len(units))


def sensitivity_at_95_specificity(y: Array, p: Array, unit: Ints) -> Statistic:
    """Return the share of positives found at the lowest threshold with at most 5 % of the negatives at or above it."""
    descending, ends = _descending(p)
    units, positive = unit[descending], y[descending].astype(np.float64)

    def statistic(weights: Array) -> Array:
        w = _take(weights, units).astype(np.float64)
        found = _take(np.cumsum(w * positive, axis=1), ends)
        alarms = _take(np.cumsum(w * (1 - positive), axis=1), ends)
        allowed = (alarms <= (1 - SPECIFICITY + 1e-12) * alarms[:, -1:]).sum(axis=1)
        at_threshold = np.hstack([np.zeros((len(w), 1)), found])[np.arange(len(w)), allowed]
        return np.where(alarms[:, -1] > 0, ratio(at_threshold, found[:, -1]), np.nan)

    return _piecewise(statistic, len(units))


mean_auc = partial(_mean_over_classes, roc_auc)
mean_precision = partial(_mean_over_classes, average_precision)


def _sorted_by_score(p: Array, chosen: Array) -> Ints:
    rows = np.flatnonzero(chosen)
    return rows[np.argsort(p[rows], kind="stable")]


def _descending(p: Array) -> tuple[Ints, Ints]:
    """Return the cases from the highest score down, and the last position of each distinct score in that order."""
    order = np.argsort(-p, kind="stable")
    return order, np.append(np.flatnonzero(np.diff(p[order])), len(p) - 1)


def _take(table: Array, columns: Ints) -> Array:
    # mode="clip" skips numpy's check of every index, which takes longer than the copy.
    return np.take(table, columns, axis=1, mode="clip")


# Influence values: the change of the metric per unit weight of each case; they sum to zero ----------------------------


def auc_and_influence(y: Array, p: Array) -> tuple[float, Array]:
    """Return the AUC and its influence values: deviations of the placements (DeLong et al., Biometrics 44, 1988)."""
    from scipy.stats import rankdata

    positive, negative = p[y == 1], p[y == 0]
    m, n = len(positive), len(negative)
    ranks = rankdata(np.concatenate([positive, negative]))
    below, above = (ranks[:m] - rankdata(positive)) / n, 1 - (ranks[m:] - rankdata(negative)) / m
    auc = float(below.mean())
    influence = np.empty(len(y))
    influence[y == 1], influence[y == 0] = (below - auc) / m, (above - auc) / n
    return auc, influence


def precision_and_influence(y: Array, p: Array) -> tuple[float, Array]:
    """Return average precision and its influence values.

    With F_t found and R_t returned cases down to the distinct score t, P positives and AP = Σ_t ΔF_t F_t / (R_t P):
    a case of label y at score s changes it by (y F_s / R_s + Σ_{t <= s} ΔF_t (y R_t - F_t) / R_t² - y AP) / P.
    """
    order, ends = _descending(p)
    positive = y[order].astype(np.float64)
    found, returned = np.cumsum(positive)[ends], (ends + 1).astype(np.float64)
    gained, total = np.diff(found, prepend=0), found[-1]
    value = float((gained * found / returned).sum() / total)
    # Sums over all scores at or below the case's own, in the order of ranks.
    as_found, as_returned = (np.cumsum(v[::-1])[::-1] for v in (gained / returned, gained * found / returned**2))
    place = np.searchsorted(ends, np.arange(len(y)))
    change = positive * (found / returned)[place] + positive * as_found[place] - as_returned[place] - positive * value
    influence = np.empty(len(y))
    influence[order] = change / total
    return value, influence


_RESAMPLES = 400  # for the variance of the sensitivity, which has no formula
_JACKKNIFED = 500  # a class with more cases is not jackknifed: its bias counts as 0


def auc_interval(sample: Sample) -> Estimate:
    """Return Wilson's interval of the AUC, the share of pairs in order, with Student's t in the place of z.

    The number of trials is the one at which such a share has the AUC's variance (Korn and Graubard 1998).  The degrees
    of freedom are the units of the rarer class minus 1.  Patients with different numbers of cases count as a smaller
    number of equal size (Kish, "Survey Sampling", 1965).

    At 0 and 1, where the sample shows no variance, and if a class has only one unit, it is the score interval with
    Hanley and McNeil's variance (Newcombe, "Confidence intervals for an effect size measure based on the Mann-Whitney
    statistic", Statistics in Medicine 25, 2006, method 5).
    """
    values, influences = zip(*sample.by_draw(auc_and_influence), strict=True)
    value, influence = float(np.mean(values)), np.mean(influences, axis=0)
    m, n = sample.units_with(sample.y == 1), sample.units_with(sample.y == 0)
    variance = _auc_variance(value, influences, sample) if min(m, n) > 1 and 0 < value < 1 else 0.0
    if variance < 1e-16:
        low, high = newcombe(value, m, n, sample.z())
        return Estimate(value, low, high, "Newcombe's score interval", influence)
    fewest = min(sample.effective_units_with(sample.y == k) for k in (0, 1))
    low, high = wilson(value, value * (1 - value) / variance, sample.t(fewest - 1))
    author = "Obuchowski" if sample.clustered else "DeLong"
    return Estimate(value, low, high, f"Wilson, {author}'s or binormal variance", influence)


def _auc_variance(value: float, influences: Sequence[Array], sample: Sample) -> float:
    """Return the variance of the mean AUC of several draws: Obuchowski's, or the binormal one where it is larger.

    A high AUC depends on the few positives that have low scores.  A sample without them has a higher AUC and, wrongly,
    a small variance.  Therefore the variance is at least that of normal scores of equal spread with this AUC.  It is
    multiplied by the factor by which groups and several draws change Obuchowski's variance.
    """
    shown = float((unit_sums(_leveraged(np.mean(influences, axis=0), sample)[None], sample.unit) ** 2).sum())
    independent = replace(sample, unit=np.arange(len(sample.y)), clustered=False)
    alone = float(np.mean([(_leveraged(each, independent) ** 2).sum() for each in influences]))
    positives = int((sample.y == 1).sum())
    assumed = binormal_variance(value, positives, len(sample.y) - positives)
    return max(shown, assumed * shown / alone) if alone > 0 else shown


def _leveraged(influence: Array, sample: Sample) -> Array:
    """Return influence values (n,) of two classes, each raised by its unit's share h of the cases of its class.

    Divided by 1 - h the squared sums of groups make the jackknife's variance, also of groups with different numbers of
    cases (CR3: Bell and McCaffrey, "Bias Reduction in Standard Errors for Linear Regression with Multi-Stage Samples",
    Survey Methodology 28, 2002); divided by sqrt(1 - h) those of independent cases make DeLong's.
    """
    shares = np.empty(len(influence))
    for rows in (sample.y == 1, sample.y != 1):
        counts = np.bincount(sample.unit[rows], minlength=sample.n_units)
        shares[rows] = counts[sample.unit[rows]] / max(1, counts.sum())
    left = 1 - shares
    return np.asarray(influence / (left if sample.clustered else np.sqrt(left)))


def binormal_variance(auc: float, m: float, n: float) -> float:
    """Return the variance of the AUC of m positives and n negatives with normal scores of equal spread.

    It is (A (1 - A) + (m + n - 2) (Q - A²)) / (m n), a form of Hanley and McNeil's (Radiology 143, 1982).  A is the
    AUC, Q the probability that two negatives lie below one positive: Φ2(h, h; 1/2) with h = Φ⁻¹(A), which is
    A - 2 T(h, 1 / √3) with Owen's T ("Tables for Computing Bivariate Normal Probabilities", Annals of Mathematical
    Statistics 27, 1956).
    """
    from scipy.special import ndtri, owens_t

    q = auc - 2 * float(owens_t(ndtri(auc), 1 / np.sqrt(3)))
    return (auc * (1 - auc) + (m + n - 2) * (q - auc**2)) / (m * n)


def precision_interval(sample: Sample) -> Estimate:
    """Return average precision's interval on the logit scale, with linearised variance and Student's t.

    Its bias is removed before.  At 0 and 1, and if a class has only one unit, it is Wilson's interval over the units
    that hold a positive.
    """
    value, influence = sample.linearised(precision_and_influence)
    variance = float(covariance(influence[None], sample, by_class=True)[0, 0])
    if sample.fewest < 2 or not 0 < value < 1 or variance < 1e-16:
        low, high = wilson(value, sample.units_with(sample.y == 1), sample.z())
        return Estimate(value, low, high, "Wilson", influence)
    bias, _ = sample.linearised(lambda y, p: (_precision_bias(y, p), np.zeros(len(y))))
    centre = min(max(value - bias, value / 2), (1 + value) / 2)
    low, high = logit(centre, variance, sample.t(sample.fewest - 1))
    return Estimate(value, low, high, "logit, linearised variance, bias removed", influence, centre)


def _precision_bias(y: Array, p: Array) -> float:
    """Return the jackknife's estimate of the bias of average precision, which is too high if positives are few.

    It removes one case at a time and subtracts the first-order change -I_i; the remainder is the bias.  For a class of
    more than 500 cases the bias is below 0.1 standard errors and counts as 0.
    """
    value, influence = precision_and_influence(y, p)
    statistic, bias = average_precision(y, p, np.arange(len(y))), 0.0
    for k in (0, 1):
        rows = np.flatnonzero(y == k)
        if 1 < len(rows) <= _JACKKNIFED:
            bias += (len(rows) - 1) * float(np.mean(_without_each(rows, statistic, len(y)) - value + influence[rows]))
    return bias


def _without_each(rows: Ints, statistic: Statistic, n: int) -> Array:
    """Return a statistic of n cases without each of some in turn."""
    step, found = max(1, _AT_ONCE // n), []
    for some in np.split(rows, range(step, len(rows), step)):
        weights = np.ones((len(some), n), dtype=np.uint8)
        weights[np.arange(len(some)), some] = 0
        found.append(statistic(weights))
    return np.concatenate(found)


def sensitivity_interval(sample: Sample) -> Estimate:
    """Return Wilson's interval, with the number of trials that has the bootstrap's variance.

    The bootstrap chooses the threshold again on each resample.
    """
    check_resampling(len(sample.y), len(sample.ps))
    statistics = sample.statistics(sensitivity_at_95_specificity)
    whole = np.ones((1, sample.n_units))
    value = float(np.mean([statistic(whole)[0] for statistic in statistics]))
    found, _ = replicate(statistics, sample.y, sample.unit, n_resamples=_RESAMPLES, seed=0)
    units = sample.units_with(sample.y == 1)
    variance = float(np.nanvar(found.mean(axis=1))) * inflation(units, sample)
    share = float(np.nanmean(found))
    n = min(share * (1 - share) / variance if variance > 0 else units, float((sample.y == 1).sum()))
    n *= (sample.z() / sample.t(min(sample.fewest, 10**6) - 1)) ** 2
    low, high = wilson(value, n, sample.z())
    return Estimate(value, low, high, "Wilson, bootstrap variance")


mean_auc_interval = partial(over_classes, auc_interval)
# Average precision is too high if a label has few positives, and the bias of one or two positives cannot be estimated.
# Biases of several labels add up, their squares do not: with 50 cases and three labels of 5 %, intervals covered 0.90.
mean_precision_interval = partial(over_classes, precision_interval, few=5)


def logit(value: float, variance: float, t: float) -> tuple[float, float]:
    """Return the ends of the interval value ± t · sqrt(variance), computed on the logit scale."""
    middle, half = np.log(value / (1 - value)), t * np.sqrt(variance) / (value * (1 - value))
    return float(1 / (1 + np.exp(half - middle))), float(1 / (1 + np.exp(-half - middle)))


def newcombe(value: float, m: int, n: int, z: float) -> tuple[float, float]:
    """Return the two θ from which the AUC `value` is z standard errors away, with Hanley and McNeil's variance at θ."""
    more = (m + n) / 2 - 1

    def excess(theta: float) -> float:
        spread = theta * (1 - theta) / (m * n) * (1 + more * (1 - theta) / (2 - theta) + more * theta / (1 + theta))
        return float(abs(value - theta) - z * np.sqrt(max(spread, 0.0)))

    return _root(excess, value, 0.0), _root(excess, value, 1.0)


def _root(excess: Callable[[float], float], inside: float, outside: float) -> float:
    """Return by bisection where an excess, negative near `inside`, becomes positive on the way to `outside`."""
    low, high = inside, outside
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) < 0 else (low, middle)
        if middle == inside:
            break
    return (low + high) / 2


def delong(y: ArrayLike, scores: ArrayLike) -> tuple[Array, Array]:
    """Return the AUCs (m,) of `scores` (m, n) or (n,) on independent cases, and their covariance (m, m).

    DeLong, DeLong and Clarke-Pearson, "Comparing the Areas under Two or More Correlated Receiver Operating
    Characteristic Curves", Biometrics 44, 1988.  Raises InputError with fewer than two cases of a class.
    """
    return obuchowski(y, scores, groups=None)


def obuchowski(y: ArrayLike, scores: ArrayLike, groups: Groups | None) -> tuple[Array, Array]:
    """Return the AUCs (m,) of `scores` (m, n) or (n,), and their covariance (m, m) for cases clustered in groups.

    Obuchowski, "Nonparametric Analysis of Clustered ROC Curve Data", Biometrics 53, 1997; without groups it is
    DeLong's.  Raises InputError if fewer than two groups hold positives, or fewer than two hold negatives.
    """
    rows = [checked(y, row) for row in np.atleast_2d(table_of(scores, "scores"))]
    if not rows:
        raise InputError("no scores: they have the shape (m, n) or (n,)")
    labels = rows[0][0]
    sample = Sample(labels, (), units_of(len(labels), groups), False, 0.95)
    units_with = [sample.units_with(labels == k) for k in (0, 1)]
    if min(units_with) < 2:
        raise InputError(
            f"the variance of an AUC needs two units of each class, found {units_with[0]} and {units_with[1]}"
        )
    found = [auc_and_influence(labels, row) for _, row in rows]
    influence = np.stack([influence for _, influence in found])
    return np.array([auc for auc, _ in found]), covariance(influence, sample, by_class=True)
