"""Paired comparisons of methods on the same draws and test cases.

The estimand is the mean difference over draws.  Its uncertainty comes from resampling draws and test groups jointly
(test groups alone if there is one draw).  All methods and draws share each resample, so variation that they have in
common cancels.  Plain joint resamples are wrong in three ways, each of which the simulations in the tests show:

- With D draws and G groups they spread too little, by sqrt((D - 1) / D) and sqrt((G - 1) / G).
- They count the interaction of draws and cases three times (Owen, "The pigeonhole bootstrap", Annals of Applied
  Statistics 1, 2007).
- Their tails are normal, but Student's t is needed: five draws alone would make a 5 % test reject 15 % of true nulls.

So the deviations over cases and over draws are scaled to their parts of the variance of the mean difference,
σ²_cases + σ²_interaction / D and σ²_draws / D.  Each is divided by its own sqrt(χ² / df), with G - 1 and D - 1 degrees
of freedom (the Behrens-Fisher distribution, which rejects slightly too rarely).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mt.errors import InputError
from mt.probe.questions import Budget
from mt.probe.scores.metrics import METRICS, MetricLike, weighted
from mt.probe.scores.sample import (
    Statistic,
    check_resampling,
    checked,
    predicted_class,
    replicate,
    units_of,
    whole,
)
from mt.probe.scores.scoring import Subject
from mt.stratification import Ints
from mt.types import Array, Groups

# Raised whenever the numbers of a comparison change: stored ones of another revision are computed again.
REVISION = 2
SAME = "same predictions"
CONSTANT = "same on every resample"
_EQUAL = 1e-6  # predictions closer than this count as the same: rounding of float32


@dataclass(frozen=True)
class Comparison:
    """Method a minus method b on the same draws and test cases: the mean difference over draws, its interval, and p.

    p is the two-sided p-value of no difference; p_holm is p adjusted for its family of `n_family` pairs, NaN outside a
    family.  `level` is the level of the interval, `n_resamples` the number of joint resamples behind interval and p,
    `redrawn` the number of those that were undefined at first.  `n_units` counts the test groups, or the cases if no
    groups are known; `independent` then is True, and cases are assumed independent.
    Numbers are NaN if a score is undefined; with a single group, interval and p are NaN.
    reason: why there is no interval and no p: `SAME`, or `CONSTANT` if the difference is the same on every resample.
    scaled: how many of the two rows have scaled probabilities.
    subject, budget: the table and its column, if rows of a table are compared.
    flags: what says that the test cases are few.
    """

    a: str
    b: str
    difference: float
    low: float
    high: float
    p: float
    level: float
    n_draws: int
    n_units: int
    n_resamples: int
    redrawn: int
    independent: bool
    reason: str = ""
    p_holm: float = float("nan")
    n_family: int = 0
    scaled: int = 0
    subject: Subject | None = None
    budget: Budget | None = None
    flags: tuple[str, ...] = ()

    def turned(self) -> Comparison:
        """Return the same comparison as b minus a."""
        return replace(self, a=self.b, b=self.a, difference=-self.difference, low=-self.high, high=-self.low)

    def row(self) -> dict[str, Any]:
        """Return the comparison as one flat JSON object; an undefined number is None."""
        where = {} if self.subject is None else vars(self.subject)
        budget = {} if self.budget is None else vars(self.budget)
        numbers = {name: value for name, value in vars(self).items() if name not in ("subject", "budget", "level")}
        found = {"comparison": f"{self.a} - {self.b}", **where, **budget, **numbers}
        return {name: None if value != value else value for name, value in found.items()}


@dataclass(frozen=True)
class Replicates:
    """Scores of several methods on the sample, and on joint resamples.

    `scores` is (methods, draws); `values` (n_resamples, methods, draws) are the scores on resampled test cases; `share`
    (n_resamples, draws) is the share of each draw in a resample; `tails` (n_resamples, 2) are sqrt(χ² / df) for cases
    and for draws.  dependence: the variance factor of test folds (`mt.probe.scores.within_folds`), else 1.
    first_alike: per method, the number of the first method with the same predictions; empty if all differ.
    """

    names: tuple[str, ...]
    scores: Array
    values: Array
    share: Array
    tails: Array
    greater_is_better: bool
    n_units: int
    redrawn: int
    independent: bool
    dependence: float = 1.0
    first_alike: tuple[int, ...] = ()

    def compare(self, a: str, b: str, *, level: float = 0.95) -> Comparison:
        """Return the comparison of method `a` with method `b`; the interval excludes 0 if p <= 1 - level."""
        difference = self._mean(a) - self._mean(b)
        half, p, reason = np.nan, np.nan, self._without_interval(a, b)
        if not np.isnan(difference) and self.n_units > 1 and not reason:
            deviation = np.abs(self._deviation(a, b)[0])
            half = _bound(deviation, level)
            # Differences up to rounding count as equal.
            p = (1 + int((deviation >= abs(difference) - 1e-12).sum())) / (1 + len(deviation))
        return Comparison(
            a=a,
            b=b,
            difference=difference,
            low=difference - half,
            high=difference + half,
            p=p,
            level=level,
            n_draws=self.scores.shape[1],
            n_units=self.n_units,
            n_resamples=len(self.values),
            redrawn=self.redrawn,
            independent=self.independent,
            reason=reason,
        )

    def p_above(self, a: str, b: str, bound: float) -> float:
        """Return the one-sided p-value of the hypothesis `a - b <= bound`; NaN if it is not defined.

        The difference of the same predictions is 0 for certain.  Otherwise p is at most 0.025 exactly if the lower end
        of the 95 % interval of `compare` lies above `bound`.
        """
        distance = self._mean(a) - self._mean(b) - bound
        if np.isnan(distance) or self.n_units < 2 or self._without_interval(a, b) == CONSTANT:
            return float("nan")
        deviation = np.abs(self._deviation(a, b)[0])
        two_sided = (1 + int((deviation >= abs(distance) - 1e-12).sum())) / (1 + len(deviation))
        return two_sided / 2 if distance > 0 else 1 - two_sided / 2

    def not_worse_than_best(self, *, level: float = 0.95) -> tuple[str, ...]:
        """Return the methods that are not significantly worse than the best, by max-T; the best is one of them.

        Method k stays unless max_j (mean_j - mean_k) / se_jk exceeds the `level` quantile of the same maximum over
        resamples about the observed differences.  The truly best method stays with probability `level`, however many
        methods compete (Hsu, "Multiple Comparisons", 1996, chapter 4: comparisons with the best).  Undefined methods
        do not compete.
        """
        competing = [name for name in self.names if not np.isnan(self._mean(name))]
        return tuple(name for name in competing if self._stays(name, competing, level))

    def _stays(self, name: str, competing: Sequence[str], level: float) -> bool:
        sign = 1 if self.greater_is_better else -1
        leads, lead_deviations = [], []
        for other in competing:
            lead = sign * (self._mean(other) - self._mean(name))
            deviation, error = self._deviation(other, name)
            if error > 1e-12:
                leads.append(lead / error)
                lead_deviations.append(sign * deviation / error)
            elif lead > 1e-12:
                return False
        if not leads or max(leads) <= 0:
            return True
        return max(leads) <= _bound(np.max(lead_deviations, axis=0), level)

    def _without_interval(self, a: str, b: str) -> str:
        """Return why resamples show no variance of a difference, so that it has no interval; empty if they do."""
        if self.first_alike and self.first_alike[self.names.index(a)] == self.first_alike[self.names.index(b)]:
            return SAME
        return CONSTANT if np.abs(self._deviation(a, b)[0]).max(initial=0.0) <= 1e-12 else ""

    def _mean(self, name: str) -> float:
        return float(self.scores[self.names.index(name)].mean())

    def _deviation(self, a: str, b: str) -> tuple[Array, float]:
        """Return the deviation of the difference a - b in each resample (n_resamples,), and its standard error."""
        i, j = self.names.index(a), self.names.index(b)
        differences, sample = self.values[:, i] - self.values[:, j], self.scores[i] - self.scores[j]
        inflation = _inflation(self.n_units) * float(np.sqrt(self.dependence))
        return _deviations(differences, sample, self.share, self.tails, inflation)


def replicate_scores(
    metric: MetricLike,
    y: ArrayLike,
    predictions: Mapping[str, Sequence[ArrayLike]],
    *,
    groups: Groups | None = None,
    n_resamples: int = 10_000,
    seed: int = 0,
    folds: Sequence[Array] = (),
) -> Replicates:
    """Score all methods on the same joint resamples of draws and test groups.

    y: (n,) class numbers, or (n, labels) for multilabel.  predictions: per method, one array (n,) or (n, classes) per
    draw; draw d of every method must come from the same rows.  groups: the group of each case.
    folds: if each test fold has a model of its own, the fold of each case, one array per draw.
    Raises InputError if the numbers of draws differ, or if labels and predictions do not belong together.
    """
    n_draws = {len(ps) for ps in predictions.values()}
    if len(n_draws) != 1 or 0 in n_draws:
        raise InputError(f"a paired comparison needs the same draws of every method, found {sorted(n_draws)} draws")
    labels, _ = checked(y, next(iter(predictions.values()))[0])
    unit = units_of(len(labels), groups)
    of_draw: Sequence[Array | None] = folds or [None] * next(iter(n_draws))
    check_resampling(len(labels), sum(_columns(metric, p) for ps in predictions.values() for p in ps))
    statistics = [
        [weighted(metric, *checked(y, p), unit, fold) for p, fold in zip(ps, of_draw, strict=True)]
        for ps in predictions.values()
    ]
    n_units = int(unit.max()) + 1
    scores = np.array([[statistic(whole(n_units))[0] for statistic in method] for method in statistics])
    values, redrawn = _resampled(statistics, scores, labels, unit, n_resamples=n_resamples, seed=seed)
    rng = np.random.default_rng([seed, n_resamples])
    drawn = rng.integers(0, scores.shape[1], (len(values), scores.shape[1]))
    return Replicates(
        names=tuple(predictions),
        scores=scores,
        values=values,
        share=(drawn[:, :, None] == np.arange(scores.shape[1])).mean(axis=1),
        tails=_student_tails(len(values), [n_units - 1, scores.shape[1] - 1], rng),
        greater_is_better=not isinstance(metric, str) or METRICS[metric].greater_is_better,
        n_units=n_units,
        redrawn=redrawn,
        independent=groups is None,
        dependence=_dependence(folds),
        first_alike=_first_alike(metric, list(predictions.values())),
    )


def _first_alike(metric: MetricLike, predictions: Sequence[Sequence[ArrayLike]]) -> tuple[int, ...]:
    """Return per method the number of the first method with the same predictions, as the metric sees them, or its own.

    A metric of predicted classes sees no probabilities.
    """
    of_classes = isinstance(metric, str) and METRICS[metric].of_classes
    seen = [[predicted_class(np.asarray(p)) if of_classes else np.asarray(p) for p in ps] for ps in predictions]

    def same(one: Sequence[Array], other: Sequence[Array]) -> bool:
        return all(np.allclose(p, q, rtol=0, atol=_EQUAL) for p, q in zip(one, other, strict=True))

    return tuple(next(k for k, other in enumerate(seen) if same(one, other)) for one in seen)


def _columns(metric: MetricLike, p: ArrayLike) -> int:
    """Return how many columns of scores a metric looks at one by one: a mean over classes, at each class's."""
    each = isinstance(metric, str) and METRICS[metric].mean_of
    return np.shape(p)[-1] if each else 1


