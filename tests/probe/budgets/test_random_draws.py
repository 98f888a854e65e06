"""Random draws look at no label; every method can fit them, and their scores are kept apart from stratified ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from mt.cli import group
from mt.errors import InputError
from mt.fuse.request import FuseRequest
from mt.fuse.run import run_fuse
from mt.probe.budgets.draw import draw
from mt.probe.budgets.random_draws import random_draw
from mt.probe.protocols import Fitting, get_protocol
from mt.probe.run import fit_probes
from mt.probe.scores.metrics import score
from mt.report.experiments import experiments
from mt.report.origins import Origins
from mt.types import LabelledRows
from tests.probe.features import probed, store_of, write_features, write_pair

BINARY: dict[str, Any] = {"task": "binary", "n_classes": 2}


@pytest.mark.parametrize("unit", ["row", "group"])
def test_a_random_draw_is_a_prefix_that_no_label_changes(unit: str) -> None:
    rng = np.random.default_rng(0)
    labels, groups = (rng.random(300) < 0.1).astype(int), [f"p{k}" for k in rng.integers(0, 60, 300)]
    small, large, other = (
        random_draw(y, **BINARY, fraction=fraction, seed=3, groups=groups, unit=unit)
        for y, fraction in ((labels, 0.1), (labels, 0.4), (1 - labels, 0.1))
    )
    assert large.rows[: len(small.rows)].tolist() == small.rows.tolist() == other.rows.tolist()
    assert small.realised["n_units"] == (30 if unit == "row" else round(len(set(groups)) / 10))
    assert small.realised["draw"] == ("random" if unit == "row" else "random-groups")
    if unit == "group":
        held = {groups[row] for row in small.rows}
        assert sorted(small.rows.tolist()) == [row for row, name in enumerate(groups) if name in held]


def test_all_rows_are_one_random_draw_and_no_class_is_forced() -> None:
    labels = np.array([0] * 99 + [1])
    every = random_draw(labels, **BINARY, fraction=1.0, seed=4)
    assert (every.seed, every.realised["everything"], every.rows.tolist()) == (0, True, list(range(100)))
    few = [random_draw(labels, **BINARY, fraction=0.05, seed=seed) for seed in range(20)]
    assert any(one.realised["missing"] == [1] for one in few)
    assert all(one.realised["forced"] == [] and len(one.rows) == 5 for one in few)


def test_random_draws_spread_wider_and_score_lower_than_stratified_ones() -> None:
    """With 20 labels and 10 % positives, random draws score lower and vary more than stratified ones."""
    rng = np.random.default_rng(1)
    y = (rng.random(4000) < 0.1).astype(np.int64)
    X = (rng.normal(size=(4000, 16)) + 0.5 * y[:, None]).astype(np.float32)
    train, test = slice(0, 2000), slice(2000, None)
    fitting = Fitting(get_protocol("clip")).on("binary", 2)

    def scores(draws: list[np.ndarray]) -> np.ndarray:
        budgets = [(LabelledRows(X[train][rows], y[train][rows]), 0) for rows in draws]
        fits = fit_probes(budgets, fitting)
        return np.array([score("roc_auc", y[test], fit.probe.probabilities(X[test])) for fit in fits])

    seeds = range(60)
    stratified = scores([draw(y[train], **BINARY, fraction=0.01, seed=seed).rows for seed in seeds])
    random = scores([random_draw(y[train], **BINARY, fraction=0.01, seed=seed).rows for seed in seeds])
    assert random.std(ddof=1) > 1.2 * stratified.std(ddof=1)
    assert random.mean() < stratified.mean() - 0.01


@pytest.mark.parametrize("protocol", ["default", "clip", "dinov2-logreg", "dino-knn", "dino-linear"])
def test_a_draw_that_lacks_a_class_is_fitted_and_flagged(tmp_path: Path, protocol: str) -> None:
    labels = np.array([1, 2] + [0] * 98)
    write_features(tmp_path, task="multiclass", n_classes=3, n=100, labels=labels)
    write_features(tmp_path, split="test", task="multiclass", n_classes=3, n=60)
    study = probed(tmp_path, fractions=[0.05], seeds=2, draw="random", protocol=protocol)
    with store_of(study) as store:
        for one in study.scores:
            assert "missing_class" in one.flags
            assert (one.realised["missing"], one.n_labels) == ([1, 2], 5)
            assert store.fit(one.fit).probabilities.tolist() == [[1, 0, 0]] * 60


def test_a_label_that_is_constant_in_a_random_draw_predicts_its_base_rate(tmp_path: Path) -> None:
    labels = np.zeros((100, 2), dtype=np.int8)
    labels[:2, 1], labels[::2, 0] = 1, 1
    write_features(tmp_path, task="multilabel", n_classes=2, n=100, labels=labels)
    write_features(tmp_path, split="test", task="multilabel", n_classes=2, n=60)
    study = probed(tmp_path, fractions=[0.1], seeds=1, draw="random")
    with store_of(study) as store:
        (one,) = study.scores
        assert "constant_label" in one.flags
        assert np.allclose(store.fit(one.fit).probabilities[:, 1], 1 / 12)


def test_fusion_takes_random_draws_of_one_class_too(tmp_path: Path) -> None:
    labels = np.array([1] + [0] * 99)
    for model in ("m1", "m2"):
        write_features(tmp_path, model=model, n=100, labels=labels)
        write_features(tmp_path, model=model, split="test", n=60)
    study = run_fuse(FuseRequest(tmp_path, fractions=[0.05], seeds=1, draw="random"))
    assert {one.method for one in study.scores} >= {"probe", "best-single", "average", "concat", "dvme"}
    assert all(one.realised["draw"] == "random" and "missing_class" in one.flags for one in study.scores)


def test_the_rule_is_part_of_the_identity_and_stratified_stays_as_it_was(tmp_path: Path) -> None:
    write_pair(tmp_path, grouped=True)
    asked = {"fractions": [0.2], "seeds": 2, "protocol": "clip"}
    stratified, random = probed(tmp_path, **asked), probed(tmp_path, **asked, draw="random")
    patients = probed(tmp_path, **asked, draw="random-groups")
    assert (random.n_fitted, patients.n_fitted, probed(tmp_path, **asked, draw="random").n_fitted) == (2, 2, 0)
    assert all("draw" not in one.realised for one in stratified.scores)
    with store_of(random) as store:
        found = experiments([*stratified.scores, *random.scores, *patients.scores], Origins(store))
    assert sorted(one.facts["draws"] for one in found) == ["random draws", "random draws of groups", "stratified draws"]
    assert len({one.name for one in found}) == 3


def test_the_table_says_how_draws_were_taken(tmp_path: Path) -> None:
    write_pair(tmp_path, grouped=True)

    def said(*words: str) -> str:
        asked = ["probe", "--cache-dir", str(tmp_path), "--fraction", "0.2", "--protocol", "clip", *words]
        return CliRunner().invoke(group, asked, catch_exceptions=False).stdout

    assert "Draws: stratified by all train labels, more than the budget counts" in said()
    assert "Draws: rows drawn at random; no label was looked at." in said("--draw", "random")
    table = said("--draw", "random-groups")
    assert "Draws: groups drawn at random; no label was looked at." in table
    assert "20 % of groups" in table
    assert "(24 labels, 20 % of rows)" in table
    rows = map(json.loads, said("--draw", "random", "--json").splitlines())
    assert {row["realised"]["draw"] for row in rows} == {"random"}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"draw": "random", "shots": [5]}, "--shots counts labels per class, but --draw random looks at no label."),
        ({"draw": "random-groups", "fractions": [0.2]}, "draws patients .* but 'toy' has none. Draw rows"),
    ],
)
def test_what_cannot_be_drawn_at_random_is_refused(tmp_path: Path, asked: dict[str, Any], said: str) -> None:
    write_pair(tmp_path)
    with pytest.raises(InputError, match=said):
        probed(tmp_path, **asked)


def test_a_draw_file_keeps_random_draws_and_refuses_a_rule_of_its_own(tmp_path: Path) -> None:
    write_pair(tmp_path)
    file, asked = tmp_path / "draws.json", {"protocol": "clip", "draw": "random"}
    random = probed(tmp_path, **asked, fractions=[0.1], seeds=2, draw_file=file)
    listed = probed(tmp_path, protocol="clip", draw_file=file)
    assert [one.value for one in listed.scores] == [one.value for one in random.scores]
    with pytest.raises(InputError, match=r"lists the draws already\. Remove --draw random"):
        probed(tmp_path, **asked, draw_file=file)
