"""Hard problems of tall designs: single-precision Hessians take them to the optimum in fewer iterations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from mt.probe.solver import lbfgs, rounds
from mt.probe.solver.api import fit_logistic, solve_folds
from mt.probe.solver.fits import Continuation
from mt.probe.solver.request import LogisticRequest
from tests.noting import noted

CS = [1.0, 1e2, 1e4]


def rare_labels(n: int = 2_600, d: int = 600, positives: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Features with a falling spectrum and labels so rare that the classes separate."""
    rng = np.random.default_rng(0)
    X = (rng.standard_normal((n, d)) / np.arange(1, d + 1) ** 0.5).astype(np.float32)
    logits = X @ rng.standard_normal(d) + rng.gumbel(size=n)
    return X, (logits >= np.sort(logits)[-positives]).astype(int)


def test_problems_that_stay_hard_go_on_by_their_hessians(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = rare_labels()
    taken, go_on = [], rounds._continue_by_hessians

    def watched(fit: Any, some: Any, *args: Any, **options: Any) -> None:
        taken.append(len(some))
        go_on(fit, some, *args, **options)
        assert (fit.gap[some] <= options["tol"]).all()

    monkeypatch.setattr(rounds, "_continue_by_hessians", watched)
    monkeypatch.setattr(rounds, "BEFORE_HESSIANS", 1)
    found = fit_logistic(X, y, CS, task="binary")
    assert sum(taken) > 0
    best = fit_logistic(X, y, CS, task="binary", dtype="float64", tol=1e-9, max_iter=20_000)
    assert found.converged.all()
    assert (found.objective / best.objective - 1 < [1e-5, 1e-5, 1e-4]).all()
    monkeypatch.setattr(rounds, "TALL", np.inf)
    by_diagonals = fit_logistic(X, y, CS, task="binary")
    assert found.n_iter.max() < 0.75 * by_diagonals.n_iter.max()


def test_a_hessian_serves_its_path_for_as_long_as_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = rare_labels()
    Cs = np.logspace(2, 4, 6)
    late: list[int] = []
    hessians: list[int] = []
    watched = noted(rounds._continue_by_hessians, lambda fit, some, *_, **__: late.extend(some))
    monkeypatch.setattr(rounds, "_continue_by_hessians", watched)
    monkeypatch.setattr(rounds, "_hessian", noted(rounds._hessian, lambda *_: hessians.append(1)))
    monkeypatch.setattr(rounds, "BEFORE_HESSIANS", 1)
    assert fit_logistic(X, y, Cs, task="binary").converged.all()
    assert 0 < len(hessians) <= len(late) - 2


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
def test_rows_that_a_fold_leaves_out_are_left_out_of_its_products(monkeypatch: pytest.MonkeyPatch, task: str) -> None:
    rng = np.random.default_rng(3)
    X = rng.standard_normal((700, 40)).astype(np.float32)
    logits = X @ rng.standard_normal((40, 3)) + rng.gumbel(size=(700, 3))
    y = {"binary": logits[:, 0] > 0, "multiclass": logits.argmax(1), "multilabel": logits > 1}[task].astype(int)
    fold = rng.integers(0, 5, 700)
    rows, split = [], lbfgs.RowBlock.split

    def watched(batch: lbfgs.ScaledProblems) -> list[lbfgs.RowBlock]:
        blocks = split(batch)
        rows.append(sum(len(block.design) * len(block.problems) for block in blocks) / (700 * len(batch.start)))
        return blocks

    monkeypatch.setattr(lbfgs.RowBlock, "split", watched)
    request = LogisticRequest(X, y, CS, task=task)
    whole = solve_folds([request], [fold])[0].oof
    assert set(rows) == {1.0}
    rows.clear()
    monkeypatch.setattr(lbfgs, "BLOCK_ROWS", 1)
    blocks = solve_folds([request], [fold])[0].oof
    assert rows[0] == pytest.approx(0.8, abs=0.01)
    np.testing.assert_allclose(blocks, whole, rtol=0.01, atol=0.01 * np.abs(whole).max())


def test_coupled_outputs_take_fewer_iterations_on_the_axes_of_their_hessian(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    X = rng.standard_normal((1_500, 80)) / np.arange(1, 81) ** 0.5
    y = (X @ rng.standard_normal((80, 5)) + [3, 1, 0, 0, -1] + rng.gumbel(size=(1_500, 5))).argmax(1)
    on_axes = fit_logistic(X, y, [1e-2, 1.0], task="multiclass")
    monkeypatch.setattr(rounds, "COUPLED", 1)
    alone = fit_logistic(X, y, [1e-2, 1.0], task="multiclass")
    np.testing.assert_allclose(on_axes.objective, alone.objective, rtol=1e-5)
    assert on_axes.n_iter.max() < 0.7 * alone.n_iter.max()


@pytest.mark.parametrize("negligible", [0.0, 1e-3])
def test_a_hessian_leaves_out_what_weighs_next_to_nothing(negligible: float) -> None:
    rng = np.random.default_rng(1)
    Z = torch.from_numpy(rng.standard_normal((500, 420)))
    weight = torch.from_numpy(np.where(np.arange(500) < 100, 0.5 + rng.random(500), 1e-9))
    whole = Z.T @ (Z * weight[:, None])
    found = rounds._weighted_gram(Z, weight, negligible)
    assert int(torch.linalg.matrix_rank(found)) == (420 if negligible == 0 else 100)
    np.testing.assert_allclose(found, whole, atol=0.05 if negligible else 1e-10)
    np.testing.assert_array_equal(found, found.T)


def test_a_path_goes_on_straight_in_log_C_and_one_step_at_most() -> None:
    paths, otherwise = Continuation(), torch.tensor([[[7.0, 7.0]]])

    def towards(path: int, C: float) -> list[list[float]]:
        return paths.towards([path], np.array([C]), otherwise)[0].tolist()

    assert towards(0, 1.0) == [[7.0, 7.0]]
    paths.add([0, 1], np.array([1.0, 1.0]), torch.tensor([[[1.0, 2.0]], [[5.0, 5.0]]]))
    assert towards(0, 10.0) == [[1.0, 2.0]]
    paths.add([0], np.array([10.0]), torch.tensor([[[2.0, -torch.inf]]]))
    np.testing.assert_allclose(towards(0, 10**1.5), [[2.5, -1.0]])
    np.testing.assert_allclose(towards(0, 1e5), [[3.0, -2.0]])
    assert towards(1, 10.0) == [[5.0, 5.0]]
