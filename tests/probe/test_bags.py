"""Probes of bags: labels, budgets, folds and intervals count cases, not rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mt.cache.catalog import Catalog
from mt.errors import InputError
from mt.fuse.request import FuseRequest
from mt.fuse.run import run_fuse
from mt.predict.load import load_model
from mt.probe.bags import BaggedFeatures, Bags
from mt.probe.questions import Bagging
from tests.probe.features import QUICK, probed, store_of, write_features

VIEWS, CASES = 4, 30


def views(cache: Path, *, model: str = "m1", scattered: bool = False, **more: Any) -> None:
    """Write four views of each study, one after another or scattered, and the pooled studies as another dataset."""
    for split in ("train", "test"):
        rng = np.random.default_rng([ord(split[1]), len(model)])
        y = np.arange(CASES) % 2
        X = (rng.normal(size=(CASES, VIEWS, 6)) + 0.8 * y[:, None, None]).astype("f4")
        order = rng.permutation(CASES * VIEWS) if scattered else np.arange(CASES * VIEWS)
        study = np.array([f"{split} study {case}" for case in range(CASES)]).repeat(VIEWS)
        write_features(
            cache,
            "views",
            model,
            split,
            labels=y.repeat(VIEWS)[order],
            embeddings=X.reshape(-1, 6)[order],
            columns={"study": study[order].tolist(), "view": [str(row % 4) for row in range(CASES * VIEWS)]},
            **more,
        )
        write_features(cache, "pooled", model, split, labels=y, embeddings=X.astype("f8").mean(axis=1).astype("f4"))


def of(scores: list[Any], dataset: str) -> list[tuple[float, float | None, int]]:
    return [(score.value, score.low, score.n_test) for score in scores if score.dataset == dataset]


def test_pooled_when_probing_is_pooled_before(tmp_path: Path) -> None:
    views(tmp_path)
    late = probed(tmp_path, datasets=["views"], bag="study", **QUICK)
    early = probed(tmp_path, datasets=["pooled"], **QUICK)
    assert of(late.scores, "views") == of(early.scores, "pooled")
    assert {score.model for score in late.scores} == {"m1, mean per study"}
    assert {score.n_labels for score in late.scores} == {15}
    with store_of(late) as store:
        assert list(store.cases(store.fit(late.scores[0].fit).cases).ids)[:2] == ["test study 0", "test study 1"]


def test_the_store_tells_rows_from_cases_and_rules_apart(tmp_path: Path) -> None:
    views(tmp_path)
    for asked, fitted in (({}, 2), ({"bag": "study"}, 2), ({"bag": "study", "pool": "max"}, 2), ({"bag": "study"}, 0)):
        assert probed(tmp_path, datasets=["views"], **asked, **QUICK).n_fitted == fitted


@pytest.mark.parametrize("rule", ["mean", "max", "mean+std", "mean+max"])
def test_scattered_rows_are_put_together(tmp_path: Path, rule: str) -> None:
    views(tmp_path, scattered=True)
    (entry,) = Catalog(tmp_path).entries(datasets=["views"], splits=["train"])
    file = entry.open()
    cases = BaggedFeatures(file, Bagging("study", rule))
    for name, row, label in zip(cases.ids, cases.embeddings, cases.labels, strict=True):
        own = [at for at, study in enumerate(file.columns["study"]) if study == name]
        np.testing.assert_allclose(
            row[:6],
            file.embeddings[own].max(axis=0) if rule == "max" else file.embeddings[own].mean(axis=0),
            rtol=1e-5,
            atol=1e-6,
        )
        assert set(file.labels[own]) == {label}
    assert cases.dim == cases.embeddings.shape[1] == (12 if "+" in rule else 6)
    assert "view" not in cases.columns


def test_groups_can_be_the_cases(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_features(tmp_path, split=split, grouped=True, labels=np.arange(30).repeat(4) % 2)
    study = probed(tmp_path, bag="group", pool="mean", **QUICK)
    assert {(score.n_test, score.n_units) for score in study.scores} == {(30, 30)}


def test_a_case_has_one_label_and_one_group(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_features(tmp_path, split=split, grouped=True, columns={"study": [str(row // 8) for row in range(120)]})
    with pytest.raises(InputError, match=r"--bag group: \d+ of 30 cases of 'toy' \(train\) have rows of more than one"):
        probed(tmp_path, bag="group", **QUICK)
    for split in ("train", "test"):
        write_features(
            tmp_path,
            "two",
            split=split,
            grouped=True,
            labels=np.arange(15).repeat(8) % 2,
            columns={"study": [f"s{row // 8}" for row in range(120)]},
        )
    with pytest.raises(InputError, match=r"15 of 15 cases of 'two' .* more than one group: s0, s1, s2, \.\.\."):
        probed(tmp_path, datasets=["two"], bag="study", **QUICK)


@pytest.mark.parametrize(
    ("bag", "message"),
    [
        ("series", r"--bag series: 'views' has no such column. Found: study, view."),
        ("group", r"--bag group: 'views' has no such column. Found: study, view."),
    ],
)
def test_an_unknown_column_names_the_known(tmp_path: Path, bag: str, message: str) -> None:
    views(tmp_path)
    with pytest.raises(InputError, match=message):
        probed(tmp_path, datasets=["views"], bag=bag, **QUICK)


class TestInstances:
    """Imported instances: never taken for cases by themselves."""

    @pytest.fixture
    def cache(self, tmp_path: Path) -> Path:
        for model in ("m1", "m22"):
            views(tmp_path, model=model, bag="study")
        return tmp_path

    def test_they_are_no_cases(self, cache: Path) -> None:
        with pytest.raises(InputError, match=r"'m1' of 'views'.*rows are instances of cases. Pool them"):
            probed(cache, datasets=["views"], **QUICK)
        with pytest.raises(InputError, match="rows are instances of cases"):
            run_fuse(FuseRequest(cache, datasets=["views"]))

    def test_other_datasets_go_on(self, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert {score.dataset for score in probed(cache, **QUICK).scores} == {"pooled"}
        assert "Omitted: 'm1' of 'views'" in capsys.readouterr().err

    def test_their_own_column_is_the_bag(self, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
        found = probed(cache, pool="max", **QUICK).scores
        assert {score.model for score in found} == {"m1, max per study", "m22, max per study"}
        assert "no column names the case of each row. Name one: --bag COLUMN" in capsys.readouterr().err

    def test_without_any_bag_nothing_is_pooled(self, tmp_path: Path) -> None:
        for split in ("train", "test"):
            write_features(tmp_path, split=split)
        with pytest.raises(InputError, match="no column names the case of each row"):
            probed(tmp_path, pool="mean", **QUICK)


def test_a_saved_probe_on_cases_takes_no_rows(tmp_path: Path) -> None:
    views(tmp_path)
    probed(tmp_path, datasets=["views"], bag="study", fractions=[1.0], protocol="clip", save=tmp_path / "saved")
    with pytest.raises(InputError, match=r"fitted on cases of several rows \(mean per study\), and mt predict takes"):
        load_model(tmp_path / "saved")


def test_bags_are_taken_like_rows_of_an_array() -> None:
    instances, bag_of = np.arange(12).reshape(6, 2), np.array([1, 0, 1, 2, 0, 1])
    bags = Bags.of(instances, bag_of, 3)
    assert (len(bags), bags.shape) == (3, (3, 2))
    assert [bags.rows_of(case).tolist() for case in range(3)] == [[1, 4], [0, 2, 5], [3]]
    some = bags[np.array([2, 1])]
    assert [some.rows_of(case).tolist() for case in range(2)] == [[3], [0, 2, 5]]
    assert [bags[np.array([True, False, True])].rows_of(case).tolist() for case in range(2)] == [[1, 4], [3]]
    np.testing.assert_allclose(
        some.pooled("mean"), np.stack([[6.0, 7.0], instances[[0, 2, 5]].mean(axis=0)]), rtol=1e-6
    )
