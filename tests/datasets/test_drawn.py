"""The splits that `mt` draws itself: no group is in two of them, and they never change."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mt.cache.content import ContentIndex
from mt.datasets import load_dataset
from mt.datasets.splitting import draw_splits, ids_sha256
from mt.types import MISSING
from tests.datasets import layouts

# The id lists of the splits drawn from the small files of `layouts`: algorithm, fractions and seed of each dataset.
# A change here means that everyone's splits change: raise the revision in mt.datasets.splitting.
PINNED = {
    "aptos2019": {
        "train": "10302d94790098b94f7fc9392cbcf0f11ef7bea3d84d3e8b217226e44ea09522",
        "test": "1b21c9704e7f0a352873ba2c05ee9cb65ec46867a57e871c9a418becd40b95bd",
    },
    "pneumonia": {
        "train": "542fb8b8fdffe52a5b54342904d14af7321175f6d8e777c73f8735874e240d9d",
        "val": "a37b88cfc0f17169cee7f140cb33037227c9a265a81909ed4cca753496c1e089",
    },
    "nih-cxr14": {
        "train": "a2dd9088a7a2de1035bdae2f7d8c3f566161e3629e114d77afad633dd6249146",
        "val": "bbd5d751d357532b80a5e7ad04af280a533a9fa945eeac5b89124ac7ab8d4efb",
    },
    "folder": {
        "train": "bcf679db9f8429e47cad6d136e71a768b12a06ef3ff37c383bab833ff1a0715f",
        "test": "002f0cd7bb9da8eabed14cc3e51b5029e86d1d15ca22ed1c6b669d0337405013",
    },
}


@given(
    labels=st.lists(st.integers(0, 3), min_size=2, max_size=60),
    group_count=st.integers(1, 20),
    seed=st.integers(0, 5),
)
def test_groups_never_cross_and_rows_are_all_there(labels: list[int], group_count: int, seed: int) -> None:
    ids = [f"{row:03d}" for row in range(len(labels))]
    groups = [f"g{row * 7 % group_count}" for row in range(len(labels))]
    rows, record = draw_splits(ids, np.array(labels), fractions={"train": 0.8, "test": 0.2}, groups=groups, seed=seed)
    assert sorted(np.concatenate(list(rows.values())).tolist()) == list(range(len(labels)))
    assert not {groups[row] for row in rows["train"]} & {groups[row] for row in rows["test"]}
    assert record["rows"] == {name: len(chosen) for name, chosen in rows.items()}


def test_the_order_of_listing_changes_nothing() -> None:
    ids, labels = [f"{row:03d}" for row in range(50)], np.arange(50) % 3
    shuffled = np.random.default_rng(0).permutation(50)
    one, _ = draw_splits(ids, labels, fractions={"a": 0.5, "b": 0.5})
    two, _ = draw_splits([ids[row] for row in shuffled], labels[shuffled], fractions={"a": 0.5, "b": 0.5})
    assert {ids[row] for row in one["a"]} == {ids[shuffled[row]] for row in two["a"]}


def test_id_lists_are_hashed_as_anyone_can() -> None:
    assert ids_sha256(["b", "a"]) == hashlib.sha256(b"a\nb\n").hexdigest()


@pytest.mark.parametrize("name", ["aptos2019", "pneumonia", "nih-cxr14", "folder"])
def test_drawn_splits_are_pinned(data: Path, index: ContentIndex, name: str) -> None:
    write: dict[str, Callable[[Path], object]] = {
        "aptos2019": layouts.write_aptos,
        "pneumonia": layouts.write_pneumonia,
        "nih-cxr14": layouts.write_nih,
        "folder": layouts.write_folder,
    }
    write[name](data / name)
    dataset = load_dataset(f"folder:{data / name}" if name == "folder" else name, data, index=index)
    (record,) = dataset.drawn.values()
    for split, expected in record["ids_sha256"].items():
        assert ids_sha256(dataset.splits[split].ids) == expected
    assert record["ids_sha256"] == PINNED[name]


@pytest.mark.parametrize("grouped", [False, True])
def test_unlabelled_rows_are_trained_on_and_change_no_draw(grouped: bool) -> None:
    ids, labels = [f"{row:03d}" for row in range(60)], np.arange(60) % 3
    groups = [f"g{row // 4}" for row in range(60)] if grouped else None
    fractions = {"train": 0.8, "test": 0.2}
    alone, _ = draw_splits(ids, labels, fractions=fractions, groups=groups)
    more = [f"{row:03d}x" for row in range(20)]
    both, record = draw_splits(
        [*more, *ids],
        np.concatenate([np.full(20, MISSING), labels]),
        fractions=fractions,
        groups=None if groups is None else [*["new"] * 20, *groups],
    )
    assert both["train"].tolist() == [*range(20), *(alone["train"] + 20)]
    assert both["test"].tolist() == (alone["test"] + 20).tolist()
    assert record["rows"] == {name: len(rows) for name, rows in both.items()}


def test_a_row_without_any_of_several_labels_changes_no_draw() -> None:
    ids, labels = [f"{row:03d}" for row in range(60)], np.arange(120).reshape(60, 2) % 3 % 2
    fractions = {"train": 0.8, "test": 0.2}
    alone, _ = draw_splits(ids, labels, fractions=fractions)
    both, _ = draw_splits([*ids, "x"], np.vstack([labels, [[MISSING, MISSING]]]), fractions=fractions)
    assert both["train"].tolist() == [*alone["train"], 60]
    assert both["test"].tolist() == alone["test"].tolist()


def test_an_unlabelled_row_follows_its_group() -> None:
    labels = np.array([MISSING if row % 4 == 0 else row % 2 for row in range(80)])
    groups = [f"g{row // 4}" for row in range(80)]
    rows, _ = draw_splits([f"{row:03d}" for row in range(80)], labels, fractions={"a": 0.5, "b": 0.5}, groups=groups)
    assert len(rows["b"])
    assert not {groups[row] for row in rows["a"]} & {groups[row] for row in rows["b"]}