def _dependence(folds: Sequence[Array]) -> float:
    """Return the variance over cases divided by that with the fitted models held fixed; above 1 for test folds."""
    if not folds:
        return 1.0
    from mt.probe.scores.within_folds import dependence

    return dependence(len(np.unique(folds[0])))


def compare(
    metric: MetricLike,
    y: ArrayLike,
    pa: Sequence[ArrayLike],
    pb: Sequence[ArrayLike],
    *,
    groups: Groups | None = None,
    n_resamples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> Comparison:
    """Return the comparison of two methods on the same draws and test cases.

    metric: a name of `METRICS`, or a function of labels and predictions.  y: (n,) class numbers, or (n, labels).
    pa, pb: one array of predictions per draw: (draws, n) or (draws, n, classes).  groups: the group of each case.
    Raises InputError if the numbers of draws differ, or if labels and predictions do not belong together.
    """
    predictions = {"a": pa, "b": pb}
    replicates = replicate_scores(metric, y, predictions, groups=groups, n_resamples=n_resamples, seed=seed)
    return replicates.compare("a", "b", level=level)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values of one family (one dataset, budget and metric), adjusted; NaN stays NaN and does not count.

    Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian Journal of Statistics 6, 1979.
    """
    p = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(len(p), np.nan)
    ascending = np.argsort(p, kind="stable")[: int((~np.isnan(p)).sum())]
    remaining = np.arange(len(ascending), 0, -1)
    adjusted[ascending] = np.minimum(1, np.maximum.accumulate(p[ascending] * remaining))
    return adjusted.tolist()


def _resampled(
    statistics: Sequence[Sequence[Statistic]], scores: Array, labels: Array, unit: Ints, *, n_resamples: int, seed: int
) -> tuple[Array, int]:
    """Return (n_resamples, methods, draws) scores on resampled cases, and how many resamples were redrawn.

    A method that is undefined on the sample is NaN throughout.  A resample that stays undefined for another method is
    omitted.
    """
    defined = ~np.isnan(scores).any(axis=1)
    resampled = [statistic for k in np.flatnonzero(defined).tolist() for statistic in statistics[k]]
    found, redrawn = replicate(resampled, labels, unit, n_resamples=n_resamples, seed=seed)
    found = found[~np.isnan(found).any(axis=1)]
    values = np.full((len(found), *scores.shape), np.nan)
    values[:, defined] = found.reshape(len(found), int(defined.sum()), scores.shape[1])
    return values, redrawn


def _deviations(differences: Array, sample: Array, share: Array, tails: Array, inflation: float) -> tuple[Array, float]:
    """Return the deviation of the mean difference over draws in each joint resample, and its standard error.

    `differences` (n_resamples, draws) are on resampled cases, `sample` (draws,) on the sample itself.  inflation: the
    factor that corrects the deviations over cases, whose resamples spread too little.
    """
    n_draws = len(sample)
    by_cases = (differences.mean(axis=1) - sample.mean()) * inflation
    by_draws = ((share - 1 / n_draws) * differences).sum(axis=1)
    spread = by_draws.std()
    over_draws = _variance_over_draws(differences, sample)
    if spread > 0:
        by_draws = by_draws * np.sqrt(over_draws) / spread
    deviations = by_cases / tails[:, 0] + by_draws / tails[:, 1]
    return deviations, float(np.sqrt(by_cases.var() + over_draws))


def _student_tails(n_resamples: int, freedom: Sequence[int], rng: np.random.Generator) -> Array:
    """Return draws of sqrt(χ²_df / df), one column per df: a normal deviation divided by it is Student's t."""
    from scipy.stats import chi2

    df = np.maximum(1, freedom)
    return np.asarray(np.sqrt(chi2.ppf(rng.random((n_resamples, len(df))), df) / df))


def _bound(values: Array, level: float) -> float:
    """Return the value that at most a share 1 - level of the resamples exceeds, counting the sample as one of them."""
    place = int(np.ceil(level * (len(values) + 1))) - 1
    return float(np.sort(values)[min(place, len(values) - 1)])


def _variance_over_draws(differences: Array, sample: Array) -> float:
    """Return σ²_draws / D: the variance over draws of their scores on the sample, minus the interaction's part.

    The interaction is the variance over resampled cases that draws do not share.
    """
    n_draws = len(sample)
    if n_draws == 1:
        return 0.0
    interaction = (differences.var(axis=0).mean() - differences.mean(axis=1).var()) / (n_draws - 1)
    return float(max(0.0, sample.var(ddof=1) / n_draws - interaction))


def _inflation(n: int) -> float:
    """Return sqrt(n / (n - 1)), the factor by which resamples of n units spread too little; 1 for a single unit."""
    return float(np.sqrt(n / (n - 1))) if n > 1 else 1.0
