"""Blend over all models as a start of DVME: exact, chosen inside the budget, beside networks, saved."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mt.cache.catalog import Catalog
from mt.fuse import FuseRequest, run_fuse
from mt.fuse.aligned import AlignedFeatures, join_pairs
from mt.fuse.blend_start import BlendStart
from mt.fuse.dvme import fit
from mt.fuse.dvme.fit import DVMEOptions, FittedDVME, fit_dvme
from mt.fuse.dvme.recipes import BLEND, CHOICES, RECIPES, recipes_of
from mt.fuse.dvme.selection import SHARES, Candidate, beside_blend
from mt.predict.load import load_model
from mt.probe.protocols import Fitting, get_protocol
from mt.probe.questions import find_pairs
from mt.probe.run import fit_probe
from mt.results.store import ScoreStore
from mt.types import LabelledRows
from tests.fuse.gated import gated_classes
from tests.probe.features import write_features
from tests.probe.methods.test_blend import data

STARTS = DVMEOptions(recipes_of(["start", "blend"]), width=32, heads=4)


def two_models(n: int = 90) -> tuple[list[np.ndarray], np.ndarray]:
    X, y = data(n)
    return [X[:, :5], X[:, 5:]], y


def fitted(X: list[np.ndarray], y: np.ndarray, options: DVMEOptions = STARTS, groups: object = None) -> FittedDVME:
    return fit_dvme(X, y, task="multiclass", n_classes=3, options=options, groups=groups)  # type: ignore[arg-type]


def test_the_start_is_blend_to_the_last_bit() -> None:
    X, y = two_models()
    one = fitted(X, y)
    assert (one.choice.recipe, one.choice.share, one.choice.epochs) == (BLEND, 0.0, 0)
    fitting = Fitting(get_protocol("blend-four"), widths=(5, 7)).on("multiclass", 3)
    alone = fit_probe(LabelledRows(np.concatenate(X, axis=1), y), fitting, seed=0).probe
    fresh, _ = two_models(150)
    p, received = one.predict(fresh)
    np.testing.assert_array_equal(p, alone.probabilities(np.concatenate(fresh, axis=1)))
    np.testing.assert_allclose(received, 0.5)


def test_the_start_with_the_lower_out_of_fold_log_loss_is_taken() -> None:
    one = fitted(*two_models())
    losses = {name: kept["log_loss"] for name, kept in one.choice.scores["recipes"].items()}
    assert set(losses) == {"start", "blend"}
    assert losses["blend"] < losses["start"]
    rng = np.random.default_rng(0)
    X = [rng.normal(size=(90, 4)).astype(np.float32) for _ in range(2)]
    scores = np.column_stack([X[0][:, 0], X[1][:, 0], np.zeros(90)])
    linear = fitted(X, (6 * scores).argmax(axis=1))
    losses = {name: kept["log_loss"] for name, kept in linear.choice.scores["recipes"].items()}
    assert linear.choice.recipe.name == min(losses, key=losses.__getitem__)


@pytest.mark.parametrize("grouped", [False, True])
def test_labels_held_out_change_no_prediction_of_their_fold(grouped: bool) -> None:
    X, y = two_models()
    groups = np.array([f"p{row // 2}" for row in range(len(y))]) if grouped else None
    fold = np.arange(len(y)) // 2 % 5
    held = fold == 1
    other = y.copy()
    other[held] = (y[held] + 1) % 3
    one, two = (
        BlendStart.of(X, LabelledRows(X[0], labels, groups), 3, seed=0, device="cpu").out_of_fold(fold)
        for labels in (y, other)
    )
    np.testing.assert_allclose(one[held], two[held], atol=1e-4)  # folds solved together differ by rounding
    assert np.abs(one - two).max() > 0.05  # other folds learn from these labels


def test_each_network_gets_its_best_share_beside_blend() -> None:
    y = np.array([0, 1, 2, 0, 1, 2])
    right = np.where(np.eye(3)[y] > 0, 0.8, 0.1)
    known = np.ones(6, dtype=bool)

    def candidate(name: str, p: np.ndarray) -> Candidate:
        return Candidate(RECIPES[name], [1], np.log(p), -np.log(p[np.arange(6), y]))

    poor, good = np.full((6, 3), 1 / 3), np.where(np.eye(3)[y] > 0, 0.98, 0.01)
    order = beside_blend(
        [candidate("start", poor), candidate("gentle", good), candidate("bold", poor)], right, y, known
    )
    assert [one.recipe.name for one in order] == ["blend", "start", "gentle", "bold"]
    assert [one.share for one in order] == [0.0, 1.0, 1.0, SHARES[0]]
    np.testing.assert_allclose(order[0].losses, -np.log(0.8))
    np.testing.assert_allclose(order[3].losses, -np.log(0.25 / 3 + 0.75 * 0.8))
    behind = beside_blend([candidate("start", good)], right, y, known)
    assert [one.recipe.name for one in behind] == ["start", "blend"]


def test_a_network_takes_part_where_a_gate_says_whom_to_trust() -> None:
    embeddings, y = gated_classes(1200)
    options = DVMEOptions(recipes_of(["start", "blend", "bold"]), width=64)
    fit, test = slice(0, 600), slice(600, None)
    one = fitted([X[fit] for X in embeddings], y[fit], options)
    assert one.choice.epochs > 0
    assert one.choice.share > 0
    still = fitted([X[fit] for X in embeddings], y[fit])

    def loss(model: FittedDVME) -> float:
        p = model.probabilities([X[test] for X in embeddings])
        return float(-np.log(p[np.arange(len(y[test])), y[test]]).mean())

    assert loss(one) < loss(still) - 0.1


def test_few_rows_train_no_network_and_still_choose_the_start() -> None:
    few = fitted(*two_models(60), options=replace(STARTS, recipes=recipes_of(CHOICES["dvme"])))
    assert few.choice.flags == ("too_few_to_train",)
    assert set(few.choice.scores["recipes"]) == {"start", "blend"}


@pytest.mark.parametrize(
    ("task", "weight"), [("binary", None), ("ordinal", None), ("multilabel", None), ("multiclass", "balanced")]
)
def test_blend_takes_part_for_three_classes_without_weights(task: str, weight: str | None) -> None:
    X, y = two_models()
    labels = {"binary": y > 0, "multilabel": np.eye(3)[y]}.get(task, y).astype(np.int64)
    options = replace(STARTS, class_weight=weight)  # type: ignore[arg-type]
    one = fit_dvme(X, labels, task=task, n_classes=2 if task == "binary" else 3, options=options)
    assert one.blend is None
    assert (one.choice.recipe.name, one.choice.share) == ("start", 1.0)
    alone = fit_dvme(X, y, task="multiclass", n_classes=3, options=replace(STARTS, recipes=[BLEND]))
    assert alone.choice.recipe.name in ("start", "blend")


def test_a_saved_dvme_with_blend_predicts_the_same_bits(tmp_path: Path) -> None:
    for number, model in enumerate(("m1", "m2")):
        for split, n in (("train", 120), ("test", 60)):
            write_features(
                tmp_path / "c", model=model, split=split, n=n, dim=6 + number, task="multiclass", n_classes=3
            )
    study = run_fuse(FuseRequest(tmp_path / "c", fractions=[0.5], seeds=3, save=tmp_path / "models"))
    joined = AlignedFeatures.load(join_pairs(find_pairs(Catalog(tmp_path / "c")))[0])
    shares = []
    with ScoreStore(study.store) as store:
        kept = {score.fit: store.fit(score.fit) for score in study.scores if score.method == "dvme"}
    for file in (tmp_path / "models").glob("*-dvme-*.json"):
        saved = load_model(file)
        fit = kept[saved.about["fit"]]
        np.testing.assert_array_equal(saved.predict_proba(joined.test), fit.probabilities)
        share = saved.about["settings"].get("share", 1.0)
        assert saved.about["format"] == ("mt-fusion" if share == 1 else "mt-fusion-blend")
        shares.append(share)
    assert len(shares) == 3
    assert min(shares) < 1


def test_blend_takes_no_part_on_many_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(fit, "BLEND_ROWS", 59)
    monkeypatch.setattr(BlendStart, "of", lambda *given, **named: asked.append(1))
    rng = np.random.default_rng(0)
    X, y = (rng.normal(size=(60, 5)), rng.normal(size=(60, 4))), np.arange(60) % 3
    options = DVMEOptions(recipes_of(["start", "blend"]))
    assert fit_dvme(X, y, task="multiclass", n_classes=3, options=options).choice.share == 1
    assert not asked
