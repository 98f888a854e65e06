"""Draws solved together: each gets the numbers that it gets alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mt.probe import answer
from mt.probe.methods.fit import Labelled, Setting, fit_probe, fit_probes
from mt.probe.protocols.registry import PROTOCOLS
from mt.probe.run import run_probe
from mt.probe.solver import batches
from mt.probe.solver.api import folds_job, path_job, solve_jobs
from mt.probe.solver.registry import get_solver
from tests.probe.features import store_of, write_pair

CS = np.logspace(-3, 3, 7)


@pytest.fixture
def begun(monkeypatch):
    """How many draws each call of the solver's first round got."""
    begin, sizes = batches.begin, []

    def watched(each, starts, **options):
        sizes.append(len(each))
        return begin(each, starts, **options)

    monkeypatch.setattr(batches, "begin", watched)
    return sizes


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def draw(seed, *, n=60, dim=90, task="binary"):
    rng = np.random.default_rng(seed)
    X = (rng.standard_normal((n, dim)) * np.logspace(0, -2, dim) + 1).astype(np.float32)
    score = (X - 1) @ rng.standard_normal((dim, 3)) + rng.gumbel(size=(n, 3))
    y = {"binary": score[:, 0] > np.median(score[:, 0]), "multiclass": score.argmax(1), "multilabel": score > 0}[task]
    return X, y.astype(int), rng.integers(0, 3, n)


def same_path(one, other):
    for name in ("coef", "intercept", "objective", "gap", "n_iter", "converged"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
@pytest.mark.parametrize("dim", [8, 90])
def test_draws_solved_together_get_their_own_numbers(begun, task, dim):
    draws = [draw(seed, dim=dim, task=task) for seed in range(4)]
    together = solve_jobs([folds_job(X, y, CS, fold, task=task) for X, y, fold in draws])
    assert set(begun) == {4}
    refits = solve_jobs([folded.refit_job(C) for folded, C in zip(together, CS, strict=False)])
    paths = solve_jobs([path_job(X, y, CS, task=task) for X, y, _ in draws])
    assert set(begun) == {4}
    for (X, y, fold), folded, refit, path, C in zip(draws, together, refits, paths, CS, strict=False):
        alone = folds_job(X, y, CS, fold, task=task).run()
        np.testing.assert_array_equal(folded.oof, alone.oof)
        np.testing.assert_array_equal(folded.fold_converged, alone.fold_converged)
        same_path(refit, alone.refit(C))
        same_path(path, path_job(X, y, CS, task=task).run())


def test_draws_of_other_shapes_are_solved_apart(begun):
    draws = [draw(0), draw(1), draw(2, n=50), draw(3, task="multiclass")]
    tasks = ["binary", "binary", "binary", "multiclass"]
    found = solve_jobs([path_job(X, y, CS, task=task) for (X, y, _), task in zip(draws, tasks, strict=True)])
    assert sorted(begun) == [1, 1, 2]
    for path, (X, y, _), task in zip(found, draws, tasks, strict=True):
        same_path(path, path_job(X, y, CS, task=task).run())


def test_memory_decides_how_many_draws_are_solved_at_once(begun, monkeypatch):
    a_draw = len(CS) * 4 * (batches.LOGIT_COPIES * 60 + batches.WEIGHT_COPIES * 60)
    draws = [draw(seed) for seed in range(4)]
    solve_jobs([path_job(X, y, CS, task="binary", memory=2 * a_draw) for X, y, _ in draws])
    assert begun == [2, 2]
    begun.clear()
    monkeypatch.setattr(batches, "SHARED", 3 * a_draw)
    solve_jobs([path_job(X, y, CS, task="binary") for X, y, _ in draws])
    assert begun == [3, 1]


def test_a_refit_keeps_to_the_memory_of_its_folds():
    X, y, fold = draw(0)
    assert folds_job(X, y, CS, fold, task="binary", memory=12345).run().refit_job(1.0).memory == 12345


def test_refits_on_one_basis_are_those_of_each_alone(begun):
    """At C = 1e5 iterations go on after the first round, in a basis that is then rotated."""
    X, y, fold = draw(0, n=400, dim=20)
    jobs = folds_job(X, y, CS, fold, task="binary").run()
    alone = folds_job(X, y, CS, fold, task="binary").run()
    begun.clear()
    for together, C in zip(solve_jobs([jobs.refit_job(C) for C in (1e5, 1.0)]), (1e5, 1.0), strict=True):
        np.testing.assert_allclose(together.coef, alone.refit(C).coef, rtol=1e-3, atol=1e-4)
    assert set(begun) == {1}


@pytest.mark.parametrize(("classes", "together"), [(10, 2), (40, 2), (90, 1)])
def test_many_coefficients_get_their_own_numbers_too(begun, two_threads, classes, together):
    """Beyond 32,768 numbers torch adds up those of a single problem on several threads."""
    dim, n = 400, 300
    draws = []
    for seed in range(2):
        rng = np.random.default_rng(seed)
        centres, y = rng.standard_normal((classes, dim)), rng.integers(0, classes, n)
        y[:classes] = np.arange(classes)
        draws.append(((centres[y] + rng.standard_normal((n, dim))).astype(np.float32), y))
    jobs = [path_job(X, y, [1e-2], task="multiclass") for X, y in draws]
    paths = solve_jobs(jobs)
    assert begun[0] == together
    for path, job in zip(paths, jobs, strict=True):
        same_path(path, job.run())


@pytest.mark.parametrize("name", ["default", "clip", "ssl-transfer"])
def test_probes_of_several_draws_are_those_of_each_alone(name):
    draws = [(Labelled(X, y), seed) for seed, (X, y, _) in enumerate(map(draw, range(3)))]
    X = draw(5, n=6)[0]
    draws.append((Labelled(X[:3], np.array([0, 1, 1])), 3))  # too few for folds: C is fixed
    draws.append((Labelled(X[:4], np.ones(4, dtype=int)), 4))  # nothing to tell apart
    setting = Setting(PROTOCOLS[name], "binary", 2, get_solver("torch"))
    for (budget, seed), fitted in zip(draws, fit_probes(draws, setting), strict=True):
        alone = fit_probe(budget, setting, seed=seed)
        assert (fitted.settings, fitted.flags, fitted.selection) == (alone.settings, alone.flags, alone.selection)
        np.testing.assert_array_equal(fitted.probe.probabilities(X), alone.probe.probabilities(X))


def test_a_run_fits_small_draws_together(tmp_path: Path, begun, monkeypatch):
    write_pair(tmp_path)
    together = run_probe(tmp_path, fractions=[0.5], seeds=3, scores=tmp_path / "together")
    assert set(begun) == {3}
    monkeypatch.setattr(answer, "TOGETHER", 1)
    begun.clear()
    alone = run_probe(tmp_path, fractions=[0.5], seeds=3, scores=tmp_path / "alone")
    assert set(begun) == {1}
    for one, other in zip(together.scores, alone.scores, strict=True):
        fits = store_of(together).fit(one.fit), store_of(alone).fit(other.fit)
        np.testing.assert_array_equal(fits[0].probabilities, fits[1].probabilities)
        assert fits[0].outcome == fits[1].outcome
