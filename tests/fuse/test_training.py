"""DVME trains and chooses inside the budget: it follows the gate and obeys the rules of evaluation in every task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from mt.errors import InputError
from mt.fuse.dvme.coordinates import Directions, kept_directions
from mt.fuse.dvme.fit import DVMEOptions, fit_dvme
from mt.fuse.dvme.inputs import Inputs
from mt.fuse.dvme.logistic_starts import FoldStart, LogisticStarts
from mt.fuse.dvme.module import DVME
from mt.fuse.dvme.networks import Networks, attend, build
from mt.fuse.dvme.problem import DVMEProblem, Linear, NetworkShape, loss
from mt.fuse.dvme.recipes import RECIPES, Recipe, recipes_of
from mt.fuse.dvme.selection import MIN_ROWS, Candidate, DVMEFitter, clearly_best
from mt.fuse.dvme.training import Trainee, Training, predict, shuffled
from mt.probe.method_settings import Logistic
from mt.probe.methods.linear import CLIP
from mt.probe.protocols import DEFAULT_CS, PROTOCOLS
from mt.probe.solver.api import fit_logistic
from mt.probe.solver.basis import build_basis
from mt.system.device import pick_device
from mt.types import MISSING
from tests.fuse.gated import gated
from tests.noting import noted
from tests.probe.brief import method_of

SMALL: dict[str, Any] = {"width": 32, "heads": 4}
# Embeddings per model and labels, of the budget and of the test cases, and the model to trust on each test case.
GateSet = tuple[list[np.ndarray], np.ndarray, list[np.ndarray], np.ndarray, np.ndarray]


def _problem(
    n: int = 60,
    *,
    task: str = "binary",
    outputs: int = 1,
    groups: np.ndarray | None = None,
    dims: Sequence[int] = (6, 5),
) -> DVMEProblem:
    rng = np.random.default_rng(0)
    X = [torch.from_numpy(rng.normal(size=(n, dim)).astype(np.float32)) for dim in dims]
    scores = (X[0][:, :outputs] + X[1][:, :outputs]).numpy()
    if task == "multilabel":
        y = (scores > 0).astype(np.int64)
    else:
        y = (scores[:, 0] > 0).astype(np.int64) if outputs == 1 else scores.argmax(axis=1)
    return DVMEProblem(X, y, groups, NetworkShape(tuple(dims), outputs, task, **SMALL), max(outputs, 2), 0)


def _everything(problem: DVMEProblem) -> np.ndarray:
    return np.arange(len(problem))


def _folds(problem: DVMEProblem) -> np.ndarray:
    fold = problem.folds(_everything(problem))
    assert fold is not None
    return fold


def _fold_start(problem: DVMEProblem, start: Linear) -> FoldStart:
    none = np.zeros(0, dtype=np.int64)
    return FoldStart(_everything(problem), none, none, start)


def _trained(problem: DVMEProblem, recipe: Recipe, start: Linear) -> DVME:
    directions = Directions.of(problem.X, problem.seed)
    training = Training(problem, [Trainee(recipe, _fold_start(problem, start), recipe.epochs)], directions)
    training.run()
    return training.model(0)


@pytest.fixture(scope="module")
def gate_set() -> GateSet:
    embeddings, y, gate = gated(1400)
    fit, test = slice(0, 400), slice(400, None)
    return [X[fit] for X in embeddings], y[fit], [X[test] for X in embeddings], y[test], gate[test]


@pytest.mark.parametrize("names", [("start", "bold"), ("random-bold",)])
def test_dvme_beats_concatenation_where_a_gate_says_whom_to_trust(gate_set: GateSet, names: tuple[str, ...]) -> None:
    X, y, X_test, y_test, gate = gate_set
    concatenation = fit_dvme(X, y, task="binary", n_classes=2, options=DVMEOptions(recipes_of(["start"]), width=64))
    fitted = fit_dvme(X, y, task="binary", n_classes=2, options=DVMEOptions(recipes_of(names), width=64))
    p, received = fitted.predict(X_test)
    assert fitted.choice.epochs > 0
    assert roc_auc_score(y_test, p) > roc_auc_score(y_test, concatenation.probabilities(X_test)) + 0.05
    assert received[np.arange(len(gate)), gate].mean() > 0.8
    _, untrained = concatenation.predict(X_test)
    np.testing.assert_allclose(untrained, 0.5)  # without a step nothing follows the gate


@pytest.mark.parametrize("dims", [(6, 5), (200, 150)], ids=["features", "coordinates"])
@pytest.mark.parametrize("recipe", ["gentle", "random"])
@pytest.mark.parametrize("grouped", [False, True])
def test_labels_held_out_change_no_fold_prediction(recipe: str, grouped: bool, dims: tuple[int, ...]) -> None:
    groups = np.array([f"p{i // 2}" for i in range(60)]) if grouped else None
    problem = _problem(groups=groups, dims=dims)
    fold = _folds(problem)
    held = np.flatnonzero(fold == 1)
    y = problem.y.copy()
    y[held] = 1 - y[held]
    twin = replace(problem, y=y)
    short = [Recipe(recipe, start=RECIPES[recipe].start, epochs=3)]
    (before,), (after,) = (DVMEFitter(one).candidates(short, fold) for one in (problem, twin))
    assert before.fold_epochs[1] == after.fold_epochs[1]
    # Problems solved together differ by rounding with what their neighbours need.
    np.testing.assert_allclose(before.logits[held], after.logits[held], rtol=1e-4, atol=1e-4)
    assert np.abs(before.logits - after.logits).max() > 0.1  # other folds learn from these labels


def test_stopping_rows_are_not_trained_on() -> None:
    problem = _problem()
    fold = _folds(problem)
    for number, one in enumerate(LogisticStarts(problem).of_folds(fold)):
        assert sorted([*one.rows, *one.stopping, *one.held]) == list(range(len(problem)))
        np.testing.assert_array_equal(one.held, np.flatnonzero(fold == number))
        assert len(one.stopping)


@pytest.mark.parametrize("dims", [(6, 5), (200, 150)], ids=["features", "coordinates"])
@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
def test_company_changes_no_recipe_and_no_fold(task: str, dims: tuple[int, ...]) -> None:
    problem = _problem(task=task, outputs=1 if task == "binary" else 3, dims=dims)
    fold = _folds(problem)
    recipes = [
        Recipe("gentle", epochs=4, patience=1),
        Recipe("bold", epochs=3, input_dropout=0.1, decay=0.5),
        Recipe("random", start="random", epochs=4),
    ]
    together = DVMEFitter(problem).candidates(recipes, fold)
    for recipe, beside in zip(recipes, together, strict=True):
        (alone,) = DVMEFitter(problem).candidates([recipe], fold)
        assert alone.fold_epochs == beside.fold_epochs
        np.testing.assert_allclose(alone.logits, beside.logits, rtol=1e-4, atol=1e-5)
    fitter = DVMEFitter(problem)
    folds, steps = fitter.starts.of_folds(fold), set()
    for number, one in enumerate(folds):
        training = Training(problem, [Trainee(recipes[0], one, 4)], fitter.directions)
        steps.add(training.steps)
        (outcome,) = training.run()
        assert outcome.epoch == together[0].fold_epochs[number]
        np.testing.assert_allclose(outcome.logits, together[0].logits[one.held], rtol=1e-4, atol=1e-5)
    assert steps == {10}


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_change_no_number(threads: int) -> None:
    problem = _problem(task="multiclass", outputs=3, dims=(200, 150))
    fold, recipes = _folds(problem), [RECIPES["gentle"], RECIPES["bold"], Recipe("random", start="random", epochs=2)]
    alone, beside = (DVMEFitter(problem, threads=n).candidates(recipes, fold) for n in (1, threads))
    for one, other in zip(alone, beside, strict=True):
        assert one.fold_epochs == other.fold_epochs
        np.testing.assert_allclose(one.logits, other.logits, rtol=1e-4, atol=1e-5)


def test_what_is_dropped_of_tokens_is_the_same_for_all_networks_and_for_a_seed() -> None:
    problem = _problem()
    recipe = Recipe("one", epochs=2, dropout=0.5)
    _, start = LogisticStarts(problem).whole(_folds(problem))
    first, again = (_trained(problem, recipe, start) for _ in range(2))
    other = _trained(problem, replace(recipe, dropout=0.0), start)
    pairs = zip(first.parameters(), again.parameters(), strict=True)
    assert all(torch.equal(p, q) for p, q in pairs)
    assert not torch.equal(first.head.weight, other.head.weight)


def test_the_attention_of_networks_side_by_side_has_the_gradient_that_it_writes_out() -> None:
    parts = torch.randn(2, 3, 2, 4, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.autograd.gradcheck(attend, parts.requires_grad_())


@pytest.mark.parametrize("form", [{}, {"residual": False}, {"uniform": True}])
def test_networks_side_by_side_compute_what_the_module_computes(form: dict[str, Any]) -> None:
    shape = NetworkShape((6, 5), 3, "multiclass", **SMALL)
    models = [build(shape, Recipe("one", start="plain", **form), None, seed) for seed in range(3)]
    X = [torch.randn(3, 7, dim, generator=torch.Generator().manual_seed(dim)) for dim in shape.dims]
    found = Networks(models, torch.device("cpu")).logits(X).detach()
    for number, model in enumerate(models):
        expected = model([x[number].double() for x in X]).detach()
        torch.testing.assert_close(found[number].double(), expected, rtol=1e-4, atol=1e-5)


def test_few_rows_are_seen_in_few_directions_and_the_start_stays_exact() -> None:
    problem = _problem(task="multiclass", outputs=3, dims=(200, 150))
    directions = Directions.of(problem.X, seed=0)
    assert [None if axes is None else axes.shape[1] for axes in directions.axes] == [60, 60]
    _, start = LogisticStarts(problem).whole(_folds(problem))
    lens = directions.with_start(problem.X, start)
    recipe = RECIPES["gentle"]
    training = Training(problem, [Trainee(recipe, _fold_start(problem, start), 0)], directions)
    training.run()
    logits, _ = predict(training.model(0), problem.X)
    expected = torch.cat(list(problem.X), dim=1).double().numpy() @ start.coef.T + start.intercept
    np.testing.assert_allclose(logits.numpy(), expected, rtol=1e-4, atol=1e-4)
    for model in (0, 1):
        axes = lens.axes(model)
        assert axes is not None
        gram = axes.T @ axes * (problem.shape.dims[model] / axes.shape[1])
        torch.testing.assert_close(gram, torch.eye(len(gram), dtype=torch.float64), atol=1e-6, rtol=0)
    assert kept_directions(100, 100) == 100
    assert kept_directions(4000, 1280) == 500
    assert kept_directions(126, 1280) == 64


def test_the_choice_is_recorded_with_its_alternatives() -> None:
    choice, _ = DVMEFitter(_problem(MIN_ROWS)).fit([RECIPES["start"], Recipe("short", epochs=2)])
    kept = choice.scores["recipes"]
    assert set(kept) == {"start", "short"}
    assert len(kept["short"]["fold_epochs"]) == 5
    assert choice.recipe.name in kept


def _candidate(name: str, losses: np.ndarray) -> Candidate:
    return Candidate(RECIPES[name], [1], np.zeros((len(losses), 1)), losses)


def test_the_start_is_kept_unless_another_is_clearly_better() -> None:
    noise = np.random.default_rng(0).normal(size=100)
    noise -= noise.mean()
    start, known = _candidate("start", np.ones(100)), np.ones(100, bool)
    slightly, clearly = (_candidate("bold", 1 + noise - gain) for gain in (0.05, 0.5))
    assert clearly_best([start, slightly], known, None) is start
    assert clearly_best([start, slightly, clearly], known, None) is clearly


def test_rows_of_a_group_count_once() -> None:
    noise = np.random.default_rng(0).normal(size=100)
    once = _candidate("bold", noise).gain_over(_candidate("start", np.ones(100)), np.ones(100, bool), None)
    start, doubled = _candidate("start", np.ones(200)), _candidate("bold", np.repeat(noise, 2))
    twice = doubled.gain_over(start, np.ones(200, bool), np.repeat(np.arange(100), 2))
    np.testing.assert_allclose(twice, once)


def test_the_refit_takes_the_median_epoch_of_the_folds() -> None:
    assert Candidate(RECIPES["bold"], [1, 9, 4, 3, 20], np.zeros((1, 1)), np.zeros(1)).epochs == 4


def test_dvme_fits_without_tf32_whatever_the_process_has_set(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_float32_matmul_precision()
    seen: list[bool] = []
    watched = noted(DVMEFitter.fit, lambda *_: seen.append(torch.backends.cuda.matmul.allow_tf32))

    monkeypatch.setattr(DVMEFitter, "fit", watched)
    torch.set_float32_matmul_precision("high")
    try:
        X = np.random.default_rng(0).standard_normal((12, 4))
        fit_dvme([X, X], np.arange(12) % 2, task="binary", n_classes=2)
        assert (seen, torch.get_float32_matmul_precision()) == ([False], "high")
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("task", ["binary", "multiclass", "ordinal", "multilabel"])
def test_every_task_fits_and_gives_probabilities(task: str) -> None:
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


def test_the_loss_of_a_row_is_the_mean_over_its_known_labels() -> None:
    logits, weights = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([1.0, 2.0, 3.0, 4.0])
    y = torch.tensor([[1, 0, 1, 0], [1, MISSING, 0, MISSING], [MISSING] * 4])
    found = loss(logits, y, "multilabel", weights)
    known = [0, 2]
    alone = loss(logits[1:2, known], y[1:2, known], "multilabel", weights[known])
    plain = torch.nn.functional.binary_cross_entropy_with_logits(
        logits[:1], y[:1].float(), pos_weight=weights, reduction="none"
    )
    assert torch.equal(found[:1], plain.mean(dim=-1))
    torch.testing.assert_close(found[1:], torch.cat([alone, torch.zeros(1)]))


def test_missing_classes_never_abort() -> None:
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


def test_a_budget_too_small_for_folds_keeps_the_start() -> None:
    X = [np.eye(3, 4, dtype=np.float32)]
    choice = fit_dvme(X, np.array([0, 1, 2]), task="multiclass", n_classes=3, options=DVMEOptions(**SMALL)).choice
    assert (choice.recipe.name, choice.epochs, choice.C, choice.flags) == ("start", 0, 1.0, ("fixed_C",))


def test_with_few_rows_nothing_is_trained() -> None:
    choice, _ = DVMEFitter(_problem(MIN_ROWS - 1)).fit([RECIPES["start"], RECIPES["bold"]])
    assert (choice.recipe.name, choice.flags) == ("start", ("too_few_to_train",))


def test_a_class_that_a_fold_lacks_keeps_a_small_chance() -> None:
    problem = _problem(task="multiclass", outputs=3)
    fold = np.where(problem.y == 2, 0, 1 + np.arange(len(problem)) % 2)
    first = LogisticStarts(problem).of_folds(fold)[0].start
    assert np.isfinite(first.intercept).all()
    assert first.intercept[2] < first.intercept[:2].min() - 4
    assert (first.coef[2] == 0).all()


def test_the_start_is_concatenation_with_logistic_regression() -> None:
    problem = _problem(task="multiclass", outputs=3)
    concatenated = torch.cat(list(problem.X), dim=1).numpy()
    C, start = LogisticStarts(problem).whole(_folds(problem))
    path = fit_logistic(concatenated, problem.y, [C], task="multiclass")
    np.testing.assert_allclose(start.coef, path.coef[0], atol=1e-3 * np.abs(path.coef).max())
    model = build(problem.shape, RECIPES["start"], (torch.from_numpy(start.coef), torch.from_numpy(start.intercept)), 0)
    logits, received = predict(model, problem.X)
    expected = concatenated.astype(np.float64) @ start.coef.T + start.intercept
    np.testing.assert_allclose(logits.numpy(), expected, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(received.numpy(), 0.5)


def test_the_penalties_are_those_of_the_protocol() -> None:
    method = method_of(PROTOCOLS["default"], Logistic)
    assert method.Cs == DEFAULT_CS
    X = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    y = (X[:, 0] > 0).astype(int)
    start = DVMEOptions([RECIPES["start"]], **SMALL)
    assert fit_dvme([X], y, task="binary", n_classes=2, options=start).choice.C in method.Cs


def test_the_solver_runs_on_the_device_of_the_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    watched = noted(pick_device, lambda name, **_: asked.append(name))
    monkeypatch.setattr("mt.probe.solver.api.pick_device", watched)
    X, y = [np.random.default_rng(0).normal(size=(40, 4))], np.arange(40) % 2
    fit_dvme(X, y, task="binary", n_classes=2, options=DVMEOptions(**SMALL), device="cpu")
    assert set(asked) == {"cpu"}


def test_few_rows_are_fitted_with_one_thread_and_the_others_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    seen: list[int] = []
    monkeypatch.setattr(DVMEFitter, "fit", noted(DVMEFitter.fit, lambda *_: seen.append(torch.get_num_threads())))
    torch.set_num_threads(2)
    try:
        X, y = [np.random.default_rng(0).normal(size=(40, 4))], np.arange(40) % 2
        fit_dvme(X, y, task="binary", n_classes=2, options=DVMEOptions(**SMALL))
        assert seen == [1]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_the_basis_is_built_once(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[int] = []
    monkeypatch.setattr("mt.probe.solver.api.build_basis", noted(build_basis, lambda *_, **__: built.append(1)))
    DVMEFitter(_problem(MIN_ROWS)).fit([RECIPES["start"], Recipe("short", epochs=2)])
    assert len(built) == 1


def test_the_same_seed_gives_the_same_bits() -> None:
    rng = np.random.default_rng(1)
    X, y = [rng.normal(size=(40, 6)).astype(np.float32)], rng.integers(0, 2, 40)
    options = DVMEOptions([Recipe("short", epochs=2)], **SMALL)
    first, again = (fit_dvme(X, y, task="binary", n_classes=2, options=options).probabilities(X) for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_training_moves_away_from_a_bad_start_and_decay_pulls_back() -> None:
    problem = _problem()
    nothing = Linear(np.zeros((1, 11)), np.zeros(1))
    y = torch.from_numpy(problem.y)

    def distance(decay: float) -> float:
        recipe = Recipe("one", epochs=5, decay=decay)
        model = build(problem.shape, recipe, (torch.zeros(1, 11).double(), torch.zeros(1).double()), seed=0)
        before = float(loss(predict(model, problem.X)[0], y, "binary").mean())
        trained = _trained(problem, recipe, nothing)
        assert float(loss(predict(trained, problem.X)[0], y, "binary").mean()) < before
        pairs = zip(trained.parameters(), model.parameters(), strict=True)
        return sum(float((p.detach() - q.detach()).square().sum()) for p, q in pairs)

    assert distance(100.0) < distance(0.0)


def test_inputs_are_scaled_on_the_budget_and_clipped() -> None:
    X = np.random.default_rng(0).normal(5, [1, 3, 0.01, 0], size=(500, 4))  # the last one silent on the budget
    inputs = Inputs.learn([X])
    (Z,) = inputs.apply([X])
    np.testing.assert_allclose(Z.mean(dim=0), 0, atol=1e-5)
    np.testing.assert_allclose(Z.std(dim=0), [1, 1, 1, 0], atol=0.05)
    (far,) = inputs.apply([np.full((1, 4), 1e6)])
    assert far.min() == far.max() == CLIP


def test_batches_of_a_pass_hold_every_row_once() -> None:
    batches = shuffled(100, 32, seed=0)
    rows = np.concatenate([next(batches) for _ in range(3)])
    assert sorted(rows) == list(range(100))


def test_class_weights_raise_the_rare_class() -> None:
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


def test_wrong_names_are_said_in_one_line() -> None:
    with pytest.raises(InputError, match=r"No recipe 'bald'\. Did you mean 'bold'"):
        recipes_of(["bald"])
    with pytest.raises(InputError, match="No device 'cuda:9'"):
        fit_dvme([np.zeros((4, 2))], np.array([0, 1, 0, 1]), task="binary", n_classes=2, device="cuda:9")
