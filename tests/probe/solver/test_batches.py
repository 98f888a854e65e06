"""Draws that are solved together get the same numbers as draws that are solved alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mt.probe import run
from mt.probe.protocols import PROTOCOLS, Fitting
from mt.probe.run import fit_probe, fit_probes
from mt.probe.solver import api
from mt.probe.solver.api import solve_folds, solve_paths, solve_refits
from mt.probe.solver.request import LogisticRequest
from mt.probe.solver.rounds import begin
from mt.types import LabelledRows
from tests.noting import noted
from tests.probe.features import probed, store_of, write_pair

CS = np.logspace(-3, 3, 7)


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows by the number of draws of each call of the solver's first round."""
    sizes: list[int] = []
    monkeypatch.setattr(api, "begin", noted(begin, lambda each, *_, **__: sizes.append(len(each))))
    return sizes


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def draw(seed: int, *, n: int = 60, dim: int = 90, task: str = "binary") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    X = (rng.standard_normal((n, dim)) * np.logspace(0, -2, dim) + 1).astype(np.float32)
    score = (X - 1) @ rng.standard_normal((dim, 3)) + rng.gumbel(size=(n, 3))
    y = {"binary": score[:, 0] > np.median(score[:, 0]), "multiclass": score.argmax(1), "multilabel": score > 0}[task]
    return X, y.astype(int), rng.integers(0, 3, n)


def same_path(one: Any, other: Any) -> None:
    for name in ("coef", "intercept", "objective", "gap", "n_iter", "converged"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
@pytest.mark.parametrize("dim", [8, 90])
def test_draws_solved_together_get_their_own_numbers(begun: list[int], task: str, dim: int) -> None:
    draws = [draw(seed, dim=dim, task=task) for seed in range(4)]
    requests, folds = [LogisticRequest(X, y, CS, task=task) for X, y, _ in draws], [fold for _, _, fold in draws]
    together = solve_folds(requests, folds)
    assert set(begun) == {4}
    refits = solve_refits([request.at(C) for request, C in zip(requests, CS, strict=False)], together)
    paths = solve_paths(requests)
    assert set(begun) == {4}
    for request, fold, folded, refit, path, C in zip(requests, folds, together, refits, paths, CS, strict=False):
        alone = solve_folds([request], [fold])
        np.testing.assert_array_equal(folded.oof, alone[0].oof)
        np.testing.assert_array_equal(folded.fold_converged, alone[0].fold_converged)
        same_path(refit, solve_refits([request.at(C)], alone)[0])
        same_path(path, solve_paths([request])[0])


def test_draws_of_other_shapes_are_solved_apart(begun: list[int]) -> None:
    draws = [draw(0), draw(1), draw(2, n=50), draw(3, task="multiclass")]
    tasks = ["binary", "binary", "binary", "multiclass"]
    requests = [LogisticRequest(X, y, CS, task=task) for (X, y, _), task in zip(draws, tasks, strict=True)]
    found = solve_paths(requests)
    assert sorted(begun) == [1, 1, 2]
    for path, request in zip(found, requests, strict=True):
        same_path(path, solve_paths([request])[0])


def test_memory_decides_how_many_draws_are_solved_at_once(begun: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    a_draw = len(CS) * 4 * (api.LOGIT_COPIES * 60 + api.WEIGHT_COPIES * 60)
    draws = [draw(seed) for seed in range(4)]
    solve_paths([LogisticRequest(X, y, CS, task="binary", memory=2 * a_draw) for X, y, _ in draws])
    assert begun == [2, 2]
    begun.clear()
    monkeypatch.setattr(api, "SHARED", 3 * a_draw)
    solve_paths([LogisticRequest(X, y, CS, task="binary") for X, y, _ in draws])
    assert begun == [3, 1]


def test_refits_on_one_basis_are_those_of_each_alone(begun: list[int]) -> None:
    """At C = 1e5 iterations continue after the first round, in a basis that is then rotated."""
    X, y, fold = draw(0, n=400, dim=20)
    request = LogisticRequest(X, y, CS, task="binary")
    [folded], alone = solve_folds([request], [fold]), solve_folds([request], [fold])
    begun.clear()
    for found, C in zip(solve_refits([request.at(C) for C in (1e5, 1.0)], [folded, folded]), (1e5, 1.0), strict=True):
        np.testing.assert_allclose(found.coef, solve_refits([request.at(C)], alone)[0].coef, rtol=1e-3, atol=1e-4)
    assert set(begun) == {1}


@pytest.mark.slow
@pytest.mark.parametrize(("classes", "together"), [(10, 2), (40, 2), (90, 1)])
def test_many_coefficients_get_their_own_numbers_too(
    begun: list[int], two_threads: None, classes: int, together: int
) -> None:
    """Beyond 32,768 numbers torch adds up those of a single problem on several threads."""
    dim, n = 400, 300
    draws = []
    for seed in range(2):
        rng = np.random.default_rng(seed)
        centres, y = rng.standard_normal((classes, dim)), rng.integers(0, classes, n)
        y[:classes] = np.arange(classes)
        draws.append(((centres[y] + rng.standard_normal((n, dim))).astype(np.float32), y))
    requests = [LogisticRequest(X, y, [1e-2], task="multiclass") for X, y in draws]
    paths = solve_paths(requests)
    assert begun[0] == together
    for path, request in zip(paths, requests, strict=True):
        same_path(path, solve_paths([request])[0])


@pytest.mark.parametrize("name", ["default", "clip", "ssl-transfer"])
def test_probes_of_several_draws_are_those_of_each_alone(name: str) -> None:
    draws = [(LabelledRows(X, y), seed) for seed, (X, y, _) in enumerate(map(draw, range(3)))]
    X = draw(5, n=6)[0]
    draws.append((LabelledRows(X[:3], np.array([0, 1, 1])), 3))  # too few for folds: C is fixed
    draws.append((LabelledRows(X[:4], np.ones(4, dtype=int)), 4))  # nothing to distinguish
    fitting = Fitting(PROTOCOLS[name]).on("binary", 2)
    for (budget, seed), fitted in zip(draws, fit_probes(draws, fitting), strict=True):
        alone = fit_probe(budget, fitting, seed=seed)
        assert (fitted.settings, fitted.flags, fitted.selection) == (alone.settings, alone.flags, alone.selection)
        np.testing.assert_array_equal(fitted.probe.probabilities(X), alone.probe.probabilities(X))


def test_a_run_fits_small_draws_together(tmp_path: Path, begun: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    write_pair(tmp_path)
    together = probed(tmp_path, fractions=[0.5], seeds=3, scores=tmp_path / "together")
    assert set(begun) == {3}
    monkeypatch.setattr(run, "TOGETHER", 1)
    begun.clear()
    alone = probed(tmp_path, fractions=[0.5], seeds=3, scores=tmp_path / "alone")
    assert set(begun) == {1}
    for one, other in zip(together.scores, alone.scores, strict=True):
        fits = store_of(together).fit(one.fit), store_of(alone).fit(other.fit)
        np.testing.assert_array_equal(fits[0].probabilities, fits[1].probabilities)
        assert fits[0].outcome == fits[1].outcome
