"""Draws are nested, stratified and recorded; folds and splits divide no group; draw files give the same rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mt.errors import InputError
from mt.probe.budgets.draw import draw, folds, stratified_split
from mt.probe.budgets.draw_file import list_draws, read_draws, write_draws

MULTICLASS: dict[str, Any] = {"task": "multiclass", "n_classes": 4}
MULTILABEL: dict[str, Any] = {"task": "multilabel", "n_classes": 4}


def _labels(task: str, n: int = 1200, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if task == "multilabel":
        return (rng.random((n, 4)) < [0.4, 0.15, 0.05, 0.01]).astype(np.int8)
    return rng.choice(4, n, p=[0.6, 0.25, 0.12, 0.03])


def _groups(n: int = 1200) -> list[str]:
    return [f"g{k}" for k in np.random.default_rng(9).integers(0, n // 5, n)]


SETTINGS = [(kind, unit) for kind in (MULTICLASS, MULTILABEL) for unit in ("row", "group")]


@pytest.mark.parametrize(("kind", "unit"), SETTINGS)
@pytest.mark.parametrize("budgets", [{"fraction": [0.01, 0.05, 0.1, 0.5, 1.0]}, {"shots": [1, 2, 5, 20]}])
def test_small_draws_lie_inside_larger_ones(kind: dict[str, Any], unit: str, budgets: dict[str, list[Any]]) -> None:
    labels, groups = _labels(kind["task"]), _groups()
    [(name, sizes)] = budgets.items()
    for seed in range(3):
        found = [
            set(draw(labels, **kind, **{name: size}, seed=seed, groups=groups, unit=unit).rows.tolist())
            for size in sizes
        ]
        assert all(small <= large for small, large in pairwise(found))
        assert len(found[0]) < len(found[-1])


@pytest.mark.parametrize(("kind", "unit"), SETTINGS)
def test_a_draw_is_a_prefix_of_one_order(kind: dict[str, Any], unit: str) -> None:
    labels, groups = _labels(kind["task"]), _groups()
    small, large = (
        draw(labels, **kind, fraction=f, seed=1, groups=groups, unit=unit).rows.tolist() for f in (0.02, 0.3)
    )
    assert large[: len(small)] == small


@settings(max_examples=50, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 150), min_size=2, max_size=5),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 999),
)
def test_a_draw_has_the_size_and_the_class_proportions_asked_for(sizes: list[int], fraction: float, seed: int) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    found = draw(labels, task="multiclass", n_classes=len(sizes), fraction=fraction, seed=seed)
    wanted = max(len(sizes), int(np.floor(fraction * len(labels) + 0.5)))
    assert len(set(found.rows.tolist())) == len(found.rows) == found.realised["n_rows"] == wanted
    held = np.bincount(labels[found.rows], minlength=len(sizes))
    assert held.tolist() == found.realised["rows"]
    assert held.min() >= 1
    forced = len(found.realised["forced"])
    assert np.abs(held - fraction * np.array(sizes)).max() <= 2 + forced


def test_every_class_there_is_gets_a_row_and_the_record_says_who_was_forced() -> None:
    labels = np.array([0] * 900 + [1] * 95 + [2] * 5)
    found = draw(labels, task="multiclass", n_classes=4, fraction=0.01)
    assert found.realised["rows"] == [8, 1, 1, 0]
    assert found.realised["forced"] == [2]
    assert found.realised["missing"] == [3]
    tiny = draw(labels, task="multiclass", n_classes=4, fraction=0.001)
    assert tiny.realised["rows"] == [1, 1, 1, 0]
    assert tiny.realised["forced"] == [1, 2]


@pytest.mark.parametrize("fraction", [0.02, 0.1, 0.3])
def test_labels_of_multilabel_draws_are_in_proportion(fraction: float) -> None:
    labels = _labels("multilabel", 4000)
    found = [draw(labels, **MULTILABEL, fraction=fraction, seed=seed).realised["rows"] for seed in range(10)]
    expected = fraction * labels.sum(axis=0)
    assert (np.abs(np.array(found) - expected) <= 2 + 0.1 * expected).all()


def test_a_draw_in_groups_takes_whole_groups_and_counts_groups() -> None:
    labels, groups = _labels("multiclass"), np.array(_groups())
    found = draw(labels, **MULTICLASS, fraction=0.1, groups=groups.tolist(), unit="group")
    chosen = set(groups[found.rows])
    assert len(chosen) == found.realised["n_groups"] == found.realised["n_units"] == round(0.1 * len(set(groups)))
    assert len(found.rows) == np.isin(groups, list(chosen)).sum()
    assert found.realised["groups"] == [len(set(groups[found.rows][labels[found.rows] == k])) for k in range(4)]
    # By rows, the same dataset counts rows, and its groups are distinguished from the budget.
    by_row = draw(labels, **MULTICLASS, fraction=0.1, groups=groups.tolist(), unit="row")
    assert by_row.realised["n_units"] == by_row.realised["n_rows"] == 120
    assert by_row.realised["n_groups"] == len(set(groups[by_row.rows]))


def test_shots_are_counted_per_class() -> None:
    labels = np.array([0] * 50 + [1] * 50 + [2] * 3)
    assert draw(labels, task="multiclass", n_classes=3, shots=10).realised["rows"] == [10, 10, 3]
    several = _labels("multilabel")
    found = draw(several, **MULTILABEL, shots=3)
    assert min(found.realised["rows"]) >= 3
    assert (several[found.rows].sum(axis=1) == 0).sum() == 3


@pytest.mark.parametrize(("kind", "unit"), SETTINGS)
def test_everything_is_one_draw(kind: dict[str, Any], unit: str) -> None:
    labels, groups = _labels(kind["task"]), _groups()
    one, other = (draw(labels, **kind, fraction=1.0, seed=s, groups=groups, unit=unit) for s in (3, 4))
    assert one.seed == other.seed == 0
    assert one.rows.tolist() == other.rows.tolist() == list(range(len(labels)))
    assert one.realised == other.realised


def test_a_draw_depends_on_its_seed_alone() -> None:
    labels = _labels("multiclass")
    first, again, other = (draw(labels, **MULTICLASS, fraction=0.05, seed=s).rows.tolist() for s in (1, 1, 2))
    assert first == again != other


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 9999),
    n=st.integers(10, 300),
    n_groups=st.integers(2, 60),
    task=st.sampled_from(["multiclass", "multilabel"]),
)
def test_folds_and_splits_never_divide_a_group(seed: int, n: int, n_groups: int, task: str) -> None:
    labels = _labels(task, n, seed)
    groups = np.random.default_rng(seed).integers(0, n_groups, n)
    split = stratified_split(
        labels,
        task=task,
        n_classes=4,
        fractions={"train": 0.7, "val": 0.1, "test": 0.2},
        groups=groups.tolist(),
        seed=seed,
    )
    assert sorted(np.concatenate(list(split.values())).tolist()) == list(range(n))
    held = [set(groups[rows]) for rows in split.values()]
    assert sum(map(len, held)) == len(set(groups))
    fold = folds(labels, task=task, n_classes=4, groups=groups.tolist(), seed=seed)
    if fold is not None:
        assert set(fold) == set(range(fold.max() + 1))
        assert all(len(set(fold[groups == g])) == 1 for g in set(groups))


@pytest.mark.parametrize(("rarest", "n_folds"), [(9, 5), (5, 5), (3, 3), (2, 2), (1, None)])
def test_there_are_as_many_folds_as_the_rarest_class_has_rows_up_to_five(rarest: int, n_folds: int | None) -> None:
    labels = np.array([0] * 40 + [2] * rarest)
    fold = folds(labels, **MULTICLASS)
    assert (None if fold is None else fold.max() + 1) == n_folds
    if fold is not None:
        per_fold = np.bincount(fold[labels == 2], minlength=fold.max() + 1)
        assert per_fold.min() >= 1
        assert np.ptp(per_fold) <= 1


def test_with_groups_the_rarest_class_is_counted_in_groups() -> None:
    labels = np.array([0] * 30 + [1] * 30)
    groups = [f"a{k % 10}" for k in range(30)] + [f"b{k % 3}" for k in range(30)]
    fold = folds(labels, task="binary", n_classes=2, groups=groups)
    assert fold is not None
    assert fold.max() == 2
    one_group = groups[:30] + ["b0"] * 30
    assert folds(labels, task="binary", n_classes=2, groups=one_group) is None


def test_constant_and_single_labels_do_not_stop_multilabel_folds() -> None:
    labels = np.zeros((40, 4), dtype=int)
    labels[:20, 0] = labels[::4, 1] = labels[3, 2] = 1
    fold = folds(labels, **MULTILABEL)
    assert fold is not None
    assert fold.max() == 4
    labels[:, 1], labels[2:, 0] = 0, 0
    assert folds(labels, **MULTILABEL).max() == 1  # type: ignore[union-attr]
    labels[1, 0] = 0
    assert folds(labels, **MULTILABEL) is None


def test_every_class_can_be_fitted_whichever_fold_is_held_out() -> None:
    for seed in range(30):
        rng = np.random.default_rng(seed)
        groups, labels = rng.integers(0, 14, 60), rng.choice(3, 60, p=[0.8, 0.14, 0.06])
        fold = folds(labels, task="multiclass", n_classes=3, groups=groups.tolist(), seed=seed)
        if fold is not None:
            assert all(len(set(fold[labels == k])) >= 2 for k in set(labels))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fraction": 0.1, "shots": 3}, "exactly one"),
        ({}, "exactly one"),
        ({"fraction": 0.0}, r"\(0, 1\]"),
        ({"fraction": 1.5}, r"\(0, 1\]"),
        ({"shots": 0}, "at least 1"),
        ({"fraction": 0.1, "unit": "group"}, "needs the group"),
        ({"fraction": 0.1, "unit": "slide"}, "No budget unit 'slide'"),
        ({"fraction": 0.1, "n_classes": 3}, r"from 0 to 2, found 3"),
        ({"fraction": 0.1, "task": "ternary"}, "No task 'ternary'"),
        ({"fraction": 0.1, "task": "multilabel"}, r"shape \(rows, 4\)"),
    ],
)
def test_what_cannot_be_drawn_is_said(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        draw(_labels("multiclass"), **{**MULTICLASS, **change})


# Draw files ----------------------------------------------------------------------------------------------------------

LABELS = _labels("multiclass", 200)
IDS = [f"image-{k}" for k in range(200)]
SPLIT: dict[str, Any] = {"ids": IDS, "labels": LABELS, **MULTICLASS, "dataset": "pcam", "fingerprint": "f" * 64}


def _written(tmp_path: Path) -> Path:
    path = tmp_path / "draws.json"
    found = [draw(LABELS, **MULTICLASS, fraction=f, seed=s) for f in (0.05, 0.2) for s in (0, 1)]
    write_draws(path, found, ids=IDS, dataset="pcam", fingerprint="f" * 64)
    return path


def test_a_draw_file_gives_back_the_very_same_draws(tmp_path: Path) -> None:
    path = _written(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["draws.json"]
    back = read_draws(path, **SPLIT)
    expected = [draw(LABELS, **MULTICLASS, fraction=f, seed=s) for f in (0.05, 0.2) for s in (0, 1)]
    for one, other in zip(back, expected, strict=True):
        assert one.rows.tolist() == other.rows.tolist()
        assert (one.fraction, one.shots, one.seed, one.realised) == (
            other.fraction,
            other.shots,
            other.seed,
            other.realised,
        )


def test_a_draw_file_finds_its_rows_in_another_order_of_the_split(tmp_path: Path) -> None:
    turned = {**SPLIT, "ids": IDS[::-1], "labels": LABELS[::-1]}
    one, other = read_draws(_written(tmp_path), **turned)[0], read_draws(_written(tmp_path), **SPLIT)[0]
    assert [IDS[::-1][row] for row in one.rows] == [IDS[row] for row in other.rows]


def test_a_minimal_file_written_by_hand_is_enough(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    content = {"format": "mt-draws", "format_version": 1, "dataset": "pcam", "draws": [{"ids": IDS[5:9]}]}
    path.write_text(json.dumps(content))
    [found] = read_draws(path, **SPLIT)
    assert found.rows.tolist() == [5, 6, 7, 8]
    assert found.realised["n_rows"] == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "not a draw file"),
        ({"format_version": 2}, "version 2, this program reads 1"),
        ({"dataset": "nih-cxr14"}, "drawn from dataset 'nih-cxr14', not from 'pcam'"),
        ({"fingerprint": "a" * 64}, "other content of 'pcam'"),
        ({"unit": "slide"}, "'unit' is one of"),
        ({"draws": []}, "holds no draw"),
        ({"draws": [{"ids": []}]}, "non-empty list 'ids'"),
        ({"draws": [3]}, "expected an object"),
        ({"draws": [{"ids": ["image-1"], "realised": [1]}]}, "'realised' must be an object"),
        ({"draws": [{"ids": ["image-1"], "realised": {"forced": ["x"]}}]}, "'realised' must be an object"),
        ({"draws": [{"ids": ["image-1"], "fraction": "some"}]}, r"'fraction' is null or a number in .*, found 'some'"),
        ({"draws": [{"ids": ["image-1"], "shots": 0}]}, "'shots' is null or a whole number of at least 1, found 0"),
        ({"draws": [{"ids": ["image-1"], "shots": 2, "fraction": 0.1}]}, "a 'fraction' or 'shots', found both"),
        ({"draws": [{"ids": ["image-1"], "seed": "x"}]}, "'seed' is a whole number of at least 0, found 'x'"),
        ({"draws": [{"ids": ["image-1", "image-999"]}]}, "lacks 1 of 2 ids: 'image-999'"),
        ({"draws": [{"ids": ["image-1", "image-1"]}]}, "'image-1' is named twice"),
    ],
)
def test_a_draw_file_that_does_not_fit_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = _written(tmp_path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(InputError, match=message):
        read_draws(path, **SPLIT)


def test_a_draw_file_that_is_listed_before_it_is_read_says_the_same(tmp_path: Path) -> None:
    path = _written(tmp_path)
    assert list(list_draws(path)) == [(f, None, s) for f in (0.05, 0.2) for s in (0, 1)]
    for draws, message in (([3], "expected an object"), ([{"ids": ["a"]}, {"ids": ["b"]}], "Give each its own 'seed'")):
        path.write_text(json.dumps({"format": "mt-draws", "format_version": 1, "dataset": "pcam", "draws": draws}))
        with pytest.raises(InputError, match=message):
            list_draws(path)


def test_what_is_no_json_and_what_is_not_there_is_said(tmp_path: Path) -> None:
    (tmp_path / "draws.json").write_text("id\nimage-1\n")
    with pytest.raises(InputError, match="expected JSON"):
        read_draws(tmp_path / "draws.json", **SPLIT)
    with pytest.raises(InputError, match="No draw file"):
        read_draws(tmp_path / "none.json", **SPLIT)
    with pytest.raises(InputError, match="cannot be read"):
        read_draws(tmp_path, **SPLIT)


@pytest.mark.parametrize(
    ("labels", "task", "n_classes", "message"),
    [
        ([0.0, 1.0, np.nan, np.nan], "binary", 2, "2 of 4 rows have a NaN label: remove the rows without a label"),
        ([[0, 1], [np.nan, 1]], "multilabel", 2, "1 of 2 rows have a NaN label"),
        ([0, 0.5, 1], "binary", 2, "binary labels are whole numbers from 0 to 1, found 0.5"),
        ([0, 1, 3, 7], "multiclass", 3, "multiclass labels are whole numbers from 0 to 2, found 3, 7"),
        (["a", "b"], "binary", 2, "binary labels are whole numbers from 0 to 1, found"),
        ([[0, 2], [1, 0]], "multilabel", 2, "multilabel labels are whole numbers from 0 to 1, found 2"),
    ],
    ids=str,
)
@pytest.mark.parametrize("function", [partial(draw, fraction=0.5), folds], ids=["draw", "folds"])
def test_labels_that_are_no_classes_are_named(
    function: Callable[..., Any], labels: Any, task: str, n_classes: int, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        function(np.array(labels), task=task, n_classes=n_classes)
