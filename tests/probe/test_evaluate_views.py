"""Scores by subgroup, by patient, and on a dataset other than the training one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mt.cache import catalog
from mt.errors import InputError
from mt.probe.scores import metrics
from mt.probe.scores.scoring import subgroups
from mt.types import LabelledRows
from tests.probe.features import QUICK, probed, store_of, write_features, write_pair


def test_scores_by_subgroup(tmp_path: Path) -> None:
    columns = {"sex": ["F", "M", "", "M"] * 20, "age": np.linspace(20, 80, 80).tolist()}
    write_features(tmp_path)
    write_features(tmp_path, split="test", n=80, columns=columns)
    study = probed(tmp_path, **QUICK, by="sex")
    assert [s.subgroup for s in study.scores[:3]] == ["F", "M", "unknown"]
    assert [s.n_test for s in study.scores[:3]] == [20, 40, 20]
    fit = store_of(study).fit(study.scores[1].fit)
    cases = store_of(study).cases(fit.cases)
    rows = np.flatnonzero(np.array(cases.columns["sex"]) == "M")
    expected = metrics.score("roc_auc", cases.y[rows], fit.probabilities[rows])
    assert study.scores[1].value == pytest.approx(expected)
    quarters = probed(tmp_path, **QUICK, by="age")
    assert (quarters.n_fitted, [s.n_test for s in quarters.scores[:4]]) == (0, [20] * 4)
    with pytest.raises(InputError, match="Columns: age, sex"):
        probed(tmp_path, **QUICK, by="site")


def test_a_subgroup_of_one_class_is_undefined_and_not_an_error(tmp_path: Path) -> None:
    write_features(tmp_path)
    path = write_features(tmp_path, split="test", n=80)
    labels = catalog.read_entry(path).open().labels
    write_features(tmp_path, split="test", n=80, columns={"same": [str(label) for label in labels]})
    scores = probed(tmp_path, **QUICK, by="same").scores
    assert all(np.isnan(score.value) and score.low is None for score in scores)


def test_one_prediction_a_patient(tmp_path: Path) -> None:
    write_pair(tmp_path, grouped=True)
    study = probed(tmp_path, **QUICK, level="group")
    (score, *_) = study.scores
    fit = store_of(study).fit(score.fit)
    cases = store_of(study).cases(fit.cases)
    names = sorted(set(cases.groups or []))
    member = np.array(cases.groups)
    p = [fit.probabilities[member == name].astype(float).mean() for name in names]
    y = [cases.y[member == name].max() for name in names]
    assert (score.level, score.n_test, score.n_units) == ("group", 20, 20)
    assert score.interval == "95 % interval over 20 test groups of cases (Newcombe's score interval)"
    assert "cases assumed independent" not in score.flags
    assert np.isnan(score.value) == (len(set(y)) < 2)
    if len(set(y)) == 2:
        assert score.value == pytest.approx(metrics.score("roc_auc", y, p), abs=1e-6)


def test_group_level_needs_groups_of_one_class(tmp_path: Path) -> None:
    write_pair(tmp_path)
    with pytest.raises(InputError, match="--level group"):
        probed(tmp_path, **QUICK, level="group")
    write_pair(tmp_path, "mixed", task="multiclass", n_classes=3, grouped=True)
    with pytest.raises(InputError, match=r"not defined here: \d+ of 20 test groups hold several .*--task ordinal"):
        probed(tmp_path, **QUICK, datasets=["mixed"], level="group")


def test_training_on_one_dataset_and_testing_on_another(tmp_path: Path) -> None:
    write_features(tmp_path, "here")
    write_features(tmp_path, "there", split="test", n=80)
    write_features(tmp_path, "there", split="train")
    scores = probed(tmp_path, **QUICK, test_dataset="there").scores
    assert {(s.dataset, s.test_dataset) for s in scores} == {("here", "there")}
    write_features(tmp_path, "grades", split="test", task="ordinal", n_classes=4)
    with pytest.raises(InputError, match=r"--test-dataset grades needs the task and classes of here"):
        probed(tmp_path, **QUICK, datasets=["here"], test_dataset="grades")


def test_few_test_groups_are_flagged(tmp_path: Path) -> None:
    write_features(tmp_path)
    write_features(tmp_path, split="test", n=32, grouped=True)
    flags = probed(tmp_path, **QUICK).scores[0].flags
    assert "fewer than 10 test groups: the interval covers less often than it says" in flags
    assert "fewer than 20 test groups of the rarest class" in flags


@pytest.mark.parametrize("age", [str, float, lambda age: f"{age}.0"], ids=["text", "number", "decimals"])
def test_numbers_from_any_source_are_cut_at_quartiles(age: Callable[[int], Any]) -> None:
    cases = LabelledRows[None](None, np.zeros(40), columns={"age": [age(n) for n in range(40)]})
    assert [(name, len(rows)) for name, rows in subgroups(cases, "AGE")] == [
        ("0 to < 9.75", 10),
        ("9.75 to < 19.5", 10),
        ("19.5 to < 29.25", 10),
        ("29.25 to 39", 10),
    ]


@pytest.mark.parametrize("name", ["patient", "Patient ID", "patient_id", "PatientID", "case_id", "MRN", "subject"])
def test_a_table_a_patient_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="--level group"):
        subgroups(LabelledRows[None](None, np.zeros(2), columns={"patient": ["a", "b"]}), name)


def test_a_score_that_is_not_defined_says_why(tmp_path: Path) -> None:
    write_features(tmp_path)
    write_features(tmp_path, split="test", labels=np.arange(80) % 2, n=80, grouped=True)
    score = probed(tmp_path, **QUICK, level="group").scores[0]
    assert "not defined: all test groups (each has its highest label) are of one class" in score.flags
