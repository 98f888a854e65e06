"""The arrays that a feature file holds beside its embeddings, read by HDF5 from the bytes that were checked."""

from __future__ import annotations

import io
import mmap
import os
from typing import TYPE_CHECKING, Any

from mt.cache.feature_file.format import FileLayout
from mt.cache.feature_file.rows import COLUMNS, decoded

if TYPE_CHECKING:
    import numpy as np


def stored_rows(mapped: mmap.mmap) -> dict[str, np.ndarray]:
    """Read ids, labels, groups and columns, by dataset name, from a mapped file whose seal has been checked."""
    import h5py

    with h5py.File(_Mapped(mapped), "r") as opened:
        names = ["ids", "labels", *(["groups"] if "groups" in opened else [])]
        names += [COLUMNS + name for name in opened.get("columns", ())]
        return {name: opened[name][()] for name in names}


def row_ids(descriptor: int, layout: FileLayout) -> list[str]:
    """Return the ids of all rows of an open file, complete or not, whose seal has been checked."""
    with mmap.mmap(descriptor, layout.file_size, access=mmap.ACCESS_READ) as mapped:
        return decoded(stored_rows(mapped)["ids"])


class _Mapped(io.RawIOBase):
    """The mapped bytes as a file for HDF5: the same file that was checked, whatever its name leads to by now."""

    def __init__(self, mapped: mmap.mmap) -> None:
        self.mapped = mapped
        self.at = 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self.at = offset if whence == os.SEEK_SET else len(self.mapped) + offset
        return self.at

    def tell(self) -> int:
        return self.at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        part = self.mapped[self.at : self.at + len(view)]
        view[: len(part)] = part
        self.at += len(part)
        return len(part)
