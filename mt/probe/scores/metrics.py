"""The metrics: each has one implementation, which serves score, interval, resamples and comparisons alike.

The predicted class is the most probable one (binary: class 1 above 1/2).  A score that is not defined on its cases is
NaN: a rank metric if all cases are of one class, kappa if all grades and predictions are the same.

`Interval` holds the uncertainty from the test cases alone, `Spread` that from the draws alone; `with_draws` combines
them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from mt.errors import InputError, unknown
from mt.probe.scores import rank_metrics as rank
from mt.probe.scores import sample
from mt.probe.scores import sum_metrics as sums
from mt.probe.scores.calibration import MEASURES, judged
from mt.probe.scores.sample import (
    Estimate,
    Resampled,
    Rule,
    Sample,
    Statistic,
    checked,
    indicator,
    known_cases,
    refused,
    repeated,
    units_of,
    whole,
)
from mt.stratification import Ints
from mt.types import HEADLINE, SINGLE_LABEL, Array, Groups

# Raised whenever the numbers of a metric change: part of every score's identity.
REVISION = 1
SEVERAL_CLASSES = ("multiclass", "ordinal")

Function = Callable[[Array, Array], float]
MetricLike = str | Function


@dataclass(frozen=True)
class Metric:
    """A score of labels and probabilities; `label` is its heading in tables.

    Pass `function(y, p)`, or, for speed, only `resampled(y, p, unit)`: it returns the score as a function of the units'
    multiplicities, whose value with every unit once is the score itself.
    of_ranks: whether it takes any real scores, not only probabilities.  of_classes: whether it depends on the predicted
    classes alone.  mean_of: the metric of one class or label that
    it averages.  rule: how its interval is computed; None is the jackknife.  limits: the least and the greatest value
    that it can have.
    """

    name: str
    tasks: tuple[str, ...]
    function: Function | None
    greater_is_better: bool
    label: str
    resampled: Resampled | None = None
    of_ranks: bool = False
    mean_of: str | None = None
    rule: Rule | None = None
    limits: tuple[float, float] = (-math.inf, math.inf)
    of_classes: bool = False

    def over(self, y: Array, p: Array, unit: Ints) -> Statistic:
        """Return the metric as a function of the multiplicities of the units; `unit` (n,) is each case's unit number.

        Raises InputError for a metric with neither `function` nor `resampled`.
        """
        if self.resampled is not None:
            return self.resampled(y, p, unit)
        if self.function is None:
            raise InputError(f"Metric '{self.name}' needs a function, or its form on resamples")
        return repeated(self.function, y, p, unit)

    def over_folds(self, y: Array, p: Array, unit: Ints, fold: Array | None) -> Statistic:
        """Return `over`; with one model per test fold, a rank metric is computed in each fold and averaged."""
        if fold is None or not self.of_ranks:
            return self.over(y, p, unit)
        from mt.probe.scores.within_folds import mean_statistic

        if self.mean_of is None:
            return mean_statistic(self.over, y, p, unit, fold)
        one, truth = METRICS[self.mean_of].over, sample.indicator(y, p)
        parts = [
            mean_statistic(one, truth[:, k], p[:, k], unit, fold) for k in np.flatnonzero(sample.both_values(truth))
        ]
        return lambda w: np.asarray(np.mean([part(w) for part in parts], axis=0)) if parts else np.full(len(w), np.nan)

    def check(self, y: Array, p: Array) -> None:
        """Raise InputError for predictions of another task, or numbers more than 1e-6 outside [0, 1]."""
        shaped = {"multilabel"} if y.ndim == 2 else {"binary"} if p.ndim == 1 else set(SEVERAL_CLASSES)
        if not shaped & set(self.tasks):
            raise InputError(
                f"{self.label} is a metric of {' or '.join(self.tasks)} tasks: predictions of the shape {p.shape} with "
                f"labels of the shape {y.shape} belong to a {' or '.join(sorted(shaped))} task"
            )
        if not self.of_ranks and (p.min() < -1e-6 or p.max() > 1 + 1e-6):
            raise InputError(
                f"{self.label} needs probabilities from 0 to 1, found {p.min():g} to {p.max():g}: "
                "apply a sigmoid or softmax to logits first"
            )
        if not self.of_ranks and p.ndim == 2 and y.ndim == 1 and not p.any(axis=1).all():
            raise InputError(
                f"{self.label} needs probabilities that sum to 1 over the classes: those of some case are all 0"
            )

    def value(self, y: Array, p: Array) -> float:
        """Return the score of labels and probabilities that were checked before."""
        if self.function is not None:
            return float(self.function(y, p))
        return float(self.over(y, p, np.arange(len(y)))(whole(len(y)))[0])

    def interval(self, sample: Sample) -> Estimate:
        """Return the score of the sample with its interval over test cases."""
        return self.rule(sample) if self.rule else sums.jackknife(self.over, sample)


def score(name: str, y: ArrayLike, p: ArrayLike) -> float:
    """Return the metric `name` of labels `y` and probabilities `p`; NaN if it is not defined on them.

    y: (n,) class numbers, or (n, labels) zeros and ones.  p: (n,) P(class 1), (n, classes) or (n, labels).
    Raises InputError for an unknown metric, labels and predictions that do not belong together, or predictions that are
    not probabilities.
    """
    metric, (labels, probabilities) = get(name), checked(y, p)
    metric.check(labels, probabilities)
    return metric.value(labels, probabilities)


def get(name: str) -> Metric:
    """Return the metric of that name.  Raises InputError, with the closest name, if there is none."""
    if name in MEASURES or name == "calibration":
        raise InputError(
            f"'{name}' is not a score of its own: --metric ece prints intercept, slope and observed/expected ratio, "
            "each with its interval, under its table."
        )
    if name not in METRICS:
        raise unknown("metric", name, METRICS, see="mt probe --help")
    return METRICS[name]


def weighted(metric: MetricLike, y: Array, p: Array, unit: Ints, fold: Array | None = None) -> Statistic:
    """Return a metric, or any function of labels and probabilities, as a function of the units' multiplicities.

    fold: the test fold of each case, if each fold has a model of its own.

    Averages over classes run over the classes that occur in the whole sample; a resample that lacks one is NaN.
    """
    return repeated(metric, y, p, unit) if callable(metric) else get(metric).over_folds(y, p, unit, fold)


def metrics_for(task: str) -> tuple[str, ...]:
    """Return the names of the metrics of a task, the headline first."""
    others = [name for name, metric in METRICS.items() if task in metric.tasks and name != HEADLINE[task]]
    return (HEADLINE[task], *others)


def per_class(name: str, y: ArrayLike, p: ArrayLike, fold: Array | None = None) -> Array:
    """Return the scores that a mean over classes ("macro_auc", "mean_auc", "mean_ap") averages, (classes,).

    Each is of one class or label against the rest; NaN if the mean omits it: no case has it, all have it, or it is
    known for none.  Raises InputError for the predictions of a binary task.
    """
    labels, probabilities = checked(y, p)
    if probabilities.ndim == 1:
        raise InputError(f"{get(name).label} has a score per class or label: predictions have a column for each")
    one, truth = get(get(name).mean_of or name), indicator(labels, probabilities)
    known = [known_cases(column) for column in truth.T]
    if fold is not None:
        each = [
            value_of(one.name, truth[rows, k], [probabilities[rows, k]], [fold[rows]])
            if _varied(truth[rows, k])
            else np.nan
            for k, rows in enumerate(known)
        ]
        return np.array(each)
    shown = [(truth[rows, k], probabilities[rows, k]) for k, rows in enumerate(known)]
    return np.array([one.value(*pair) if len(pair[0]) else np.nan for pair in shown])


def _varied(column: Array) -> bool:
    return bool(len(column)) and bool(column.min() < column.max())


def _fast(
    name: str,
    tasks: tuple[str, ...],
    resampled: Resampled,
    rule: Rule,
    label: str,
    *,
    smaller: bool = False,
    mean_of: str | None = None,
) -> Metric:
    of_ranks = resampled in (rank.roc_auc, rank.average_precision, rank.sensitivity_at_95_specificity)
    limits = (-1.0 if rule is sums.kappa_interval else 0.0, math.inf if rule is sums.log_loss_interval else 1.0)
    of_ranks |= mean_of is not None
    of_classes = resampled in (sums.accuracy, sums.balanced_accuracy, sums.f1, sums.macro_f1, sums.quadratic_kappa)
    return Metric(name, tasks, None, not smaller, label, resampled, of_ranks, mean_of, rule, limits, of_classes)


_BINARY, _MULTILABEL = ("binary",), ("multilabel",)
METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        _fast("roc_auc", _BINARY, rank.roc_auc, rank.auc_interval, "ROC AUC"),
        _fast("average_precision", _BINARY, rank.average_precision, rank.precision_interval, "average precision"),
        _fast(
            "quadratic_kappa",
            ("ordinal",),
            sums.quadratic_kappa,
            sums.kappa_interval,
            "quadratic weighted kappa",
        ),
        _fast("accuracy", SINGLE_LABEL, sums.accuracy, sums.accuracy_interval, "accuracy"),
        _fast(
            "balanced_accuracy",
            SINGLE_LABEL,
            sums.balanced_accuracy,
            sums.balanced_accuracy_interval,
            "balanced accuracy",
        ),
        _fast("f1", _BINARY, sums.f1, sums.f1_interval, "F1"),
        _fast("macro_f1", SINGLE_LABEL, sums.macro_f1, sums.macro_f1_interval, "macro F1"),
        _fast(
            "sensitivity_at_95_specificity",
            _BINARY,
            rank.sensitivity_at_95_specificity,
            rank.sensitivity_interval,
            "sensitivity at 95 % specificity (oracle: threshold from test labels)",
        ),
        _fast(
            "macro_auc",
            SEVERAL_CLASSES,
            rank.mean_auc,
            rank.mean_auc_interval,
            "macro one-versus-rest ROC AUC",
            mean_of="roc_auc",
        ),
        _fast("mean_auc", _MULTILABEL, rank.mean_auc, rank.mean_auc_interval, "mean ROC AUC", mean_of="roc_auc"),
        _fast(
            "mean_ap",
            _MULTILABEL,
            rank.mean_precision,
            rank.mean_precision_interval,
            "mean average precision",
            mean_of="average_precision",
        ),
        _fast("brier", _BINARY, sums.brier, sums.brier_interval, "Brier score", smaller=True),
        _fast("log_loss", SINGLE_LABEL, sums.log_loss, sums.log_loss_interval, "log loss", smaller=True),
        _fast(
            "ece",
            SINGLE_LABEL,
            sums.ece,
            sums.no_interval_of_ece,
            "expected calibration error (15 bins)",
            smaller=True,
        ),
    )
}


@dataclass(frozen=True)
class Interval:
    """The interval of a score over test cases; without one, both ends are NaN and `reason` says why.

    `independent` is True if no groups were known and cases are assumed independent; `n_units` counts the groups, or the
    cases if there are no groups.
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
        """The sentence that a table prints on the interval."""
        if self.reason:
            return f"no interval: {self.reason}"
        unit = "cases, assumed independent" if self.independent else "groups of cases"
        return f"{100 * self.level:g} % interval over {self.n_units:,} test {unit} ({self.method})"


