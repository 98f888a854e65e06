"""Creation of a feature file: HDF5 lays it out, through our own writes, and the seal closes it."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mt.cache.feature_file.format import DIGEST, UNLABELLED, USER_BLOCK, VERSION, FileLayout, seal_of
from mt.cache.feature_file.rows import hash_of, is_unlabelled
from mt.cache.names import JSON, canonical
from mt.system import files

if TYPE_CHECKING:
    import numpy as np

FORMAT = "mt-features"
_STRUCTURE = 1 << 14  # bytes per dataset that HDF5 may need for its own structure


@dataclass(frozen=True)
class _Shape:
    """The sizes of a file: rows, values per row and their type, rows per checksum."""

    n_rows: int
    dim: int
    dtype: str
    block_rows: int

    @property
    def itemsize(self) -> int:
        return {"float32": 4, "float16": 2}[self.dtype]

    @property
    def n_blocks(self) -> int:
        return -(-self.n_rows // self.block_rows)

    @property
    def mutable_bytes(self) -> int:
        return self.n_rows * (self.dim * self.itemsize + 1) + self.n_blocks * DIGEST


def create(
    path: Path, arrays: Mapping[str, np.ndarray], manifest: dict[str, JSON], *, dim: int, dtype: str, block_rows: int
) -> None:
    """Write a complete, sealed and synced feature file without any embedding; the caller names it.

    arrays: what `arrays_of` returns of its rows.
    Two calls with the same arguments write the same bytes.  Raises NoSpaceError if the disk lacks the space; then no
    file is left behind.
    """
    shape = _Shape(len(arrays["ids"]), dim, dtype, block_rows)
    version = UNLABELLED if is_unlabelled(arrays["labels"]).any() else VERSION
    text = canonical({**manifest, "format": FORMAT, "format_version": version, "rows": hash_of(arrays)})
    descriptor = files.create(path)
    try:
        sealed = len(text) + sum(array.nbytes + _STRUCTURE for array in arrays.values()) + 8 * _STRUCTURE
        files.reserve(descriptor, USER_BLOCK + sealed + shape.mutable_bytes, path.with_suffix(".h5"))
        layout = replace(_lay_out(descriptor, arrays, text, shape, version), version=version)
        files.truncate(descriptor, layout.file_size)
        files.write(descriptor, replace(layout, seal=seal_of(descriptor, layout)).pack(), 0)
        files.sync(descriptor)
    except BaseException:
        files.remove(path)
        raise
    finally:
        os.close(descriptor)


def _lay_out(descriptor: int, arrays: Mapping[str, np.ndarray], text: bytes, shape: _Shape, version: int) -> FileLayout:
    """Let HDF5 write all but the rows; return where it placed everything."""
    import h5py
    import numpy as np

    sink = _Sink(descriptor)
    with h5py.File(
        sink,
        "w",
        userblock_size=USER_BLOCK,
        libver=("v108", "v108"),
        track_order=False,
        alignment_threshold=1,
        alignment_interval=USER_BLOCK,
    ) as file:
        file.attrs["format"] = np.bytes_(FORMAT)
        file.attrs["format_version"] = np.int64(version)
        manifest = np.array(text, dtype=h5py.string_dtype("utf-8", len(text)))
        manifest_at = _dataset(file, "manifest", manifest)
        for name, array in arrays.items():
            _dataset(file, name, array)
        blocks_at = _empty(file, "blocks", (shape.n_blocks, DIGEST), "u1").get_offset()
        status_at = _empty(file, "status", (shape.n_rows,), "u1").get_offset()
        embeddings_at = _empty(file, "embeddings", (shape.n_rows, shape.dim), f"<f{shape.itemsize}").get_offset()
    if sink.error is not None:
        raise sink.error
    return FileLayout(
        file_size=sink.size,
        n_rows=shape.n_rows,
        dim=shape.dim,
        dtype=shape.dtype,
        block_rows=shape.block_rows,
        embeddings=embeddings_at,
        status=status_at,
        blocks=blocks_at,
        manifest=manifest_at,
        manifest_size=len(text),
        manifest_sha256=hashlib.sha256(text).digest(),
    )


def _dataset(file: Any, name: str, array: np.ndarray) -> int:
    """Write an array as a contiguous dataset; return its offset."""
    import h5py

    dataset = _empty(file, name, array.shape, array.dtype)
    dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, array)
    offset: int = dataset.get_offset()
    return offset


def _empty(file: Any, name: str, shape: tuple[int, ...], dtype: Any) -> Any:
    """Create a contiguous dataset, allocated now, never filled: its space is zeros already.  No times are kept."""
    import h5py
    import numpy as np

    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_layout(h5py.h5d.CONTIGUOUS)
    creation.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    creation.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    creation.set_obj_track_times(False)
    links = h5py.h5p.create(h5py.h5p.LINK_CREATE)
    links.set_create_intermediate_group(True)
    links.set_char_encoding(h5py.h5t.CSET_UTF8)
    kind = h5py.h5t.py_create(np.dtype(dtype), logical=True)
    return h5py.h5d.create(file.id, name.encode(), kind, h5py.h5s.create_simple(shape), creation, lcpl=links)


class _Sink(io.RawIOBase):
    """A file for HDF5 whose writes are ours.

    HDF5 cannot be trusted with an exception from a write, so the first one is kept and raised afterwards.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.at = 0
        self.size = 0
        self.error: Exception | None = None

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self.at = offset if whence == os.SEEK_SET else self.size + offset
        return self.at

    def tell(self) -> int:
        return self.at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        view[:] = files.read(self.descriptor, len(view), self.at).ljust(len(view), b"\0")
        self.at += len(view)
        return len(view)

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        try:
            files.write(self.descriptor, data, self.at)
        except OSError as error:
            self.error = self.error or error
        self.at += size
        self.size = max(self.size, self.at)
        return size

    def truncate(self, size: int | None = None) -> int:
        """HDF5 says how long its file is; the space is reserved already."""
        self.size = self.at if size is None else size
        return self.size
