"""solve_folds fits every fold as if alone on its own rows; the refit equals fit_logistic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from scipy.special import expit

from mt.probe.solver.api import fit_logistic, solve_folds, solve_refits
from mt.probe.solver.fits import FoldedPath, LogisticPath, probabilities
from mt.probe.solver.request import ClassWeight, LogisticRequest

CS = [1e-3, 0.1, 10.0]
RNG = np.random.default_rng(0)
X = (RNG.standard_normal((150, 12)) * np.logspace(0, -1, 12)).astype(np.float32) + 1
FOLD = np.arange(150) % 5


def folded_path(X: np.ndarray, y: np.ndarray, fold: np.ndarray, Cs: Sequence[float] = CS, **options: Any) -> FoldedPath:
    return solve_folds([LogisticRequest(X, y, Cs, **options)], [fold])[0]


def refit(folded: FoldedPath, X: np.ndarray, y: np.ndarray, C: float, task: str) -> LogisticPath:
    return solve_refits([LogisticRequest(X, y, [C], task=task)], [folded])[0]


def labels(task: str) -> np.ndarray:
    rng = np.random.default_rng(1)
    logits = (X - 1) @ rng.standard_normal((12, 3)) * 2 + rng.gumbel(size=(150, 3))
    if task == "multilabel":
        return (logits > 0).astype(np.int8)
    return np.asarray(logits.argmax(1) % (2 if task == "binary" else 3))


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
@pytest.mark.parametrize("class_weight", [None, "balanced"])
def test_each_fold_is_fitted_on_its_own_rows(task: str, class_weight: ClassWeight) -> None:
    y, weight = labels(task), np.random.default_rng(2).random(150)
    folded = folded_path(X, y, FOLD, task=task, sample_weight=weight, class_weight=class_weight)
    outputs = {"binary": 1, "multiclass": 3, "multilabel": 3}[task]
    assert folded.oof.shape == (3, 150, outputs)
    assert folded.fold_converged.shape == (5, 3)
    assert folded.fold_converged.all()
    for k in range(5):
        inside, held_out = k != FOLD, k == FOLD
        alone = fit_logistic(
            X[inside], y[inside], CS, task=task, sample_weight=weight[inside], class_weight=class_weight
        )
        for c in range(3):
            found = probabilities(folded.oof[c, held_out], task)
            np.testing.assert_allclose(found, alone.predict_proba(X[held_out], c), atol=1e-3)


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
def test_the_refit_is_fit_logistic(task: str) -> None:
    y = labels(task)
    folded, alone = folded_path(X, y, FOLD, task=task), fit_logistic(X, y, CS, task=task)
    for c, C in enumerate(CS):
        again = refit(folded, X, y, C, task)
        assert again.Cs.tolist() == [C]
        np.testing.assert_allclose(again.objective, alone.objective[[c]], rtol=1e-6)
        np.testing.assert_allclose(again.predict_proba(X, 0), alone.predict_proba(X, c), atol=1e-3)


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
def test_a_fold_does_not_see_the_labels_it_predicts(task: str) -> None:
    y = labels(task)
    before = folded_path(X, y, FOLD, task=task).oof
    permuted = y.copy()
    held_out = np.flatnonzero(FOLD == 2)
    permuted[held_out] = permuted[np.roll(held_out, 7)]
    assert (permuted != y).any()
    after = folded_path(X, permuted, FOLD, task=task).oof
    np.testing.assert_allclose(after[:, held_out], before[:, held_out], atol=1e-4)
    assert np.abs(after[:, FOLD != 2] - before[:, FOLD != 2]).max() > 1e-2


def test_folds_may_be_wider_than_their_rows() -> None:
    rng = np.random.default_rng(3)
    wide = rng.standard_normal((30, 80))
    y, fold = np.arange(30) % 2, np.arange(30) // 2 % 3
    folded = folded_path(wide, y, fold, [0.1], task="binary")
    alone = fit_logistic(wide[fold != 1], y[fold != 1], [0.1], task="binary")
    np.testing.assert_allclose(folded.oof[0, fold == 1], alone.decision_function(wide[fold == 1], 0), atol=5e-3)


def test_a_label_with_one_class_in_a_folds_rows_predicts_its_smoothed_base_rate() -> None:
    y = np.column_stack([labels("binary"), np.zeros(150, dtype=int), np.zeros(150, dtype=int)])
    y[FOLD == 1, 1] = 1
    folded = folded_path(X, y, FOLD, task="multilabel")
    np.testing.assert_allclose(expit(folded.oof[:, FOLD == 1, 1]), 1 / 122, rtol=1e-5)
    np.testing.assert_allclose(expit(folded.oof[:, :, 2]), 1 / 122, rtol=1e-5)
    np.testing.assert_allclose(refit(folded, X, y, CS[0], "multilabel").predict_proba(X, 0)[:, 2], 1 / 152, rtol=1e-6)
    assert np.ptp(folded.oof[2, FOLD == 0, 1]) > 0.1
    assert refit(folded, X, y, CS[2], "multilabel").converged.all()


def test_a_class_missing_from_a_folds_rows_has_probability_zero_there() -> None:
    y = labels("multiclass")
    y[:2] = 4
    fold = FOLD.copy()
    fold[:2] = 0
    p = probabilities(folded_path(X, y, fold, task="multiclass", n_classes=5).oof[1], "multiclass")
    assert (p[:, 3] == 0).all()
    assert (p[fold == 0, 4] == 0).all()
    assert (p[fold != 0, 4] > 0).all()
    np.testing.assert_allclose(p.sum(1), 1, rtol=1e-5)


def test_a_small_memory_budget_solves_the_same_folds() -> None:
    y = labels("multiclass")
    whole = folded_path(X, y, FOLD, task="multiclass").oof
    batched = folded_path(X, y, FOLD, task="multiclass", memory=1).oof
    for c in range(3):
        np.testing.assert_allclose(
            probabilities(batched[c], "multiclass"), probabilities(whole[c], "multiclass"), atol=1e-3
        )
