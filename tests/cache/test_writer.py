"""The writer: what it stores, what it refuses, when it resumes, and who may write."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from mt.cache import FeatureWriter, Status, is_complete, open_features, status_counts
from mt.cache.exporting import columns
from mt.errors import CacheError, DamagedError, InputError, NotAFeatureFileError
from mt.types import MISSING, LabelledRows
from tests.cache import samples

KEPT = [row for row in range(samples.N) if row != samples.SKIPPED]


def test_what_is_written_is_read(complete: Path) -> None:
    features = open_features(complete, verify=True)
    rows = samples.rows()
    assert (features.n_rows, features.n_ok, features.n_skipped, features.dim) == (11, 10, 1, samples.DIM)
    assert np.array_equal(features.embeddings, samples.embeddings()[KEPT])
    assert np.array_equal(features.labels, rows.y[KEPT])
    assert features.ids == [rows.ids[row] for row in KEPT]
    assert rows.groups is not None
    assert features.groups == [rows.groups[row] for row in KEPT]
    assert features.columns == {name: [values[row] for row in KEPT] for name, values in rows.columns.items()}
    assert features.skipped() == [("bild-é5.png", Status.TRUNCATED)]
    assert status_counts(complete) == {"ok": 10, "truncated": 1}
    assert (features.dataset, features.split, features.backbone) == ("folder:moles", "train", "dino")
    assert (features.task, features.metric, features.class_names) == ("binary", "roc_auc", ("benign", "malignant"))
    assert features.fingerprints["file"] == "f" * 64
    assert features.manifest.items() >= samples.manifest().items()


def test_any_hdf5_tool_reads_it_too(complete: Path) -> None:
    with h5py.File(complete, "r") as file:
        assert np.array_equal(file["embeddings"][KEPT], samples.embeddings()[KEPT])
        assert not file["embeddings"][samples.SKIPPED].any()
        assert list(file["ids"].asstr()[:2]) == ["bild-é0.png", "bild-é1.png"]
        assert json.loads(file["manifest"][()])["dataset"] == "folder:moles"
        assert file["embeddings"].chunks is None
        assert file.attrs["format"] == b"mt-features"


def test_embeddings_are_mapped_and_not_copied_when_nothing_was_skipped(path: Path) -> None:
    with samples.open_writer(path) as writer:
        for block in list(writer.missing):
            values = samples.embeddings()[block * 4 : block * 4 + 4]
            writer.write_block(block, values, np.ones(len(values), "u1"))
        features = open_features(writer.finish())
    assert features.embeddings.base is not None
    assert not features.embeddings.flags.writeable
    assert features.embeddings.ctypes.data % 8 == 0
    assert np.array_equal(features.embeddings, samples.embeddings())


def test_half_precision_and_several_labels(path: Path) -> None:
    labels = np.eye(samples.N, 5, dtype="i1")
    rows = LabelledRows(None, labels, ids=samples.rows().ids)
    with samples.open_writer(path, rows=rows, dtype="float16") as writer:
        samples.fill(writer)
        features = open_features(writer.finish(), verify=True)
    assert features.embeddings.dtype == np.float16
    assert features.labels.dtype == np.int8
    assert np.array_equal(features.labels, labels[KEPT])
    assert features.groups is None
    assert features.columns == {}


def test_the_same_rows_make_the_same_bytes(complete: Path, reference: bytes) -> None:
    assert complete.read_bytes() == reference


def test_columns_keep_numbers_text_and_gaps(path: Path) -> None:
    n = samples.N
    columns: dict[str, list[Any]] = {
        "slide": [f"s{row}" for row in range(n)],
        "count": list(range(n)),
        "age": [None, *[40] * (n - 1)],
        "sex": [None, *["f"] * (n - 1)],
        "a/b": [1.5] * n,
        ".": [2] * n,
        "": [3] * n,
    }
    rows = LabelledRows(None, samples.rows().y, ids=samples.rows().ids, columns=columns)
    samples.write(path, rows=rows)
    read = open_features(path).columns
    assert read["slide"][1] == "s1"
    assert read["count"] == KEPT
    assert np.isnan(read["age"][0])
    assert read["age"][1] == 40.0
    assert read["sex"][:2] == ["", "f"]
    assert (read["a/b"][0], read["."][0], read[""][0]) == (1.5, 2, 3)


def test_a_file_name_that_is_no_utf8_keeps_its_bytes(path: Path) -> None:
    strange = os.fsdecode(b"scan\xff.png")
    rows = LabelledRows(None, samples.rows().y, ids=[strange, *samples.rows().ids[1:]])
    assert open_features(samples.write(path, rows=rows)).ids[0] == strange


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (LabelledRows(None, np.zeros(0, "i8"), ids=[]), "at least one row"),
        (LabelledRows(None, np.zeros(3, "i8"), ids=["a", "b", "a"]), "'a' is there 2 times"),
        (LabelledRows(None, np.zeros(3, "i8"), ids=["a", "b"]), "labels has 3 values for 2 rows"),
        (LabelledRows(None, np.zeros(2, "f4"), ids=["a", "b"]), "Labels must be integers"),
        (LabelledRows(None, np.zeros(2, "i8"), ids=["a", "b"], groups=["x"]), "groups has 1 values for 2 rows"),
        (LabelledRows(None, np.zeros(2, "i8"), ids=["a", "b"], columns={"age": ["old", 3]}), "mixes text and numbers"),
        (LabelledRows(None, np.zeros(2, "i8"), ids=["a", "b\0c"]), "NUL"),
    ],
)
def test_rows_that_cannot_be_stored_are_refused(path: Path, rows: LabelledRows[None], message: str) -> None:
    with pytest.raises(InputError, match=message):
        samples.open_writer(path, rows=rows)
    assert not path.with_suffix(".partial").exists()
    assert not path.with_suffix(".tmp").exists()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_embeddings_that_are_not_finite_are_refused_by_the_ids_of_their_rows(path: Path, value: float) -> None:
    rows = samples.rows(40)
    with samples.open_writer(path, rows=rows, block_rows=40) as writer:
        values = samples.embeddings(40)
        values[3:15, 1] = value
        with pytest.raises(InputError, match=r"^12 embeddings .*: bild-é3\.png, .*bild-é12\.png, \.\.\.\."):
            writer.write_block(0, values, np.ones(40, "u1"))
        assert writer.missing == [0]
        skipped = np.where(np.arange(40) // 3 > 0, Status.UNREADABLE, Status.OK).astype("u1")
        writer.write_block(0, values, skipped)  # rows without an embedding may hold anything


def test_an_embedding_that_overflows_half_precision_is_refused(path: Path) -> None:
    with samples.open_writer(path, dtype="float16") as writer:
        values = np.full((4, samples.DIM), 1e5, "f4")
        with pytest.raises(InputError, match="infinite in float16"):
            writer.write_block(0, values, np.ones(4, "u1"))


def test_blocks_are_written_whole(path: Path) -> None:
    with samples.open_writer(path) as writer:
        with pytest.raises(InputError, match=r"shape \(4, 160\)"):
            writer.write_block(0, samples.embeddings()[:3], np.ones(3, "u1"))
        with pytest.raises(InputError, match="MISSING"):
            writer.write_block(0, samples.embeddings()[:4], np.array([1, 1, 0, 1], "u1"))
        with pytest.raises(InputError, match="unknown"):
            writer.write_block(0, samples.embeddings()[:4], np.array([1, 1, 77, 1], "u1"))
        with pytest.raises(CacheError, match="lacks 3 of 3 blocks"):
            writer.finish()


def test_nothing_is_missing_of_a_file_that_is_complete(complete: Path, reference: bytes) -> None:
    with samples.open_writer(complete) as writer:  # as for a second run, which waited for the first
        assert (writer.missing, writer.created, writer.n_rows) == ([], False, samples.N)
        with pytest.raises(CacheError, match="--overwrite"):
            writer.write_block(0, samples.embeddings()[:4], np.ones(4, "u1"))
        writer.discard()
    with samples.open_writer(complete) as writer:
        assert writer.finish() == complete
    assert complete.read_bytes() == reference
    with pytest.raises(CacheError, match="--overwrite"):
        samples.open_writer(complete, dim=3)


def test_a_damaged_file_says_so_when_it_is_to_be_made(complete: Path) -> None:
    content = bytearray(complete.read_bytes())
    content[20] ^= 1
    complete.write_bytes(content)
    with pytest.raises(DamagedError, match="--overwrite"):
        samples.open_writer(complete)


def test_overwriting_keeps_the_old_file_until_the_new_one_is_complete(complete: Path, reference: bytes) -> None:
    reader = open_features(complete)
    inode = complete.stat().st_ino
    with samples.open_writer(complete, overwrite=True) as writer:
        assert writer.created
        samples.fill(writer, [0])
        assert complete.read_bytes() == reference
    samples.write(complete, overwrite=True)
    assert complete.stat().st_ino != inode
    assert np.array_equal(reader.embeddings, samples.embeddings()[KEPT])


def test_a_closed_writer_writes_nothing(path: Path) -> None:
    with samples.open_writer(path) as writer:
        pass
    with pytest.raises(CacheError, match="closed"):
        writer.write_block(0, samples.embeddings()[:4], np.ones(4, "u1"))


def test_an_unknown_dtype_is_refused(path: Path) -> None:
    with pytest.raises(InputError, match="float32 or float16"):
        samples.open_writer(path, dtype="float64")


def test_nothing_is_complete_before_it_is(path: Path) -> None:
    assert not is_complete(path)
    samples.write_some(path, [0, 1, 2])  # all rows are there, the name is not
    assert not is_complete(path)
    with pytest.raises(CacheError, match="No feature file"):
        open_features(path.with_name("other.h5"))
    with FeatureWriter.open(path, samples.rows(), samples.manifest(), dim=samples.DIM, block_rows=4) as writer:
        assert writer.missing == []
        writer.finish()
    assert is_complete(path)


def test_a_file_with_unlabelled_rows_is_refused_by_readers_that_know_none(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = replace(samples.rows(), y=np.where(np.arange(samples.N) == 2, MISSING, np.arange(samples.N) % 2))
    features = open_features(samples.write(path, rows=rows), verify=True)
    assert features.labels.tolist()[:4] == [0, 1, MISSING, 1]
    assert features.manifest["format_version"] == 3
    with h5py.File(path) as file:
        assert file.attrs["format_version"] == 3
    assert columns(features)["label"][:4] == [0, 1, None, 1]
    labelled = open_features(samples.write(tmp_path / "other.h5"))
    assert labelled.manifest["format_version"] == 2
    monkeypatch.setattr("mt.cache.feature_file.format.READ", (1, 2))
    with pytest.raises(NotAFeatureFileError, match="has format version 3; this mt reads up to version 2"):
        open_features(path)
