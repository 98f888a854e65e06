"""Metrics equal scikit-learn's; rules for cases that scikit-learn does not define."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
import sklearn.metrics as reference
from numpy.typing import ArrayLike

from mt.errors import InputError
from mt.probe.scores import sum_metrics
from mt.probe.scores.comparisons import compare
from mt.probe.scores.metrics import METRICS, Metric, interval, metrics_for, per_class, score
from mt.probe.scores.sample import left_out
from mt.probe.scores.scoring import collapsed
from mt.types import HEADLINE

RNG = np.random.default_rng(0)
Y2 = RNG.integers(0, 2, 300)
P2 = np.clip(0.3 * Y2 + 0.7 * RNG.random(300), 0, 1).astype(np.float32)
Y5 = RNG.integers(0, 5, 300)
RAW5 = RNG.random((300, 5)) + 0.4 * (np.arange(5) == Y5[:, None])
P5 = (RAW5 / RAW5.sum(axis=1, keepdims=True)).astype(np.float32)
YL = (RNG.random((300, 3)) < [0.5, 0.2, 0.1]).astype(int)
PL = RNG.random((300, 3))
C2, C5 = (P2 > 0.5).astype(int), P5.argmax(axis=1)


def _sensitivity(y: np.ndarray, p: np.ndarray) -> float:
    """By trying every threshold."""
    found = [
        ((p >= t) & (y == 1)).sum() / (y == 1).sum() for t in p if ((p < t) & (y == 0)).sum() >= 0.95 * (y == 0).sum()
    ]
    return float(max(found, default=0.0))


def _ece(confidence: np.ndarray, correct: np.ndarray) -> float:
    """As Guo et al. write it, bin by bin."""
    edges = np.linspace(0, 1, 16)
    total = 0.0
    for low, high in pairwise(edges):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            total += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    return total


P5_64 = P5.astype(np.float64) / P5.astype(np.float64).sum(axis=1, keepdims=True)
BINARY = {
    "roc_auc": reference.roc_auc_score(Y2, P2),
    "average_precision": reference.average_precision_score(Y2, P2),
    "accuracy": reference.accuracy_score(Y2, C2),
    "balanced_accuracy": reference.balanced_accuracy_score(Y2, C2),
    "f1": reference.f1_score(Y2, C2),
    "macro_f1": reference.f1_score(Y2, C2, average="macro"),
    "sensitivity_at_95_specificity": _sensitivity(Y2, P2),
    "brier": reference.brier_score_loss(Y2, P2),
    "log_loss": reference.log_loss(Y2, P2.astype(np.float64)),
    "ece": _ece(np.maximum(P2, 1 - P2), C2 == Y2),
}
SEVERAL = {
    "accuracy": reference.accuracy_score(Y5, C5),
    "balanced_accuracy": reference.balanced_accuracy_score(Y5, C5),
    "macro_f1": reference.f1_score(Y5, C5, average="macro"),
    "macro_auc": reference.roc_auc_score(Y5, P5_64, multi_class="ovr", average="macro"),
    "log_loss": reference.log_loss(Y5, P5_64),
    "ece": _ece(P5_64.max(axis=1), C5 == Y5),
    "quadratic_kappa": reference.cohen_kappa_score(Y5, C5, weights="quadratic"),
}
SEVERAL_LABELS = {
    "mean_auc": reference.roc_auc_score(YL, PL, average="macro"),
    "mean_ap": reference.average_precision_score(YL, PL, average="macro"),
}
CASES = {
    "binary": (Y2, P2, BINARY),
    "multiclass": (Y5, P5, {k: v for k, v in SEVERAL.items() if k != "quadratic_kappa"}),
    "ordinal": (Y5, P5, SEVERAL),
    "multilabel": (YL, PL, SEVERAL_LABELS),
}


@pytest.mark.parametrize("task", CASES)
def test_every_metric_of_a_task_equals_scikit_learns(task: str) -> None:
    y, p, expected = CASES[task]
    assert set(metrics_for(task)) == set(expected)
    assert metrics_for(task)[0] == HEADLINE[task]
    for name in metrics_for(task):
        assert score(name, y, p) == pytest.approx(expected[name], abs=1e-6), name


def test_better_predictions_score_better_by_every_metric() -> None:
    for task, (y, p, _) in CASES.items():
        perfect = y.astype(float) if y.ndim == 2 or p.ndim == 1 else np.eye(5)[y]
        for name in metrics_for(task):
            assert (score(name, y, perfect) > score(name, y, p)) == METRICS[name].greater_is_better, name


def test_kappa_counts_every_declared_grade() -> None:
    y = np.array([0, 0, 1, 2, 4, 4, 1, 0, 2, 4])
    grades = np.array([0, 1, 1, 2, 4, 2, 1, 0, 4, 4])
    declared = reference.cohen_kappa_score(y, grades, labels=range(5), weights="quadratic")
    dropped = reference.cohen_kappa_score(y, grades, weights="quadratic")
    assert score("quadratic_kappa", y, np.eye(5)[grades]) == pytest.approx(declared)
    assert abs(declared - dropped) > 0.01


def test_ece_has_15_bins_and_binary_counts_as_two_classes() -> None:
    assert sum_metrics.ECE_BINS == 15
    assert score("ece", Y2, P2) == pytest.approx(score("ece", Y2, np.column_stack([1 - P2, P2])), abs=1e-9)
    assert score("ece", [1, 1, 0, 0], [0.9, 0.9, 0.1, 0.1]) == pytest.approx(0.1)
    # 0.6 and 0.65 lie in the bins (9/15, 10/15] and below: their errors do not cancel with 0.7's.
    assert score("ece", [1, 0], [0.65, 0.7]) == pytest.approx((0.35 + 0.7) / 2)


def test_classes_absent_from_the_cases_are_left_out_by_name() -> None:
    kept = Y5 != 3
    y, p = Y5[kept], P5[kept]
    assert left_out(y, p) == [3]
    auc = per_class("macro_auc", y, p)
    assert np.flatnonzero(np.isnan(auc)).tolist() == [3]
    assert score("macro_auc", y, p) == pytest.approx(
        np.mean([reference.roc_auc_score(y == k, p[:, k]) for k in (0, 1, 2, 4)])
    )


def test_labels_with_one_class_are_left_out_by_name() -> None:
    y = np.column_stack([YL, np.zeros(300, dtype=int), np.ones(300, dtype=int)])
    p = np.column_stack([PL, PL[:, :2]])
    assert left_out(y, p) == [3, 4]
    for mean, one in (("mean_auc", reference.roc_auc_score), ("mean_ap", reference.average_precision_score)):
        assert score(mean, y, p) == pytest.approx(score(mean, YL, PL))
        np.testing.assert_allclose(per_class(mean, y, p)[:3], [one(YL[:, k], PL[:, k]) for k in range(3)])
    assert np.isnan(score("mean_auc", y[:, 3:], p[:, 3:]))


def test_a_label_predicted_at_its_base_rate_stays_in_the_mean() -> None:
    p = np.column_stack([PL[:, :2], np.full(300, 0.1)])
    assert per_class("mean_auc", YL, p)[2] == 0.5
    assert left_out(YL, p) == []


@pytest.mark.parametrize("name", ["roc_auc", "average_precision", "sensitivity_at_95_specificity"])
@pytest.mark.parametrize("only", [0, 1])
def test_rank_metrics_of_one_class_are_undefined(name: str, only: int) -> None:
    assert np.isnan(score(name, np.full(5, only), np.linspace(0, 1, 5)))


def test_an_absent_class_predicted_0_leaves_every_metric_defined() -> None:
    p = P5.copy()
    p[:, 2] = 0
    assert all(np.isfinite(score(name, Y5, p)) for name in metrics_for("ordinal"))


def test_predictions_that_collapse_to_one_class_are_flagged() -> None:
    assert collapsed(Y2, np.full(300, 0.4))
    assert collapsed(Y2, 0.5 * P2)
    assert not collapsed(Y2, P2)
    assert collapsed(Y5, np.tile(P5[0], (300, 1)))
    assert not collapsed(Y5, P5)
    assert collapsed(YL, 0.5 * PL)
    assert not collapsed(YL, PL)


def test_what_cannot_be_scored_is_said() -> None:
    with pytest.raises(InputError, match="Did you mean 'roc_auc'"):
        score("roc_acu", Y2, P2)
    with pytest.raises(InputError, match="300 labels, 299 rows"):
        score("roc_auc", Y2, P2[1:])
    with pytest.raises(InputError, match="shape"):
        score("mean_auc", YL, PL[:, :2])
    with pytest.raises(InputError, match="finite"):
        score("roc_auc", Y2, np.where(np.arange(300) == 7, np.nan, P2))


def test_importing_the_metrics_imports_no_heavy_library() -> None:
    heavy = ["sklearn", "torch", "scipy", "pandas", "h5py"]
    modules = ["scores.metrics", "scores.comparisons", "budgets.draw"]
    code = f"import sys, {', '.join(f'mt.probe.{m}' for m in modules)}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 2, 2], "class numbers 0 to 1 of these predictions, found 2"),
        ([0, 1, -1], "found -1"),
        ([0, 0.5, 1], "found 0.5"),
        ([0, np.nan, 1], "1 label is NaN"),
        (["a", "b", "a"], "class numbers 0 to 1, found"),
    ],
)
def test_labels_that_are_no_class_numbers_are_refused(labels: ArrayLike, message: str) -> None:
    with pytest.raises(InputError, match=message):
        score("roc_auc", labels, [0.1, 0.5, 0.9])


@pytest.mark.parametrize("labels", [[True, False, True], [1.0, 0.0, 1.0], np.array([1, 0, 1], dtype=np.int8)])
def test_labels_of_any_number_type_are_accepted(labels: ArrayLike) -> None:
    assert score("roc_auc", labels, [0.9, 0.1, 0.8]) == 1


def test_logits_are_refused_where_probabilities_are_needed() -> None:
    assert score("roc_auc", [0, 1, 1], [-3, 2, 4]) == 1
    with pytest.raises(InputError, match="Brier score needs probabilities from 0 to 1, found -3 to 4"):
        score("brier", [0, 1, 1], [-3, 2, 4])


def _youden(y: np.ndarray, p: np.ndarray) -> float:
    return float((p > 0.5)[y == 1].mean() - (p > 0.5)[y == 0].mean()) if 0 < y.mean() < 1 else np.nan


def test_a_metric_that_is_registered_works_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METRICS, "youden", Metric("youden", ("binary",), _youden, True, "Youden's J"))
    assert "youden" in metrics_for("binary")
    assert score("youden", Y2, P2) == pytest.approx(_youden(Y2, P2))
    low, high = interval("youden", Y2, P2)
    assert low < _youden(Y2, P2) < high
    assert compare("youden", Y2, [P2], [P2[::-1]], n_resamples=100).difference > 0.1


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_has_one_implementation(name: str) -> None:
    assert (METRICS[name].function is None) != (METRICS[name].resampled is None)
