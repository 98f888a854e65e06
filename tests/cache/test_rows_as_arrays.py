"""Rows that are arrays: the bytes of a file made from lists, in a fraction of the memory; listing files reads few."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mt import types
from mt.cache import FeatureWriter, open_features
from mt.cache.catalog import Catalog
from mt.cache.feature_file.rows import arrays_of
from mt.cache.names import digest_of_cases
from mt.errors import InputError
from mt.system import files
from mt.types import LabelledRows, Texts
from tests.cache import samples


def as_arrays(rows: LabelledRows[None]) -> LabelledRows[None]:
    """Return the rows with all texts as arrays that are wider than they must be."""

    def texts(values: Any) -> Texts:
        return Texts.of([*values, "longer than any of them"])[: len(values)]

    columns = {name: texts(values) if isinstance(values[0], str) else values for name, values in rows.columns.items()}
    groups = None if rows.groups is None else texts(rows.groups)
    return replace(rows, ids=texts(rows.ids), groups=groups, columns=columns)


def many(n: int) -> LabelledRows[None]:
    ids = Texts.of(f"tile-{row:08}" for row in range(n))
    groups = Texts.of(f"P{row // 20:07}" for row in range(n))
    return LabelledRows(None, np.arange(n) % 2, groups, ids, {"sex": Texts.of("FM"[row % 2] for row in range(n))})


def bytes_per_row(step: Callable[[LabelledRows[None]], object]) -> float:
    """Return by how much the peak of a step's memory grows per row."""
    peaks = []
    for n in (20_000, 60_000):
        rows = many(n)
        tracemalloc.start()
        try:
            step(rows)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    return (peaks[1] - peaks[0]) / 40_000


def test_arrays_are_stored_as_lists_are() -> None:
    lists, arrays = arrays_of(samples.rows()), arrays_of(as_arrays(samples.rows()))
    assert lists.keys() == arrays.keys()
    for name, array in lists.items():
        assert array.dtype == arrays[name].dtype
        assert array.dtype.metadata == arrays[name].dtype.metadata
        assert array.tobytes() == arrays[name].tobytes()


def test_ids_groups_and_text_columns_are_read_as_arrays(complete: Path) -> None:
    features = open_features(complete)
    assert isinstance(features.ids, Texts)
    assert isinstance(features.groups, Texts)
    assert isinstance(features.columns["site/view"], Texts)
    assert isinstance(features.columns["age"], list)


def test_an_id_that_an_array_holds_twice_is_named() -> None:
    rows = many(4)
    with pytest.raises(InputError, match="'tile-00000001' is there 2 times"):
        arrays_of(replace(rows, ids=rows.ids[np.array([0, 1, 1, 3])]))  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("step", "most"), [(arrays_of, 40), (digest_of_cases, 10)], ids=["stored", "named in the score database"]
)
def test_a_row_takes_few_bytes(
    step: Callable[[LabelledRows[None]], object], most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(types, "PART", 1_000)  # texts that are Python strings at a time
    step(many(10))  # imports
    assert bytes_per_row(step) < most


def test_the_catalog_reads_about_a_byte_per_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    read = files.read

    def counted(descriptor: int, size: int, offset: int) -> bytes:
        asked.append(size)
        return read(descriptor, size, offset)

    monkeypatch.setattr(files, "read", counted)
    taken = []
    for n in (1_000, 11_000):
        path = tmp_path / f"of-{n}" / "data" / "train" / "dino-0123456789ab.h5"
        FeatureWriter.open(path, many(n), samples.manifest(), dim=4, block_rows=256).close()
        asked.clear()
        (entry,) = Catalog(tmp_path / f"of-{n}").entries()
        assert entry.n_rows == n
        taken.append(sum(asked))
    assert taken[1] - taken[0] < 1.2 * 10_000
