"""Rows of a matrix in a file that may be larger than memory: a slice reads its rows.

Probing handles such rows like an array; the solver reads them chunk by chunk, again in every pass.
"""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Protocol, overload

import numpy as np

# Bytes of rows that are read at once.
READ_BYTES = 32 << 20


class RowScaling(Protocol):
    """How a row is scaled before it is fitted: mt.probe.methods.linear.Scaling."""

    @property
    def mean(self) -> np.ndarray: ...
    @property
    def scale(self) -> np.ndarray: ...
    @property
    def unit(self) -> bool: ...
    @property
    def clip(self) -> float: ...
    @property
    def root(self) -> np.ndarray | None: ...
    def apply(self, X: np.ndarray, dtype: str = "float32") -> np.ndarray: ...


@dataclass
class Traffic:
    """How many passes over the rows were read, fractions included, and how many bytes in all."""

    passes: float = 0.0
    bytes: int = 0

    def __str__(self) -> str:
        return f"{self.passes:,.0f} passes over the rows of a fit, {self.bytes / 1e9:,.3g} GB read"


@dataclass(frozen=True, eq=False)
class StreamedRows:
    """Some rows (n, dim) of a mapped matrix, scaled when they are read.

    ``memory``: how many bytes a solve may hold at once.  ``numbers`` (n,): the chosen rows of the matrix, ascending;
    None for all of them.  ``held``: the matrix is in memory.
    """

    matrix: np.ndarray
    memory: int
    traffic: Traffic
    numbers: np.ndarray | None = None
    scaling: RowScaling | None = None
    held: bool = False

    def __len__(self) -> int:
        return len(self.matrix if self.numbers is None else self.numbers)

    @property
    def shape(self) -> tuple[int, int]:
        return len(self), int(self.matrix.shape[1])

    @property
    def size(self) -> int:
        rows, dim = self.shape
        return rows * dim

    @property
    def dtype(self) -> np.dtype:
        return self.matrix.dtype

    @overload
    def __getitem__(self, rows: slice) -> np.ndarray: ...
    @overload
    def __getitem__(self, rows: np.ndarray) -> StreamedRows: ...
    def __getitem__(self, rows: slice | np.ndarray) -> StreamedRows | np.ndarray:
        """Read a slice of the rows as an array, or choose rows by number or mask.

        Chosen rows are read now, once, if a quarter of ``memory`` holds them: scattered rows are slow to read.
        """
        if isinstance(rows, slice):
            raw = self.raw(rows)
            return raw if self.scaling is None else self.scaling.apply(raw, "float64")
        chosen = np.flatnonzero(rows) if rows.dtype == bool else rows
        found = replace(self, numbers=chosen if self.numbers is None else self.numbers[chosen])
        return found._gathered() if 4 * found.size * found.dtype.itemsize <= self.memory else found

    def _gathered(self) -> StreamedRows:
        """Return the same rows, held in memory."""
        matrix = np.empty(self.shape, dtype=self.dtype)
        step = max(1, READ_BYTES // max(1, self.shape[1] * self.dtype.itemsize))
        for start in range(0, len(self), step):
            matrix[start : start + step] = self.raw(slice(start, min(start + step, len(self))))
        return replace(self, matrix=matrix, numbers=None, held=True)

    def raw(self, rows: slice) -> np.ndarray:
        """Return a copy of some rows as they are stored."""
        found = np.array(self.matrix[rows]) if self.numbers is None else self.matrix[self.numbers[rows]]
        self.traffic.passes += len(found) / len(self)
        if len(found) and not self.held:
            self.traffic.bytes += found.nbytes
            first, last = (rows.start, rows.stop - 1) if self.numbers is None else self.numbers[rows][[0, -1]]
            release(self.matrix[first : last + 1])
        return found

    def read_ahead(self, at_once: int) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield (rows, those rows as stored), `at_once` at a time, in order; a thread reads the next ones meanwhile."""
        chunk = at_once * self.shape[1] * self.dtype.itemsize
        step = max(1, min(READ_BYTES, self.memory // 16) // chunk) * at_once
        reads = [slice(start, min(start + step, len(self))) for start in range(0, len(self), step)]
        with ThreadPoolExecutor(1) as reader:
            coming = reader.submit(self.raw, reads[0])
            for rows, following in zip(reads, [*reads[1:], None], strict=True):
                found = coming.result()
                if following is not None:
                    coming = reader.submit(self.raw, following)
                for start in range(0, len(found), at_once):
                    part = found[start : start + at_once]
                    yield slice(rows.start + start, rows.start + start + len(part)), part

    def scaled(self, scaling: RowScaling) -> StreamedRows:
        """Return the same rows, scaled when they are read."""
        return replace(self, scaling=scaling)

    def empty(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return an uninitialised float32 array, in an unnamed file if it takes over a quarter of ``memory``."""
        if 4 * int(np.prod(shape)) <= self.memory // 4:
            return np.empty(shape, dtype=np.float32)
        with tempfile.TemporaryFile() as file:
            return np.memmap(file, dtype=np.float32, mode="w+", shape=shape)


def release(rows: np.ndarray) -> None:
    """Drop these consecutive rows of a mapped file from the process; they stay in the page cache.

    Otherwise they count as the process's memory until the system needs it.  Rows that are not mapped are left alone.
    """
    owner: Any = rows
    while isinstance(owner, (np.ndarray, memoryview)):
        owner = owner.base if isinstance(owner, np.ndarray) else owner.obj
    if isinstance(owner, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        start = rows.ctypes.data - np.frombuffer(owner, dtype=np.uint8).ctypes.data
        whole = -start % mmap.PAGESIZE  # a page that other rows share is kept
        length = (rows.nbytes - whole) // mmap.PAGESIZE * mmap.PAGESIZE
        if length > 0:
            owner.madvise(mmap.MADV_DONTNEED, start + whole, length)
