"""The metrics: each has one implementation, which serves the score, its resamples and comparisons alike.

The predicted class is the most probable one (binary: class 1 above 1/2).  A score that is not defined on the cases at
hand is NaN: a rank metric where all cases are of one class, kappa where all grades and predictions are the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mt.errors import InputError, unknown
from mt.probe.scores import rank_metrics as rank
from mt.probe.scores import sum_metrics as sums
from mt.probe.scores.bootstrap import Resampled, Statistic, repeated, whole
from mt.probe.scores.predictions import checked, indicator, known_cases
from mt.probe.scores.rules import loss_rules, rank_rules, share_rules
from mt.probe.scores.rules.sample import Rule
from mt.stratification import Ints
from mt.types import HEADLINE, SINGLE_LABEL, Array

# Raised whenever the numbers of a metric change: part of every score's identity.
REVISION = 1
SEVERAL_CLASSES = ("multiclass", "ordinal")

Function = Callable[[Array, Array], float]
MetricLike = str | Function


@dataclass(frozen=True)
class Metric:
    """A score of labels and probabilities; `label` is its heading in tables.

    Give `function`, or for speed its form on resamples alone: `resampled(y, p, unit)` returns the score as a function
    of the units' multiplicities, and the score itself is its value where every unit occurs once.
    of_ranks: whether any real scores will do, not only probabilities.  mean_of: the metric of one class that it
    averages over classes or labels.  rule: how its interval is computed, by default with the jackknife.  limits: the
    least and the greatest value that it can have.
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

    def over(self, y: Array, p: Array, unit: Ints) -> Statistic:
        """Return the metric as a function of the multiplicities of the units; `unit` (n,) numbers each case's."""
        if self.resampled is not None:
            return self.resampled(y, p, unit)
        if self.function is None:
            raise InputError(f"Metric '{self.name}' needs a function, or its form on resamples")
        return repeated(self.function, y, p, unit)

    def check(self, y: Array, p: Array) -> None:
        """Raise InputError for predictions of another task, or numbers outside [0, 1] (rounding to 1e-6 apart)."""
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

    def value(self, y: Array, p: Array) -> float:
        """Return the score of checked labels and probabilities."""
        if self.function is not None:
            return float(self.function(y, p))
        return float(self.over(y, p, np.arange(len(y)))(whole(len(y)))[0])


def score(name: str, y: ArrayLike, p: ArrayLike) -> float:
    """Return the metric `name` of labels `y` and probabilities `p`, or NaN where it is not defined.

    Raises InputError on an unknown metric, labels and predictions that do not belong together, or predictions that are
    not probabilities.
    """
    metric, (labels, probabilities) = get(name), checked(y, p)
    metric.check(labels, probabilities)
    return metric.value(labels, probabilities)


def get(name: str) -> Metric:
    """Return the metric of that name; raises InputError with the closest name where there is none."""
    if name not in METRICS:
        raise unknown("metric", name, METRICS, see="mt probe --help")
    return METRICS[name]


def weighted(metric: MetricLike, y: Array, p: Array, unit: Ints) -> Statistic:
    """Return a metric, or any function of labels and probabilities, as a function of the units' multiplicities.

    Averages over classes hold the classes that all cases together hold; a resample that lacks one is undefined (NaN).
    """
    return repeated(metric, y, p, unit) if callable(metric) else get(metric).over(y, p, unit)


def metrics_for(task: str) -> tuple[str, ...]:
    """Return the names of the metrics of a task, the headline first."""
    others = [name for name, metric in METRICS.items() if task in metric.tasks and name != HEADLINE[task]]
    return (HEADLINE[task], *others)


def per_class(name: str, y: ArrayLike, p: ArrayLike) -> Array:
    """Return what a mean over classes ("macro_auc", "mean_auc", "mean_ap") averages: the score of each class or label
    against the rest, NaN for those omitted (absent from the cases, or held by all of them, or known of none)."""
    labels, probabilities = checked(y, p)
    one, truth = get(get(name).mean_of or name), indicator(labels, probabilities)
    known = [known_cases(column) for column in truth.T]
    shown = [(truth[rows, k], probabilities[rows, k]) for k, rows in enumerate(known)]
    return np.array([one.value(*pair) if len(pair[0]) else np.nan for pair in shown])


def _fast(
    name: str, tasks: tuple[str, ...], resampled: Resampled, rule: Rule, label: str, *, smaller: bool = False,
    mean_of: str | None = None,
) -> Metric:  # fmt: skip
    of_ranks = resampled in (rank.roc_auc, rank.average_precision, rank.sensitivity_at_95_specificity)
    limits = (-1.0 if rule is loss_rules.quadratic_kappa else 0.0, math.inf if rule is loss_rules.log_loss else 1.0)
    of_ranks |= mean_of is not None
    return Metric(name, tasks, None, not smaller, label, resampled, of_ranks, mean_of, rule, limits)


_BINARY, _MULTILABEL = ("binary",), ("multilabel",)
_MEAN_AUC, _MEAN_AP = rank.mean_over_classes(rank.roc_auc), rank.mean_over_classes(rank.average_precision)
METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        _fast("roc_auc", _BINARY, rank.roc_auc, rank_rules.auc, "ROC AUC"),
        _fast("average_precision", _BINARY, rank.average_precision, rank_rules.average_precision, "average precision"),
        _fast(
            "quadratic_kappa", ("ordinal",), sums.quadratic_kappa, loss_rules.quadratic_kappa,
            "quadratic weighted kappa",
        ),
        _fast("accuracy", SINGLE_LABEL, sums.accuracy, share_rules.accuracy, "accuracy"),
        _fast(
            "balanced_accuracy", SINGLE_LABEL, sums.balanced_accuracy, share_rules.balanced_accuracy,
            "balanced accuracy",
        ),
        _fast("f1", _BINARY, sums.f1, share_rules.f1, "F1"),
        _fast("macro_f1", SINGLE_LABEL, sums.macro_f1, share_rules.macro_f1, "macro F1"),
        _fast(
            "sensitivity_at_95_specificity", _BINARY, rank.sensitivity_at_95_specificity,
            rank_rules.sensitivity_at_95_specificity, "sensitivity at 95 % specificity",
        ),
        _fast(
            "macro_auc", SEVERAL_CLASSES, _MEAN_AUC, rank_rules.mean_auc, "macro one-versus-rest ROC AUC",
            mean_of="roc_auc",
        ),
        _fast("mean_auc", _MULTILABEL, _MEAN_AUC, rank_rules.mean_auc, "mean ROC AUC", mean_of="roc_auc"),
        _fast(
            "mean_ap", _MULTILABEL, _MEAN_AP, rank_rules.mean_precision, "mean average precision",
            mean_of="average_precision",
        ),
        _fast("brier", _BINARY, sums.brier, loss_rules.brier, "Brier score", smaller=True),
        _fast("log_loss", SINGLE_LABEL, sums.log_loss, loss_rules.log_loss, "log loss", smaller=True),
        _fast(
            "ece", SINGLE_LABEL, sums.ece, loss_rules.no_interval_of_ece, "expected calibration error (15 bins)",
            smaller=True,
        ),
    )
}  # fmt: skip
