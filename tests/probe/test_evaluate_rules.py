"""The rules of evaluation: what may look at which labels, what the default protocol does, and missing classes."""

from __future__ import annotations

import dataclasses
import json
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mt.cache.catalog import Catalog
from mt.errors import FitError, InputError
from mt.probe import run
from mt.probe.budgets import draw as draws
from mt.probe.budgets.draw import draw, folds
from mt.probe.method_settings import Blend, BlendFour, Propagate
from mt.probe.methods import linear, neighbours
from mt.probe.methods.linear import CLIP, LinearProbe, Scaling
from mt.probe.protocols import PROTOCOLS, Fitted, Fitting
from mt.probe.questions import find_pairs
from mt.probe.run import fit_probe
from mt.probe.solver import api
from mt.probe.solver.api import solve_folds
from mt.probe.solver.request import LogisticRequest, get_solver
from mt.results.store import Fit
from mt.types import TASKS, LabelledRows
from tests.noting import recorded
from tests.open_stores import open_store
from tests.probe.brief import brief, changed
from tests.probe.features import embeddings_and_labels, probed, write_features, write_pair

N_CLASSES = {"binary": 2, "multiclass": 3, "ordinal": 4, "multilabel": 3}


def fit_of(cache: Path, **asked: Any) -> Fit:
    """Return the one fit that a run makes, from a database of its own."""
    scores = cache / f"{len(list(cache.glob('*.sqlite')))}.sqlite"
    study = probed(cache, scores=scores, **asked)
    (identity,) = {score.fit for score in study.scores}
    return open_store(scores).fit(identity)


def fitting_of(protocol: str = "default", task: str = "binary", solver: str = "torch") -> Fitting:
    return Fitting(brief(protocol), solver).on(task, N_CLASSES[task])


def data_of(task: str, n: int = 90, dim: int = 6) -> tuple[np.ndarray, np.ndarray]:
    return embeddings_and_labels("toy", "m1", "train", n=n, dim=dim, task=task, n_classes=N_CLASSES[task], signal=0.7)


def rewrite(cache: Path, split: str, labels: np.ndarray, **options: Any) -> None:
    """Write the same features again with other labels: the fingerprints stay, so nothing but labels differs."""
    write_features(cache, split=split, labels=labels, **options)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_the_test_splits_labels_never_influence_a_prediction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(run, "get_protocol", brief)
    write_pair(tmp_path)
    before = fit_of(tmp_path, protocol=name, fractions=[0.5], seeds=1)
    _, labels = embeddings_and_labels("toy", "m1", "test", n=80, dim=8, task="binary", n_classes=2, signal=0.7)
    rewrite(tmp_path, "test", np.random.default_rng(0).permutation(labels), n=80)
    after = fit_of(tmp_path, protocol=name, fractions=[0.5], seeds=1)
    assert after.probabilities.tobytes() == before.probabilities.tobytes()
    assert after.outcome["settings"] == before.outcome["settings"]
    assert after.cases != before.cases


@pytest.mark.parametrize("name", PROTOCOLS)
def test_labels_and_features_outside_the_draw_never_influence_a_prediction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(run, "get_protocol", brief)
    write_pair(tmp_path)
    drawn = tmp_path / "draws.json"
    before = fit_of(tmp_path, protocol=name, fractions=[0.5], seeds=1, draw_file=drawn)
    X, labels = embeddings_and_labels("toy", "m1", "train", n=120, dim=8, task="binary", n_classes=2, signal=0.7)
    outside = np.setdiff1d(np.arange(120), before.rows)
    labels[outside], X[outside] = 1 - labels[outside], X[outside] * 100
    write_features(tmp_path, labels=labels, embeddings=X)
    after = fit_of(tmp_path, protocol=name, draw_file=drawn)
    assert after.probabilities.tobytes() == before.probabilities.tobytes()
    assert after.outcome["selection"] == before.outcome["selection"]


# How far logits may move when labels that the fit does not see change, the solver, and its options.  A fit that is
# solved alone does not change by a bit.  Fits that are solved together share matrix products, whose rounding depends on
# which fits still iterate: a fit in single precision then ends elsewhere within its stopping tolerance.
SOLVED: dict[str, tuple[float, str, dict[str, Any]]] = {
    "sklearn": (0.0, "sklearn", {}),
    "torch, one at a time": (0.0, "torch", {"memory": 1}),
    "torch, one at a time, float64": (0.0, "torch", {"memory": 1, "dtype": "float64"}),
    "torch, together, tight": (1e-6, "torch", {"dtype": "float64", "tol": 1e-11}),
    "torch, together": (1e-3, "torch", {}),
}


