"""Rows of HDF5 datasets read past the library equal what the library reads, however they are stored."""

from __future__ import annotations

import copy
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mt.datasets.packed import hdf5
from mt.datasets.packed.hdf5 import Hdf5Rows
from mt.errors import DatasetError
from tests.noting import noted

IMAGES = np.random.default_rng(0).integers(0, 256, (53, 6, 5, 3), dtype=np.uint8)
STORAGE: dict[str, dict[str, Any]] = {
    "contiguous": {},
    "chunked": {"chunks": (8, 6, 5, 3)},
    "gzip": {"chunks": (8, 6, 5, 3), "compression": "gzip"},
    "gzip and shuffle": {"chunks": (7, 6, 5, 3), "compression": "gzip", "shuffle": True},
    "chunks that cut through images": {"chunks": (16, 4, 2, 2), "compression": "gzip"},
    "chunks chosen by h5py": {"chunks": True, "compression": "gzip"},
    "one chunk larger than all": {"chunks": (53, 6, 5, 3), "compression": "gzip", "maxshape": (None, 6, 5, 3)},
    "checksummed, which only the library reads": {"chunks": (8, 6, 5, 3), "fletcher32": True},
    "lzf, which only the library reads": {"chunks": (8, 6, 5, 3), "compression": "lzf"},
}


def stored(path: Path, data: np.ndarray = IMAGES, **storage: Any) -> Hdf5Rows:
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=data, **storage)
    return Hdf5Rows(path, "x")


@pytest.mark.parametrize("kind", STORAGE)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(bounds=st.tuples(st.integers(0, 53), st.integers(0, 60)))
def test_any_range_of_rows(tmp_path: Path, kind: str, bounds: tuple[int, int]) -> None:
    path = tmp_path / "a.h5"
    rows = Hdf5Rows(path, "x") if path.exists() else stored(path, **STORAGE[kind])
    low, high = min(bounds), max(*bounds, min(bounds) + 1)
    assert np.array_equal(rows.read(min(low, 52), high), IMAGES[min(low, 52) : high])


@pytest.mark.parametrize("shuffle", [False, True])
def test_wider_elements(tmp_path: Path, shuffle: bool) -> None:
    data = np.random.default_rng(1).normal(size=(31, 7))
    rows = stored(tmp_path / "a.h5", data, chunks=(4, 7), compression="gzip", shuffle=shuffle)
    assert np.array_equal(rows.read(3, 29), data[3:29])


def test_chunks_whose_filter_was_skipped(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    stored(path, chunks=(8, 6, 5, 3), compression="gzip")
    plain = np.arange(8 * 90, dtype=np.uint8).reshape(8, 6, 5, 3)
    with h5py.File(path, "r+") as file:
        file["x"].id.write_direct_chunk((8, 0, 0, 0), plain.tobytes(), filter_mask=1)
    assert np.array_equal(Hdf5Rows(path, "x").read(8, 16), plain)


def test_chunks_never_written_are_zeros(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", shape=(20, 3), dtype="u1", chunks=(4, 3), compression="gzip")[4:8] = 7
    assert np.array_equal(Hdf5Rows(tmp_path / "a.h5", "x").read(2, 10)[:, 0], [0, 0, 7, 7, 7, 7, 0, 0])


def test_each_chunk_is_decompressed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = stored(tmp_path / "a.h5", chunks=(8, 6, 5, 3), compression="gzip")
    seen: list[int] = []
    watched = noted(Hdf5Rows._decompressed, lambda self, number: seen.append(number))
    monkeypatch.setattr(Hdf5Rows, "_decompressed", watched)
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(lambda start: rows.read(start, start + 1), range(53)))
    assert np.array_equal(np.concatenate(parts), IMAGES)
    assert sorted(seen) == list(range(7))


def test_decompressed_chunks_are_not_all_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hdf5, "CACHE_BYTES", 3 * 8 * 90)
    rows = stored(tmp_path / "a.h5", chunks=(8, 6, 5, 3), compression="gzip")
    for start in range(53):
        rows.read(start, start + 1)
    assert len(rows._cache) == 3


def test_rows_are_ones_own(tmp_path: Path) -> None:
    rows = stored(tmp_path / "a.h5")
    rows.read(0, 3)[:] = 0
    assert np.array_equal(rows.read(0, 3), IMAGES[:3])


def test_no_handle_is_shared_with_a_forked_process(tmp_path: Path) -> None:
    rows = stored(tmp_path / "a.h5")
    mine = rows._open()
    child = os.fork()
    if not child:
        os._exit(0 if rows._open() != mine and np.array_equal(rows.read(0, 2), IMAGES[:2]) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("storage", [{}, {"chunks": (8, 6, 5, 3), "compression": "gzip"}])
def test_cut_short_or_damaged(tmp_path: Path, storage: dict[str, Any]) -> None:
    path = tmp_path / "a.h5"
    stored(path, **storage)
    whole = path.read_bytes()
    rows = Hdf5Rows(path, "x")
    os.truncate(path, len(whole) // 2)
    with pytest.raises(DatasetError, match=r"a\.h5"):
        rows.read(0, 53)
    with pytest.raises(DatasetError, match=r"a\.h5 is not a readable HDF5 file"):
        Hdf5Rows(path, "x")
    path.write_bytes(b"not HDF5 at all")
    with pytest.raises(DatasetError, match=r"a\.h5 is not a readable HDF5 file"):
        Hdf5Rows(path, "x")
    path.write_bytes(whole)
    with pytest.raises(DatasetError, match="with a dataset 'z'"):
        Hdf5Rows(path, "z")


def test_a_chunk_that_does_not_decompress(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    stored(path, chunks=(8, 6, 5, 3), compression="gzip")
    with h5py.File(path, "r+") as file:
        file["x"].id.write_direct_chunk((8, 0, 0, 0), b"garbage")
    with pytest.raises(DatasetError, match="a chunk does not decompress"):
        Hdf5Rows(path, "x").read(9, 10)


def test_another_process_opens_the_file_itself(tmp_path: Path) -> None:
    rows = stored(tmp_path / "x.h5", chunks=(8, 6, 5, 3), compression="gzip")
    rows.read(0, 10)
    np.testing.assert_array_equal(copy.deepcopy(rows).read(3, 20), IMAGES[3:20])
