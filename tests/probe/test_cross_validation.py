"""Evaluation by test folds: every image is tested once per repeat, by models that saw no row of its patient."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from mt.errors import CacheError, InputError
from mt.probe.cross_validation.fold_draws import Folds
from mt.types import MISSING, TEST_BY_FOLDS, LabelledRows
from tests.probe.features import probed, store_of, write_features, write_pair

ASKED: dict[str, Any] = {"protocol": "clip", "fractions": [0.5], "seeds": 2, "test_folds": 4, "repeats": 2}


@pytest.mark.parametrize("task", ["binary", "multiclass", "ordinal", "multilabel"])
def test_every_image_is_tested_once_per_repeat_by_models_that_never_saw_its_patient(task: str, tmp_path: Path) -> None:
    write_pair(tmp_path, task=task, n_classes=2 if task == "binary" else 3, grouped=True)
    study = probed(tmp_path, **{**ASKED, "protocol": "default" if task == "multilabel" else "clip"})
    assert len(study.scores) == 4  # seeds x repeats
    assert {score.n_test for score in study.scores} == {200}
    with store_of(study) as store:
        folds_of_repeat: dict[int, set[tuple[int, ...]]] = {0: set(), 1: set()}
        for score in study.scores:
            fit = store.fit(score.fit)
            cases, fold = store.cases(fit.cases), np.array(fit.outcome["test_fold"])
            assert len(set(cases.ids)) == len(fit.probabilities) == len(fold) == 200
            assert set(fold) == {0, 1, 2, 3}
            patients = np.asarray(cases.groups)
            assert all(len(set(fold[patients == patient])) == 1 for patient in set(patients))
            start = 0
            for number, one in enumerate(fit.outcome["folds"]):
                drawn = fit.rows[start : start + one["realised"]["n_rows"]]
                start += len(drawn)
                assert not set(patients[drawn]) & set(patients[fold == number])
            assert start == len(fit.rows)
            folds_of_repeat[score.seed % 2].add(tuple(fold))
        assert all(len(found) == 1 for found in folds_of_repeat.values())  # draws share the folds of their repeat
        assert folds_of_repeat[0] != folds_of_repeat[1]


def test_the_auc_is_the_mean_over_folds_and_comes_from_the_store_the_second_time(tmp_path: Path) -> None:
    write_pair(tmp_path)
    study = probed(tmp_path, **ASKED)
    with store_of(study) as store:
        for score in study.scores:
            fit = store.fit(score.fit)
            y, fold = store.cases(fit.cases).y, np.array(fit.outcome["test_fold"])
            values = [roc_auc_score(y[fold == k], fit.probabilities[fold == k]) for k in range(4)]
            assert score.value == pytest.approx(np.mean(values), abs=1e-9)
            assert score.low is not None
            assert score.high is not None
            assert score.low < score.value < score.high
            assert "dependent folds" in score.interval
    again = probed(tmp_path, **ASKED)
    assert again.n_fitted == 0
    assert again.scores == study.scores


@pytest.mark.parametrize("other", [{"test_folds": 3}, {"repeats": 1}, {"test_folds": None, "repeats": 1}])
def test_folds_are_part_of_the_identity(other: dict[str, Any], tmp_path: Path) -> None:
    write_pair(tmp_path)
    first, second = probed(tmp_path, **ASKED), probed(tmp_path, **{**ASKED, **other})
    assert not {score.fit for score in first.scores} & {score.fit for score in second.scores}
    assert second.n_stored == 0
    facts = first.scores[0].realised["test_folds"]
    assert (facts["name"], facts["k"], facts["repeats"], facts["seed"]) == ("4-fold x 2", 4, 2, 0)
    assert "stratified_parts" in facts["algorithm"]


def test_all_labels_are_one_draw_per_repeat(tmp_path: Path) -> None:
    write_pair(tmp_path)
    study = probed(tmp_path, **{**ASKED, "fractions": [1.0]})
    assert [score.seed for score in study.scores] == [0, 1]
    assert {score.n_labels for score in study.scores} == {150}
    many = probed(tmp_path, **{**ASKED, "fractions": [], "shots": [500], "seeds": 3})
    assert [score.seed for score in many.scores] == [0, 1]


def test_train_features_alone_and_a_validation_split_are_joined_too(tmp_path: Path) -> None:
    write_features(tmp_path)
    assert {score.n_test for score in probed(tmp_path, **ASKED).scores} == {120}
    write_features(tmp_path, split="test", n=80)
    write_features(tmp_path, split="val", n=40)
    assert {score.n_test for score in probed(tmp_path, **ASKED).scores} == {240}


def test_rows_without_any_label_are_outside_every_fold(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 2, (120, 3)).astype(np.int8)
    labels[:7] = MISSING
    labels[7:20, 0] = MISSING
    write_features(tmp_path, task="multilabel", n_classes=3, labels=labels)
    study = probed(tmp_path, **{**ASKED, "protocol": "default"})
    assert {score.n_test for score in study.scores} == {113}


def test_folds_depend_on_ids_not_on_the_order_of_rows() -> None:
    rng = np.random.default_rng(0)
    ids, y = [f"image-{k}" for k in range(60)], rng.integers(0, 2, 60)
    groups = [f"patient-{k // 3}" for k in range(60)]
    rows = LabelledRows(None, y, groups, ids)
    order = rng.permutation(60)
    folds = Folds(5, 2)
    np.testing.assert_array_equal(folds.assigned(rows, 1)[order], folds.assigned(rows.take(order), 1))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"test_folds": 1}, "--test-folds must be at least 2"),
        ({"repeats": 0}, "--repeats must be at least 1"),
        ({"test_folds": None}, "--repeats 2 repeats test folds"),
        ({"draw_file": "draws.json"}, "--draw-file lists rows of the train split"),
        ({"save": "models"}, "--save saves one model per draw"),
        ({"test_dataset": "other"}, "--test-dataset tests on another dataset"),
        ({"select": "val"}, "--select val chooses on the validation split"),
        ({"test_folds": 101}, "Use at most --test-folds 100"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(asked: dict[str, Any], said: str, tmp_path: Path) -> None:
    write_pair(tmp_path)
    with pytest.raises(InputError, match=said) as caught:
        probed(tmp_path, **{**ASKED, **asked})
    assert "\n" not in str(caught.value)


def test_features_that_suggest_test_folds_do_so_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = f"200 images without splits of their own: {TEST_BY_FOLDS} tests every one of them"
    for model in ("m1", "m2"):
        write_pair(tmp_path, model=model, warnings=["only 80 test images", said])
    plain = {name: value for name, value in ASKED.items() if name not in ("test_folds", "repeats")}
    probed(tmp_path, **plain)
    assert capsys.readouterr().err.splitlines().count(f"toy: {said}") == 1
    probed(tmp_path, **plain)
    assert said not in capsys.readouterr().err, "only a new fit makes it news"
    probed(tmp_path, **ASKED)
    assert TEST_BY_FOLDS not in capsys.readouterr().err
    with pytest.raises(InputError, match="--fraction must be above 0"):
        probed(tmp_path, **plain | {"fractions": [10.0]})
    assert capsys.readouterr().err == ""


def test_a_missing_test_split_is_no_error_with_folds_and_the_error_without_names_them(tmp_path: Path) -> None:
    write_features(tmp_path)
    with pytest.raises(CacheError, match="mt probe --test-folds 5"):
        probed(tmp_path, protocol="clip")


def test_levels_and_subgroups_are_scored_within_folds(tmp_path: Path) -> None:
    site = {"site": ["a" if k % 3 else "b" for k in range(120)]}
    write_features(tmp_path, task="ordinal", n_classes=3, grouped=True, columns=site)
    by_group = probed(tmp_path, **ASKED, level="group").scores
    assert {score.n_test for score in by_group} == {30}
    by_site = probed(tmp_path, **ASKED, by="site", metrics=["macro_auc"]).scores
    assert {(score.subgroup, score.n_test) for score in by_site} == {("a", 80), ("b", 40)}
    assert all(0.4 < score.value <= 1 for score in by_site)
