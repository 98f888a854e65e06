"""Gated attention on bags is chosen against mean pooling inside the budget, is reproducible, saved and read back."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mt.cache.catalog import Catalog
from mt.errors import InputError
from mt.probe.bags import BaggedFeatures, Bags
from mt.probe.methods import attention
from mt.probe.methods.attention import AttentionProbe, fit_attention
from mt.probe.protocols import Fitted, Fitting, get_protocol
from mt.probe.questions import Bagging
from mt.probe.saved import load_probe
from mt.types import LabelledRows
from tests.probe.features import probed, store_of, write_features

DIM = 8


def bags(n: int, *, share: float, seed: int, classes: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return instances, their bags and marks, and the labels of n bags: in a bag of class k a share is shifted."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(20, 60, n)
    bag_of, y = np.arange(n).repeat(sizes), np.arange(n) % classes
    marked = (rng.random(sizes.sum()) < share) & (y[bag_of] > 0)
    X = rng.standard_normal((sizes.sum(), DIM))
    X[marked, y[bag_of[marked]]] += 5
    return X.astype("f4"), bag_of, marked, y


def rows_of(n: int = 100, **how: Any) -> tuple[LabelledRows[Any], np.ndarray, np.ndarray]:
    X, bag_of, marked, y = bags(n, **{"share": 0.08, "seed": 10, **how})
    return LabelledRows(Bags.of(X, bag_of, n), y), bag_of, marked


def fitted(budget: LabelledRows[Any], *, seed: int = 0, classes: int = 2, validation: Any = None) -> Fitted:
    task = "binary" if classes == 2 else "multiclass"
    return fit_attention(budget, Fitting(get_protocol("default")).on(task, classes), seed, validation)


def test_attention_finds_the_instances_that_tell_the_class() -> None:
    budget, _, _ = rows_of()
    test, bag_of, marked = rows_of(80, seed=11)
    found = fitted(budget)
    probe = found.probe
    assert isinstance(probe, AttentionProbe)
    assert found.settings["attention_steps"] > 0
    weights = np.concatenate(list(probe.attention(test.X)))
    assert weights[marked].mean() > 2 * weights[~marked].mean()
    np.testing.assert_allclose(np.bincount(bag_of, weights=weights), 1)
    right = ((probe.probabilities(test.X) > 0.5) == test.y).mean()
    plain = ((probe.linear.probabilities(test.X.pooled("mean")) > 0.5) == test.y).mean()
    assert right > plain


def test_several_classes_and_a_validation_split() -> None:
    (budget, _, _), (held, _, _) = rows_of(90, classes=3), rows_of(60, classes=3, seed=2)
    for validation in (None, held):
        found = fitted(budget, classes=3, validation=validation)
        p = found.probe.probabilities(held.X)
        assert p.shape == (60, 3)
        assert (p.argmax(axis=1) == held.y).mean() > 0.7
        assert len(found.selection["attention"]) == 4


def test_mean_pooling_is_kept_where_attention_gains_nothing() -> None:
    rng = np.random.default_rng(4)
    bag_of, y = np.arange(40).repeat(10), np.arange(40) % 2
    X = (rng.standard_normal((400, DIM)) + 0.2 * y[bag_of][:, None]).astype("f4")
    budget = LabelledRows(Bags.of(X, bag_of, 40), y)
    found = fitted(budget)
    assert "mean_pooling" in found.flags
    assert found.settings["attention_steps"] == 0
    assert isinstance(found.probe, AttentionProbe)
    linear = found.probe.linear.probabilities(budget.X.pooled("mean"))
    assert np.array_equal(found.probe.probabilities(budget.X), linear)
    assert all(np.ptp(weights) == 0 for weights in found.probe.attention(budget.X))


def test_few_bags_and_one_class_fall_back_to_mean_pooling() -> None:
    budget, _, _ = rows_of(3)
    assert "mean_pooling" in fitted(budget).flags
    one = LabelledRows(budget.X, np.zeros(3, dtype=np.int64))
    assert {"mean_pooling", "one_class"} <= set(fitted(one).flags)


def test_the_seed_says_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "CHECKPOINTS", (10, 20))
    budget, _, _ = rows_of(24, share=0.3)
    one, two, other = (fitted(budget, seed=seed).probe.probabilities(budget.X) for seed in (0, 0, 1))
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)


def write_bags(cache: Path) -> np.ndarray:
    """Write a dataset of marked bags; return the marks of the test instances."""
    for number, split in enumerate(("train", "test")):
        X, bag_of, marked, y = bags(100, share=0.08, seed=10 + number)
        write_features(
            cache,
            "slides",
            split=split,
            embeddings=X,
            labels=y[bag_of],
            bag="slide",
            columns={"slide": [f"{split}{bag}" for bag in bag_of]},
        )
    return marked


def test_attention_is_saved_and_exported(tmp_path: Path) -> None:
    marked = write_bags(tmp_path)
    study = probed(tmp_path, pool="attention", fractions=[1.0], save=tmp_path / "saved")
    (score,) = study.scores
    assert score.model == "m1, attention per slide"
    assert score.settings["attention_steps"] > 0
    (entry,) = Catalog(tmp_path).entries(splits=["test"])
    cases = BaggedFeatures(entry.open(), Bagging("slide", "attention"))
    (about,) = (tmp_path / "saved").glob("*.json")
    with store_of(study) as store:
        kept = store.fit(score.fit).probabilities
    assert np.array_equal(load_probe(about).probe.probabilities(cases.embeddings), kept)
    with about.with_suffix(".attention.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert {row["id"] for row in table} == set(cases.file.ids)
    weights = {row["id"]: float(row["attention"]) for row in table}
    by_row = np.array([weights[name] for name in cases.file.ids])
    assert by_row[marked].mean() > 2 * by_row[~marked].mean()


def test_it_beats_mean_pooling_on_rare_instances(tmp_path: Path) -> None:
    write_bags(tmp_path)
    value = {rule: probed(tmp_path, pool=rule, fractions=[1.0]).scores[0].value for rule in ("mean", "attention")}
    assert value["attention"] > value["mean"]


@pytest.mark.parametrize("protocol", ["thunder-knn", "clip", "eva"])
def test_protocols_that_cannot_choose_it_are_refused(tmp_path: Path, protocol: str) -> None:
    write_bags(tmp_path)
    with pytest.raises(InputError, match=rf"protocol '{protocol}' lacks one of them. Use --protocol default"):
        probed(tmp_path, pool="attention", protocol=protocol, fractions=[1.0])
