"""Rows of a matrix in a file that may be larger than memory: a slice reads its rows.

Probing handles such rows like an array; the solver reads them chunk by chunk, again in every pass.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from typing import Protocol, overload

import numpy as np


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
    None for all of them.
    """

    matrix: np.ndarray
    memory: int
    traffic: Traffic
    numbers: np.ndarray | None = None
    scaling: RowScaling | None = None

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
        """Read a slice of the rows as an array, or choose rows by number or mask without reading them."""
        if isinstance(rows, slice):
            raw = self.raw(rows)
            return raw if self.scaling is None else self.scaling.apply(raw, "float64")
        chosen = np.flatnonzero(rows) if rows.dtype == bool else rows
        return replace(self, numbers=chosen if self.numbers is None else self.numbers[chosen])

    def raw(self, rows: slice) -> np.ndarray:
        """Return a copy of some rows as they are stored."""
        found = np.array(self.matrix[rows]) if self.numbers is None else self.matrix[self.numbers[rows]]
        self.traffic.bytes += found.nbytes
        self.traffic.passes += len(found) / len(self)
        return found

    def scaled(self, scaling: RowScaling) -> StreamedRows:
        """Return the same rows, scaled when they are read."""
        return replace(self, scaling=scaling)

    def empty(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return an uninitialised float32 array, in an unnamed file if it takes over a quarter of ``memory``."""
        if 4 * int(np.prod(shape)) <= self.memory // 4:
            return np.empty(shape, dtype=np.float32)
        with tempfile.TemporaryFile() as file:
            return np.memmap(file, dtype=np.float32, mode="w+", shape=shape)
