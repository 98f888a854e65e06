"""Scores of predicted probabilities: scikit-learn's functions, with one place for what they leave open.

Probabilities `p` are (n,) = P(class 1) for binary, (n, classes) for multiclass and ordinal, (n, labels) for multilabel.
The predicted class is the most probable one (binary: class 1 above 1/2).  A score that is not defined on the cases at
hand is NaN: a rank metric where all cases are of one class, kappa where all grades and predictions are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mt.errors import InputError, unknown
from mt.types import HEADLINE

Array = NDArray[Any]

# Raised whenever the numbers of a metric change: part of every score's identity.
REVISION = 1
ECE_BINS = 15
SPECIFICITY = 0.95
SINGLE_LABEL = ("binary", "multiclass", "ordinal")
SEVERAL_CLASSES = ("multiclass", "ordinal")


@dataclass(frozen=True)
class Metric:
    """A score of labels and probabilities; `label` is its heading in tables."""

    name: str
    tasks: tuple[str, ...]
    function: Callable[[Array, Array], float]
    greater_is_better: bool
    label: str


def score(name: str, y: ArrayLike, p: ArrayLike) -> float:
    """Return the metric `name` of labels `y` and probabilities `p`, or NaN where it is not defined.

    Raises InputError on an unknown metric, shapes that disagree, or probabilities that are not finite.
    """
    labels, probabilities = checked(y, p)
    return float(get(name).function(labels, probabilities))


def get(name: str) -> Metric:
    """Return the metric of that name; raises InputError with the closest name where there is none."""
    if name not in METRICS:
        raise unknown("metric", name, METRICS, see="mt probe --help")
    return METRICS[name]


def metrics_for(task: str) -> tuple[str, ...]:
    """Return the names of the metrics of a task, the headline first."""
    others = [name for name, metric in METRICS.items() if task in metric.tasks and name != HEADLINE[task]]
    return (HEADLINE[task], *others)


def per_class(name: str, y: ArrayLike, p: ArrayLike) -> Array:
    """Return ROC AUC ("macro_auc", "mean_auc") or average precision ("mean_ap") of each class or label against the
    rest, NaN for those left out: absent from the cases, or held by all of them."""
    labels, probabilities = checked(y, p)
    truth = _indicator(labels, probabilities)
    one = average_precision if name == "mean_ap" else roc_auc
    return np.array([one(truth[:, k], probabilities[:, k]) for k in range(truth.shape[1])])


def left_out(y: ArrayLike, p: ArrayLike) -> list[int]:
    """Return the classes or labels that averages over classes leave out: absent from the cases, or held by all."""
    truth = _indicator(*checked(y, p))
    return [k for k in range(truth.shape[1]) if truth[:, k].min() == truth[:, k].max()]


def collapsed(y: ArrayLike, p: ArrayLike) -> bool:
    """Whether all cases get the same prediction: one class, or in multilabel one and the same set of labels."""
    labels, probabilities = checked(y, p)
    prediction = probabilities > 0.5 if labels.ndim == 2 else predicted(probabilities)
    return bool((prediction == prediction[0]).all())


def predicted(p: Array) -> Array:
    """Return the most probable class; in a tie the first."""
    return p.argmax(axis=1) if p.ndim == 2 else (p > 0.5).astype(np.int64)


def class_columns(p: Array) -> Array:
    """Return float64 probabilities with a column a class, rows summing to one exactly (they are stored in float32)."""
    columns = np.column_stack([1 - p, p]) if p.ndim == 1 else p
    return np.asarray(columns / columns.sum(axis=1, keepdims=True), dtype=np.float64)


def checked(y: ArrayLike, p: ArrayLike) -> tuple[Array, Array]:
    """Return labels as integers and probabilities as float64 after checking that they belong together."""
    labels, probabilities = np.asarray(y), np.asarray(p, dtype=np.float64)
    if len(labels) == 0 or len(labels) != len(probabilities):
        raise InputError(f"as many predictions as labels are needed: {len(labels)} labels, {len(probabilities)} rows")
    if labels.ndim == 2 and labels.shape != probabilities.shape:
        raise InputError(f"multilabel predictions have the shape {labels.shape}, found {probabilities.shape}")
    if not np.isfinite(probabilities).all():
        raise InputError("predictions are finite probabilities, found NaN or infinity")
    return labels.astype(np.int64), probabilities


def roc_auc(y: Array, p: Array) -> float:
    """Area under the ROC curve, ties counted half."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(y, p)) if _both(y) else np.nan


def average_precision(y: Array, p: Array) -> float:
    """Average precision: the precision at each recall gained, without interpolation."""
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(y, p)) if _both(y) else np.nan


def sensitivity_at_95_specificity(y: Array, p: Array) -> float:
    """The highest sensitivity of any threshold whose specificity is at least 95 %."""
    from sklearn.metrics import roc_curve

    if not _both(y):
        return np.nan
    false_positives, sensitivity, _ = roc_curve(y, p, drop_intermediate=False)
    return float(sensitivity[false_positives <= 1 - SPECIFICITY + 1e-12].max())


def accuracy(y: Array, p: Array) -> float:
    from sklearn.metrics import accuracy_score

    return float(accuracy_score(y, predicted(p)))