@pytest.mark.parametrize("solved", SOLVED)
@pytest.mark.parametrize("task", TASKS)
def test_permuting_held_out_labels_leaves_a_folds_predictions_unchanged(task: str, solved: str) -> None:
    X, y = data_of(task)
    fold = folds(y, task=task, n_classes=N_CLASSES[task], seed=0)
    assert fold is not None
    held = np.flatnonzero(fold == 0)
    permuted = y.copy()
    permuted[held] = np.random.default_rng(1).permutation(y[held])
    assert (permuted != y).any()
    X = Scaling.learn(X, "standardize").apply(X)
    atol, solver, options = SOLVED[solved]
    asked: dict[str, Any] = {"task": task, "n_classes": N_CLASSES[task], "device": "cpu", "max_iter": 10_000} | options
    before, after = (
        solve_folds([LogisticRequest(X, labels, [0.1, 10.0], **asked)], [fold], get_solver(solver))[0].oof
        for labels in (y, permuted)
    )
    np.testing.assert_allclose(after[:, held], before[:, held], rtol=0, atol=atol)
    assert np.abs(after - before).max() > 0.01


@pytest.mark.parametrize("name", ["dino-knn", "thunder-knn"])
def test_permuting_held_out_labels_leaves_neighbours_unchanged(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = data_of("multiclass")
    fold = folds(y, task="multiclass", n_classes=3, seed=0)
    assert fold is not None
    monkeypatch.setattr(neighbours, "carve", lambda *_: fold)
    voted: list[np.ndarray] = []
    shares = neighbours.NeighbourProbe.shares

    def kept(*asked: Any) -> np.ndarray:
        voted.append(shares(*asked))
        return voted[-1]

    monkeypatch.setattr(neighbours.NeighbourProbe, "shares", kept)
    held = np.flatnonzero(fold == 0)
    permuted = y.copy()
    permuted[held] = (y[held] + 1) % 3
    for labels in (y, permuted):
        fit_probe(LabelledRows(X, labels), Fitting(PROTOCOLS[name]).on("multiclass", 3), seed=0)
    before, after = voted[: len(voted) // 2], voted[len(voted) // 2 :]
    np.testing.assert_array_equal(after[0], before[0])
    assert any((one != other).any() for one, other in zip(after[1:], before[1:], strict=True))


def test_scaling_is_learned_from_the_draws_rows_alone() -> None:
    X, y = data_of("binary")
    rows = np.sort(draw(y, task="binary", n_classes=2, fraction=0.3, seed=0).rows)
    fitted = fit_probe(LabelledRows(X[rows], y[rows]), fitting_of(), seed=0)
    assert isinstance(fitted.probe, LinearProbe)
    np.testing.assert_allclose(fitted.probe.scaling.mean, X[rows].astype(float).mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(fitted.probe.scaling.scale, X[rows].astype(float).std(axis=0), rtol=1e-9)


def test_a_unit_that_wakes_up_on_a_test_row_does_not_outvote_the_others() -> None:
    X, y = data_of("binary")
    X = X.copy()
    X[:, 0] = 0
    X[0, 0] = 1e-6  # all but silent on the draw
    probe = fit_probe(LabelledRows(X, y), fitting_of(), seed=0).probe
    awake = X.copy()
    awake[:, 0] = 1.0
    assert np.abs(probe.probabilities(awake) - probe.probabilities(X)).max() < 0.5
    np.testing.assert_allclose(Scaling.learn(X, "standardize").apply(awake)[:, 0], CLIP)


@pytest.mark.parametrize("task", TASKS)
def test_default_is_what_it_says_in_scikit_learn(task: str) -> None:
    X, y = data_of(task)
    fitted = fit_probe(LabelledRows(X, y), fitting_of(task=task), seed=3)
    C, p = by_hand(X, y, task, seed=3)
    assert fitted.settings["C"] == pytest.approx(C)
    np.testing.assert_allclose(fitted.probe.probabilities(X), p, atol=2e-3)


def by_hand(X: np.ndarray, y: np.ndarray, task: str, seed: int) -> tuple[float, np.ndarray]:
    """Return C and the probabilities of protocol `default`, one scikit-learn fit at a time."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.preprocessing import StandardScaler

    Z = StandardScaler().fit_transform(X.astype(float)).clip(-5, 5)
    fold = folds(y, task=task, n_classes=N_CLASSES[task], k=5, seed=seed)
    assert fold is not None

    def fitted(rows: np.ndarray, C: float) -> Any:
        model: Any = LogisticRegression(C=C, tol=1e-8, max_iter=10_000)
        return (OneVsRestClassifier(model) if task == "multilabel" else model).fit(Z[rows], y[rows])

    losses = {}
    for C in np.logspace(-3, 3, 13):
        p = np.zeros((len(y), N_CLASSES[task]))
        for number in range(fold.max() + 1):
            held = fold == number
            p[held] = fitted(~held, C).predict_proba(Z[held])
        columns = range(p.shape[1]) if task == "multilabel" else [None]
        parts = [log_loss(y if k is None else y[:, k], p if k is None else p[:, k]) for k in columns]
        losses[C] = float(np.mean(parts))
    best = min(losses, key=lambda C: losses[C])
    p = fitted(np.ones(len(y), dtype=bool), best).predict_proba(Z)
    return best, p[:, 1] if task == "binary" else p


def test_ties_go_to_the_smaller_setting() -> None:
    assert draws.best(np.array([-1.0, -0.5, -0.5, np.nan])) == 1
    assert draws.best(np.array([-1.0, -0.5, -0.5, np.nan]), ties="larger") == 2


@pytest.mark.parametrize(("name", "C"), [("dinov2-logreg", 1e-6), ("ssl-transfer", 1e6)])
def test_ties_go_as_each_origin_breaks_them(name: str, C: float) -> None:
    X, y = np.ones((60, 3), dtype=np.float32), np.arange(60) % 2  # every C says the same
    assert fit_probe(LabelledRows(X, y), fitting_of(name), seed=0).settings["C"] == pytest.approx(C)


@pytest.mark.parametrize("name", ["dinov2-logreg", "ssl-transfer"])
def test_held_out_labels_choose_among_fits_that_never_saw_them(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = data_of("multiclass")
    fold = np.where(np.arange(len(y)) % 5 == 0, 0, -1)
    monkeypatch.setattr(linear, "carves", lambda *_: [fold])
    seen: list[np.ndarray] = []
    monkeypatch.setattr(linear.ScaledBudget, "logits", recorded(linear.ScaledBudget.logits, seen))
    permuted = np.where(fold == 0, (y + 1) % 3, y)
    for labels in (y, permuted):
        fit_probe(LabelledRows(X, labels), fitting_of(name, "multiclass"), seed=0)
    assert seen[0].tobytes() == seen[1].tobytes()


def test_a_hold_out_that_would_take_all_of_a_class_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = data_of("binary")
    parts = {"fit": np.flatnonzero(y == 0), "held": np.flatnonzero(y == 1)}
    monkeypatch.setattr(draws, "stratified_split", lambda *_, **__: parts)
    fitted = fit_probe(LabelledRows(X, y), fitting_of("ssl-transfer"), seed=0)
    assert (fitted.settings, fitted.flags) == ({"C": 1.0}, ("fixed_C",))


@pytest.mark.parametrize("name", [name for name in PROTOCOLS if PROTOCOLS[name].validation.kind != "none"])
def test_a_validation_split_chooses_and_teaches_nothing(name: str) -> None:
    """With one candidate, neither the labels nor the scale of the validation split change a prediction."""
    X, y = data_of("multiclass")
    protocol = brief(name)
    one: dict[str, Any] = {"Cs": (0.1,), "ks": (3,), "learning_rates": (1e-3,), "weight_decays": (0.0,)}
    one |= {"transforms": ("none",), "shrinkages": (0.9,), "temperatures": (4.0,), "weights": (0.5,)}
    one |= {"final_temperatures": (1.0,)}
    if isinstance(protocol.method, (Blend, BlendFour, Propagate)):
        one["logistic"] = dataclasses.replace(protocol.method.logistic, Cs=(0.1,))
    known = {field.name for field in dataclasses.fields(protocol.method)}
    if "epochs" in known:
        one |= {"epochs": 1, "steps": None}
    alone = changed(name, **{key: value for key, value in one.items() if key in known})
    fitting = Fitting(alone).on("multiclass", 3)
    vals = [LabelledRows(X[:20], y[:20]), LabelledRows(X[:20] * 100 + 7, (y[:20] + 1) % 3)]
    fits = [fit_probe(LabelledRows(X, y), fitting, seed=0, validation=val) for val in vals]
    one_way, other = (fitted.probe.probabilities(X) for fitted in fits)
    assert one_way.tobytes() == other.tobytes()


def test_too_few_labels_to_hold_out_fix_C_and_say_so(tmp_path: Path) -> None:
    write_pair(tmp_path)
    study = probed(tmp_path, shots=[1], seeds=2)
    assert all(score.settings == {"C": 1.0} and "fixed_C" in score.flags for score in study.scores)
    assert not any("fixed_C" in score.flags for score in probed(tmp_path, shots=[5], seeds=1).scores)


@pytest.mark.parametrize("name", [name for name in PROTOCOLS if "multiclass" in PROTOCOLS[name].tasks])
def test_an_absent_class_gets_probability_zero(name: str) -> None:
    X, y = data_of("multiclass")
    kept = y != 1
    fitted = fit_probe(LabelledRows(X[kept], y[kept]), fitting_of(name, "multiclass"), seed=0)
    p = fitted.probe.probabilities(X)
    assert (p[:, 1] == 0).all()
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_draw_with_one_class_predicts_it(name: str) -> None:
    X, y = data_of("multiclass")
    kept = np.flatnonzero(y == 2)[:5]
    p = one_class(X, y, kept, name).probe.probabilities(X)
    assert np.array_equal(p, np.tile(np.array([0, 0, 1], np.float32), (len(X), 1)))


def one_class(X: np.ndarray, y: np.ndarray, rows: np.ndarray, name: str) -> Fitted:
    return fit_probe(LabelledRows(X[rows], y[rows]), fitting_of(name, "multiclass"), seed=0)


def test_a_constant_label_predicts_its_smoothed_base_rate() -> None:
    X, y = data_of("multilabel")
    y[:, 0], y[:, 2] = 0, 1
    p = fit_probe(LabelledRows(X, y), fitting_of(task="multilabel"), seed=0).probe.probabilities(X)
    n = len(y)
    np.testing.assert_allclose(p[:, 0], 1 / (n + 2), rtol=1e-6)
    np.testing.assert_allclose(p[:, 2], (n + 1) / (n + 2), rtol=1e-6)
    assert len(np.unique(p[:, 1])) > 1


def test_a_task_with_one_class_in_all_errors(tmp_path: Path) -> None:
    write_features(tmp_path, labels=np.zeros(120, dtype=np.int64))
    write_features(tmp_path, split="test", n=80)
    with pytest.raises(FitError, match=r"only one class.*mt datasets check"):
        probed(tmp_path, fractions=[1.0])


def test_folds_where_a_class_is_missing_do_not_drown_the_choice() -> None:
    y, fold = np.array([0, 1, 0, 1, 2, 2]), np.array([0, 0, 1, 1, 0, 0])
    known = draws.teachable(y, fold, multilabel=False)
    assert known.tolist() == [True, True, True, True, False, False]


@pytest.mark.parametrize(("fractions", "shots"), [([0.0], []), ([1.5], []), ([], [0])])
def test_impossible_budgets_are_refused(tmp_path: Path, fractions: list[float], shots: list[int]) -> None:
    write_pair(tmp_path)
    with pytest.raises(InputError, match="must be"):
        probed(tmp_path, fractions=fractions, shots=shots)


def test_a_selection_records_every_candidate_and_fold() -> None:
    X, y = data_of("binary")
    fitted = fit_probe(LabelledRows(X, y), fitting_of(), seed=0)
    assert len(fitted.selection["scores"]) == 13
    assert [len(row) for row in fitted.selection["folds"]] == [13] * 5
    json.dumps(fitted.selection, allow_nan=False)


def test_groups_of_a_draw_stay_in_one_fold() -> None:
    X, y = data_of("binary")
    groups = np.array([f"g{row // 6}" for row in range(len(y))])
    for name in ("default", "ssl-transfer", "thunder"):
        fold = draws.carve(LabelledRows(X, y, groups), fitting_of(name), seed=0)
        assert fold is not None
        assert all(len(set(fold[groups == group])) == 1 for group in set(groups))


def test_only_the_warning_that_a_flag_stands_for_is_muted(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = data_of("binary")
    fitting = fitting_of("clip")
    hasty = changed("clip", max_iter=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fit_probe(LabelledRows(X, y), dataclasses.replace(fitting, protocol=hasty), seed=0).flags == (
            "unconverged",
        )
    solve = api.solve_paths

    def warned(*asked: Any) -> Any:
        warnings.warn("something else", stacklevel=1)
        return solve(*asked)

    monkeypatch.setattr(api, "solve_paths", warned)
    with pytest.warns(UserWarning, match="something else"):
        fit_probe(LabelledRows(X, y), fitting, seed=0)


def test_features_at_other_image_sizes_that_are_superseded_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for size in (224, 64):
        write_pair(tmp_path, seen=f"at {size}", inputs={"backbone": {"image_size": size}})
        for path in tmp_path.rglob("*.h5"):
            written = path.stat().st_mtime
            os.utime(path, (written - 100, written - 100))
    find_pairs(Catalog(tmp_path))
    said = " ".join(capsys.readouterr().err.split())
    assert said.startswith("m1 on 'toy': features at 64 px are taken, the newest; those at 224 px are superseded.")
    find_pairs(Catalog(tmp_path), everything=True)
    assert not capsys.readouterr().err