@dataclass(frozen=True)
class Spread:
    """The mean of a score over draws, and its standard deviation (n - 1 in the denominator); None at one draw."""

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
    """Return the low and high end of the interval of a metric over test cases, as tables show it.

    metric: a name of `mt.METRICS`, or "calibration_intercept", "calibration_slope" or "observed_expected".
    y: (n,) class numbers, or (n, labels) zeros and ones.  p: (n,) P(class 1), (n, classes) or (n, labels).
    groups: the patient (or slide, ...) of each case; without them cases are assumed independent.
    Raises InputError, with the reason, if the score is not defined, or has no interval that covers.
    """
    if not 0 < level < 1:
        raise InputError(f"level is between 0 and 1 (0.95 is 95 %), got {level:g}")
    labels, probabilities = judged(y, p, level) if metric in MEASURES else checked(y, p)
    if metric not in MEASURES:
        get(metric).check(labels, probabilities)
    found = over_cases(metric, labels, [probabilities], groups=groups, level=level)[1]
    if found.reason:
        name = metric if metric in MEASURES else get(metric).label
        raise InputError(f"No interval of {name}: {found.reason}")
    return found.low, found.high


def over_cases(
    metric: str,
    y: ArrayLike,
    ps: Sequence[ArrayLike],
    *,
    groups: Groups | None = None,
    level: float = 0.95,
    folds: Sequence[Array] = (),
) -> tuple[float, Interval]:
    """Return the mean of a metric over draws and its interval over test cases; `ps` holds each draw's predictions.

    folds: if each test fold has a model of its own, the fold of each case, one array per draw.
    """
    estimate, found = linearised_over_cases(metric, y, ps, groups=groups, level=level, folds=folds)
    return estimate.value, found


