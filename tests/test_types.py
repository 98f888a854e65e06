"""Labelled rows keep each row's entries together; `Texts` behaves as a list of strings in a tenth of the memory."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from mt import types
from mt.probe.scores.metrics import METRICS
from mt.types import HEADLINE, TASKS, LabelledRows, ScoredRows, Texts, distinct, sortable

X = np.arange(12.0).reshape(4, 3)
Y = np.array([0, 1, 1, 0])
SOME = np.array([3, 1])
ASCII = ["b", "a", "long name", "", "a"]
LETTERS = ["Zürich", "αβγ", "日本/1.png", "a"]
NO_UTF8 = [b"caf\xe9.png".decode("utf-8", "surrogateescape"), "\ue000", "z"]
EVERY = pytest.mark.parametrize("values", [ASCII, LETTERS, NO_UTF8, []], ids=["ascii", "letters", "no UTF-8", "none"])


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


@EVERY
@pytest.mark.parametrize("part", [1, 2, types.PART])
def test_texts_answer_as_a_list(values: list[str], part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(types, "PART", part)
    found = Texts.of(iter(values))
    assert list(found) == values == found
    assert [found[row] for row in range(len(values))] == values
    assert found[1:] == values[1:]
    assert found != [*values, "more"]
    assert all(value in found for value in values)
    assert "nowhere" not in found
    assert found.mapped(str.upper) == [value.upper() for value in values]
    assert np.asarray(found).tolist() == values


@EVERY
def test_texts_sort_as_strings_do(values: list[str]) -> None:
    order = np.argsort(sortable(Texts.of(values)), kind="stable")
    assert [values[row] for row in order] == sorted(values)


@EVERY
def test_distinct_texts_are_in_the_order_of_their_first_row(values: list[str]) -> None:
    names, code = distinct(values)
    assert names == list(dict.fromkeys(values))
    assert [names[one] for one in code] == values


def test_rows_are_taken_by_number_and_by_mask() -> None:
    found = Texts.of(ASCII)
    assert found.take(np.array([2, 0])) == ["long name", "b"]
    assert found[np.array([True, False, False, True, False])] == ["b", ""]


def test_a_text_takes_the_bytes_of_its_letters() -> None:
    values = [f"images/{row:06}.png" for row in range(10_000)]
    there = Texts.of(values)
    assert there.encoded.nbytes == 17 * len(values)
    assert sum(map(sys.getsizeof, values)) > 3 * there.encoded.nbytes