def balanced_accuracy(y: Array, p: Array) -> float:
    """Mean recall of the classes that the cases hold."""
    from sklearn.metrics import recall_score

    return float(recall_score(y, predicted(p), labels=np.unique(y), average="macro", zero_division=0))


def f1(y: Array, p: Array) -> float:
    """F1 of class 1; 0 where nothing is found."""
    from sklearn.metrics import f1_score

    return float(f1_score(y, predicted(p), zero_division=0)) if y.any() else np.nan


def macro_f1(y: Array, p: Array) -> float:
    """Mean F1 of the classes that occur, in truth or prediction."""
    from sklearn.metrics import f1_score

    return float(f1_score(y, predicted(p), average="macro", zero_division=0))


def macro_auc(y: Array, p: Array) -> float:
    """Mean one-versus-rest ROC AUC of the classes that the cases hold; `left_out` names the others."""
    return _mean_defined([roc_auc(y == k, p[:, k]) for k in range(p.shape[1])])


def brier(y: Array, p: Array) -> float:
    """Mean squared difference of P(class 1) and the label."""
    from sklearn.metrics import brier_score_loss

    return float(brier_score_loss(y, p, pos_label=1))


def log_loss(y: Array, p: Array) -> float:
    """Mean negative log probability of the true class, in nats; a probability of 0 counts as 2.2e-16."""
    from sklearn.metrics import log_loss as sklearn_log_loss

    columns = class_columns(p)
    return float(sklearn_log_loss(y, columns, labels=np.arange(columns.shape[1])))


def ece(y: Array, p: Array) -> float:
    """Expected calibration error of the predicted class's probability, in 15 bins of equal width over (0, 1].

    Binary counts as two classes: the confidence of a case is max(p, 1 - p).  Guo et al., "On Calibration of Modern
    Neural Networks", ICML 2017.
    """
    confidence, correct, bins = calibration(y, p)
    gap = np.bincount(bins, weights=confidence - correct, minlength=ECE_BINS)
    return float(np.abs(gap).sum() / len(y))


def calibration(y: Array, p: Array) -> tuple[Array, Array, Array]:
    """Return each case's confidence in its predicted class, whether that is right, and its bin."""
    confidence = class_columns(p).max(axis=1)
    bins = np.clip(np.ceil(confidence * ECE_BINS).astype(np.int64) - 1, 0, ECE_BINS - 1)
    return confidence, (predicted(p) == y).astype(np.float64), bins


def quadratic_kappa(y: Array, p: Array) -> float:
    """Cohen's kappa with quadratic weights over all declared grades, whether or not the cases hold them."""
    from sklearn.metrics import cohen_kappa_score

    grades = predicted(p)
    if y.min() == y.max() == grades.min() == grades.max():
        return np.nan
    return float(cohen_kappa_score(y, grades, labels=np.arange(p.shape[1]), weights="quadratic"))


def mean_auc(y: Array, p: Array) -> float:
    """Mean ROC AUC of the labels that have both classes; `left_out` names the others."""
    return _mean_defined([roc_auc(y[:, k], p[:, k]) for k in range(y.shape[1])])


def mean_ap(y: Array, p: Array) -> float:
    """Mean average precision of the labels that have both classes; `left_out` names the others."""
    return _mean_defined([average_precision(y[:, k], p[:, k]) for k in range(y.shape[1])])


def _both(y: Array) -> bool:
    return bool(y.min() != y.max())


def _mean_defined(values: list[float]) -> float:
    defined = [value for value in values if not np.isnan(value)]
    return float(np.mean(defined)) if defined else np.nan


def _indicator(y: Array, p: Array) -> Array:
    """Return (n, classes or labels) zeros and ones."""
    if y.ndim == 2:
        return y
    n_classes = 2 if p.ndim == 1 else p.shape[1]
    return np.asarray(y[:, None] == np.arange(n_classes), dtype=np.int64)


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("roc_auc", ("binary",), roc_auc, True, "ROC AUC"),
        Metric("average_precision", ("binary",), average_precision, True, "average precision"),
        Metric("quadratic_kappa", ("ordinal",), quadratic_kappa, True, "quadratic weighted kappa"),
        Metric("accuracy", SINGLE_LABEL, accuracy, True, "accuracy"),
        Metric("balanced_accuracy", SINGLE_LABEL, balanced_accuracy, True, "balanced accuracy"),
        Metric("f1", ("binary",), f1, True, "F1"),
        Metric("macro_f1", SINGLE_LABEL, macro_f1, True, "macro F1"),
        Metric(
            "sensitivity_at_95_specificity", ("binary",), sensitivity_at_95_specificity, True,
            "sensitivity at 95 % specificity",
        ),
        Metric("macro_auc", SEVERAL_CLASSES, macro_auc, True, "macro one-versus-rest ROC AUC"),
        Metric("mean_auc", ("multilabel",), mean_auc, True, "mean ROC AUC"),
        Metric("mean_ap", ("multilabel",), mean_ap, True, "mean average precision"),
        Metric("brier", ("binary",), brier, False, "Brier score"),
        Metric("log_loss", SINGLE_LABEL, log_loss, False, "log loss"),
        Metric("ece", SINGLE_LABEL, ece, False, "expected calibration error (15 bins)"),
    )
}  # fmt: skip