def linearised_over_cases(
    metric: str,
    y: ArrayLike,
    ps: Sequence[ArrayLike],
    *,
    groups: Groups | None = None,
    level: float = 0.95,
    folds: Sequence[Array] = (),
) -> tuple[Estimate, Interval]:
    """Return what `over_cases` returns, as an `Estimate` that also holds each case's influence value.

    The influence is None if the metric has none.
    """
    labels = checked(y, ps[0])[0]
    unit = units_of(len(labels), groups)
    sample = Sample(labels, tuple(checked(y, p)[1] for p in ps), unit, groups is not None, level, tuple(folds))
    value = value_of(metric, labels, sample.ps, folds)
    if np.isnan(value):
        found = refused(value, "the score is not defined on these cases")
    elif sample.n_units == 1:
        found = refused(value, "all cases are of one group")
    else:
        found = MEASURES[metric](sample) if metric in MEASURES else get(metric).interval(sample)
    # With its bias removed, an interval can just miss the value: it is extended to it.  min and max keep a first NaN.
    low, high = min(found.low, value), max(found.high, value)
    method = found.method
    if folds and method:
        low, high, method = _of_folds(metric, value, (low, high), folds, method)
    interval = Interval(low, high, level, method, groups is None, sample.n_units, found.reason)
    return replace(found, value=value), interval


