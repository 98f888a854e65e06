"""Labelled rows: some of them keep what belongs to each."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mt.probe.scores.metrics import METRICS
from mt.types import HEADLINE, TASKS, LabelledRows, ScoredRows

X = np.arange(12.0).reshape(4, 3)
Y = np.array([0, 1, 1, 0])
SOME = np.array([3, 1])


@pytest.mark.parametrize("groups", [None, ["p", "q", "r", "s"], np.array(["p", "q", "r", "s"])], ids=str)
@pytest.mark.parametrize("features", [X, (X, X[:, :1]), None], ids=["one model", "two models", "none"])
def test_some_rows_keep_what_belongs_to_each(features: Any, groups: Any) -> None:
    rows = LabelledRows(features, Y, groups, ["a", "b", "c", "d"], {"age": [1, None, 3, 4]}).take(SOME)
    assert len(rows) == 2
    assert rows.y.tolist() == [0, 1]
    assert list(rows.ids) == ["d", "b"]
    assert rows.columns == {"age": [4, None]}
    assert rows.groups is None if groups is None else list(rows.groups) == ["s", "q"]  # type: ignore[arg-type]
    if features is X:
        assert np.array_equal(rows.X, X[SOME])
    elif features is None:
        assert rows.X is None
    else:
        assert [one.tolist() for one in rows.X] == [X[SOME].tolist(), X[SOME, :1].tolist()]


def test_rows_without_names_stay_without_names() -> None:
    assert list(LabelledRows(X, Y).take(SOME).ids) == []


def test_other_features_leave_the_labels() -> None:
    rows = LabelledRows(None, Y, ["p", "q", "r", "s"], ["a", "b", "c", "d"]).with_features(X)
    assert np.array_equal(rows.X, X)
    assert rows.y is Y
    assert list(rows.ids) == ["a", "b", "c", "d"]


def test_scored_rows_keep_each_probability_with_its_row() -> None:
    scored = ScoredRows(LabelledRows(None, Y), np.array([0.1, 0.2, 0.3, 0.4], np.float32), ("flag",)).take(SOME)
    assert scored.y.tolist() == [0, 1]
    assert scored.p.tolist() == pytest.approx([0.4, 0.2])
    assert scored.flags == ("flag",)


@pytest.mark.parametrize("task", TASKS)
def test_every_task_has_a_headline_metric_that_is_defined_for_it(task: str) -> None:
    assert task in METRICS[HEADLINE[task]].tasks
