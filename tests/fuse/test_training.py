"""Training and choosing inside the budget: the gate, the rules of evaluation, every task."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from mt.errors import InputError
from mt.fuse.dvme.fit import DVMEOptions, fit_dvme
from mt.fuse.dvme.inputs import Inputs
from mt.fuse.dvme.problem import DVMEProblem, logistic_start
from mt.fuse.dvme.race import Candidate, FoldRows, out_of_fold
from mt.fuse.dvme.recipes import RECIPES, Recipe, recipes_of
from mt.fuse.dvme.selection import MIN_ROWS, choose_recipe, clearly_best
from mt.fuse.dvme.training import Linear, NetworkShape, StandardRows, build, loss, predict, shuffled, train
from mt.probe.methods.linear import CLIP
from tests.fuse.gated import gated

SMALL = {"width": 32, "heads": 4}


def _problem(n: int = 60, *, task: str = "binary", outputs: int = 1, groups: np.ndarray | None = None) -> DVMEProblem:
    rng = np.random.default_rng(0)
    X = [torch.from_numpy(rng.normal(size=(n, dim)).astype(np.float32)) for dim in (6, 5)]
    scores = X[0][:, :outputs] + X[1][:, :outputs]
    if task == "multilabel":
        y = (scores > 0).long()
    else:
        y = (scores[:, 0] > 0).long() if outputs == 1 else scores.argmax(dim=1)
    return DVMEProblem(StandardRows(X, y), groups, NetworkShape((6, 5), outputs, task, **SMALL), max(outputs, 2), 0)


@pytest.fixture(scope="module")
def gate_set():
    embeddings, y, gate = gated(1400)
    fit, test = slice(0, 400), slice(400, None)
    return [X[fit] for X in embeddings], y[fit], [X[test] for X in embeddings], y[test], gate[test]


@pytest.mark.parametrize("names", [("start", "bold"), ("random-bold",)])
def test_dvme_beats_concatenation_where_a_gate_says_whom_to_trust(gate_set, names):
    X, y, X_test, y_test, gate = gate_set
    concatenation = fit_dvme(X, y, task="binary", n_classes=2, options=DVMEOptions(recipes_of(["start"]), width=64))
    fitted = fit_dvme(X, y, task="binary", n_classes=2, options=DVMEOptions(recipes_of(names), width=64))
    p, received = fitted.predict(X_test)
    assert fitted.choice.epochs > 0
    assert roc_auc_score(y_test, p) > roc_auc_score(y_test, concatenation.probabilities(X_test)) + 0.05
    assert received[np.arange(len(gate)), gate].mean() > 0.8
    _, untrained = concatenation.predict(X_test)
    np.testing.assert_allclose(untrained, 0.5)  # without a step nothing follows the gate


@pytest.mark.parametrize("recipe", ["gentle", "random"])
@pytest.mark.parametrize("grouped", [False, True])
def test_labels_held_out_change_no_fold_prediction(recipe, grouped):
    groups = np.array([f"p{i // 2}" for i in range(60)]) if grouped else None
    problem = _problem(groups=groups)
    fold = problem.folds()
    held = np.flatnonzero(fold == 1)
    y = problem.rows.y.clone()
    y[held] = 1 - y[held]
    twin = DVMEProblem(StandardRows(problem.rows.X, y), groups, problem.shape, 2, 0)
    short = Recipe(recipe, start=RECIPES[recipe].start, epochs=3)
    every = np.ones(60, dtype=bool)
    (before,), (after,) = (out_of_fold(one, fold, [short], every) for one in (problem, twin))
    assert before.fold_epochs[1] == after.fold_epochs[1]
    np.testing.assert_array_equal(before.logits[held], after.logits[held])
    assert not np.array_equal(before.logits, after.logits)  # other folds learn from these labels


def test_stopping_rows_are_not_trained_on():
    problem = _problem()
    fitting = FoldRows.prepare(problem)
    assert len(fitting.inner.rows) + len(fitting.stopping) == len(problem.rows)
    kept = {tuple(row.tolist()) for row in fitting.inner.rows.X[0]}
    assert not kept & {tuple(row.tolist()) for row in fitting.stopping.X[0]}


def test_the_choice_is_recorded_with_its_alternatives():
    choice = choose_recipe(_problem(MIN_ROWS), [RECIPES["start"], Recipe("short", epochs=2)])
    kept = choice.scores["recipes"]
    assert set(kept) == {"start", "short"}
    assert len(kept["short"]["fold_epochs"]) in range(2, 6)
    assert choice.recipe.name in kept


def test_a_recipe_that_gains_nothing_in_two_folds_runs_no_further(monkeypatch):
    problem = _problem()
    ran: list[str] = []

    def run(candidate, fitting, problem, held):
        ran.append(candidate.recipe.name)
        candidate.fold_epochs.append(1)
        candidate.losses[held] = {"start": 1.0, "better": 0.9, "worse": 1.1, "first": 1.0}[candidate.recipe.name]

    monkeypatch.setattr(Candidate, "run", run)
    recipes = {name: Recipe(name, epochs=0 if name == "start" else 3) for name in ("start", "better", "worse", "first")}

    def runs(*names: str) -> list[int]:
        ran.clear()
        known = np.ones(len(problem.rows), dtype=bool)
        out_of_fold(problem, problem.folds(), [recipes[name] for name in names], known)
        return [ran.count(name) for name in names]

    assert runs("start", "better", "worse") == [5, 5, 2]
    assert runs("start", "worse") == [2, 2]  # the start alone has nothing to be compared with
    assert runs("first", "worse") == [5, 2]  # a first recipe that trains needs every fold's epoch


def _candidate(name: str, losses: np.ndarray) -> Candidate:
    return Candidate(RECIPES[name], [1], np.zeros((len(losses), 1)), losses)


def test_the_start_is_kept_unless_another_is_clearly_better():
    noise = np.random.default_rng(0).normal(size=100)
    noise -= noise.mean()
    start, known = _candidate("start", np.ones(100)), np.ones(100, bool)
    slightly, clearly = (_candidate("bold", 1 + noise - gain) for gain in (0.05, 0.5))
    assert clearly_best([start, slightly], known, None) is start
    assert clearly_best([start, slightly, clearly], known, None) is clearly


def test_rows_of_a_group_count_once():
    noise = np.random.default_rng(0).normal(size=100)
    once = _candidate("bold", noise).gain_over(_candidate("start", np.ones(100)), np.ones(100, bool), None)
    start, doubled = _candidate("start", np.ones(200)), _candidate("bold", np.repeat(noise, 2))
    twice = doubled.gain_over(start, np.ones(200, bool), np.repeat(np.arange(100), 2))
    np.testing.assert_allclose(twice, once)


def test_the_refit_takes_the_median_epoch_of_the_folds():
    assert Candidate(RECIPES["bold"], [1, 9, 4, 3, 20], np.zeros((1, 1)), np.zeros(1)).epochs == 4


@pytest.mark.parametrize("task", ["binary", "multiclass", "ordinal", "multilabel"])
def test_every_task_fits_and_gives_probabilities(task):
    rng = np.random.default_rng(1)
    X = [rng.normal(size=(60, dim)).astype(np.float32) for dim in (6, 4)]
    classes = 2 if task == "binary" else 3
    y = rng.integers(0, classes, 60) if task != "multilabel" else (rng.random((60, 3)) < 0.4).astype(np.int8)
    recipes = [RECIPES["start"], Recipe("short", epochs=2)]
    p = fit_dvme(X, y, task=task, n_classes=classes, options=DVMEOptions(recipes, "balanced", **SMALL)).probabilities(X)
    assert p.dtype == np.float32
    assert p.shape == ((60,) if task == "binary" else (60, 3))
    assert ((p >= 0) & (p <= 1)).all()
    if task in ("multiclass", "ordinal"):
        np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-5)


def test_missing_classes_never_abort():
    rng = np.random.default_rng(1)
    X = [rng.normal(size=(20, 4)).astype(np.float32)]
    small = DVMEOptions(**SMALL)
    p = fit_dvme(X, np.repeat([0, 3], 10), task="multiclass", n_classes=5, options=small).probabilities(X)
    assert (p[:, [1, 2, 4]] == 0).all()
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-5)
    alone = fit_dvme(X, np.ones(20, dtype=int), task="binary", n_classes=2, options=DVMEOptions(**SMALL))
    assert (alone.probabilities(X) == 1).all()
    labels = np.stack([np.arange(20) % 2, np.zeros(20, dtype=int)], axis=1)
    p = fit_dvme(X, labels, task="multilabel", n_classes=2, options=DVMEOptions(**SMALL)).probabilities(X)
    np.testing.assert_allclose(p[:, 1], 1 / 22, rtol=1e-5)


def test_a_budget_too_small_for_folds_keeps_the_start():
    X = [np.eye(3, 4, dtype=np.float32)]
    choice = fit_dvme(X, np.array([0, 1, 2]), task="multiclass", n_classes=3, options=DVMEOptions(**SMALL)).choice
    assert (choice.recipe.name, choice.epochs, choice.C, choice.flags) == ("start", 0, 1.0, ("fixed_C",))


def test_with_few_rows_nothing_is_trained():
    choice = choose_recipe(_problem(MIN_ROWS - 1), [RECIPES["start"], RECIPES["bold"]])
    assert (choice.recipe.name, choice.flags) == ("start", ("too_few_to_train",))


def test_a_class_that_a_fold_lacks_keeps_a_small_chance():
    problem = _problem(task="multiclass", outputs=3)
    rows = np.flatnonzero(problem.y != 2)
    start = logistic_start(problem.take(rows), 1.0)
    assert np.isfinite(start.intercept).all()
    assert start.intercept[2] < start.intercept[:2].min() - 4


def test_the_start_is_concatenation_with_logistic_regression():
    problem = _problem(task="multiclass", outputs=3)
    start = logistic_start(problem, 0.1)
    model = build(problem.shape, RECIPES["start"], start, seed=0)
    logits, received = predict(model, problem.rows.X)
    expected = problem.concatenated().astype(np.float64) @ start.coef.T + start.intercept
    np.testing.assert_allclose(logits.numpy(), expected, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(received.numpy(), 0.5)


def test_the_same_seed_gives_the_same_bits():
    rng = np.random.default_rng(1)
    X, y = [rng.normal(size=(40, 6)).astype(np.float32)], rng.integers(0, 2, 40)
    options = DVMEOptions([Recipe("short", epochs=2)], **SMALL)
    runs = [fit_dvme(X, y, task="binary", n_classes=2, options=options).probabilities(X) for _ in range(2)]
    np.testing.assert_array_equal(*runs)


def test_training_moves_away_from_a_bad_start_and_decay_pulls_back():
    problem = _problem()
    nothing = Linear(np.zeros((1, 11)), np.zeros(1))

    def distance(decay: float) -> float:
        recipe = Recipe("one", epochs=5, decay=decay)
        model = build(problem.shape, recipe, nothing, seed=0)
        began = [p.detach().clone().float() for p in model.parameters()]
        before = float(loss(predict(model, problem.rows.X)[0], problem.rows.y, "binary").mean())
        train(model, problem.rows, recipe, "binary", seed=0)
        after = float(loss(predict(model, problem.rows.X)[0], problem.rows.y, "binary").mean())
        assert after < before
        return sum(float((p.detach() - q).square().sum()) for p, q in zip(model.parameters(), began, strict=True))

    assert distance(100.0) < distance(0.0)


def test_inputs_are_scaled_on_the_budget_and_clipped():
    X = np.random.default_rng(0).normal(5, [1, 3, 0.01, 0], size=(500, 4))  # the last one silent on the budget
    inputs = Inputs.learn([X])
    (Z,) = inputs.apply([X])
    np.testing.assert_allclose(Z.mean(dim=0), 0, atol=1e-5)
    np.testing.assert_allclose(Z.std(dim=0), [1, 1, 1, 0], atol=0.05)
    (far,) = inputs.apply([np.full((1, 4), 1e6)])
    assert far.min() == far.max() == CLIP


def test_batches_of_a_pass_hold_every_row_once():
    batches = shuffled(100, 32, seed=0)
    rows = np.concatenate([next(batches) for _ in range(3)])
    assert sorted(rows) == list(range(100))


def test_class_weights_raise_the_rare_class():
    rng = np.random.default_rng(0)
    y = (rng.random(200) < 0.1).astype(int)
    X = [(rng.normal(size=(200, 3)) + y[:, None]).astype(np.float32)]
    mean = [
        fit_dvme(X, y, task="binary", n_classes=2, options=DVMEOptions([RECIPES["start"]], weight, **SMALL))
        .probabilities(X)
        .mean()
        for weight in (None, "balanced")
    ]
    assert mean[1] > mean[0] + 0.1


def test_wrong_names_are_said_in_one_line():
    with pytest.raises(InputError, match=r"No recipe 'bald'\. Did you mean 'bold'"):
        recipes_of(["bald"])
    with pytest.raises(InputError, match="No device 'cuda:9'"):
        fit_dvme([np.zeros((4, 2))], np.array([0, 1, 0, 1]), task="binary", n_classes=2, device="cuda:9")