def _of_folds(
    metric: str, value: float, ends: tuple[float, float], folds: Sequence[Array], method: str
) -> tuple[float, float, str]:
    """Return an interval that takes the dependence of test folds into account, and how it was computed."""
    from mt.probe.scores.within_folds import dependence, widened

    limits = METRICS[metric].limits if metric in METRICS else (-math.inf, math.inf)
    low, high = widened(value, *ends, dependence(len(np.unique(folds[0]))), limits)
    return low, high, f"{method}; widened for dependent folds"


def value_of(metric: str, y: Array, ps: Sequence[Array], folds: Sequence[Array] = ()) -> float:
    """Return the mean of a metric over draws, from checked labels and predictions; NaN if it is not defined."""
    if metric in MEASURES:
        return MEASURES[metric](Sample(y, tuple(ps), np.arange(len(y)), False, 0.95)).value
    if folds and get(metric).of_ranks:
        every, once = np.arange(len(y)), whole(len(y))
        both = zip(ps, folds, strict=True)
        return float(np.mean([get(metric).over_folds(y, p, every, fold)(once)[0] for p, fold in both]))
    return float(np.mean([get(metric).value(y, p) for p in ps]))


def with_draws(
    metric: str, values: Sequence[float], low: float, high: float, *, level: float = 0.95
) -> tuple[float, float]:
    """Return the interval of the expected score over draws and test cases, within the metric's limits.

    values: one score per draw, at least two.  low, high: the interval of their mean over test cases, at the same level.

    MOVER combines both parts of the uncertainty: the squares of the distances from the mean add up (Zou and Donner,
    Statistics in Medicine 27, 2008).  Over D draws the distance has Student's t with D - 1 degrees of freedom.
    """
    from scipy.special import stdtrit

    n_draws, mean = len(values), float(np.mean(values))
    half = float(stdtrit(n_draws - 1, (1 + level) / 2) * np.std(values, ddof=1) / np.sqrt(n_draws))
    lowest, highest = get(metric).limits
    down, up = float(np.hypot(mean - low, half)), float(np.hypot(high - mean, half))
    return max(lowest, mean - down), min(highest, mean + up)
