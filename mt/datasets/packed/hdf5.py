"""Read rows of one HDF5 dataset without the HDF5 library, which is asked only once where the bytes are.

h5py serialises all threads on one lock, and its handles must not cross a fork; reads at a file offset have neither
limit.
"""

from __future__ import annotations

import os
import threading
import zlib
from collections import OrderedDict
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mt.errors import DatasetError

if TYPE_CHECKING:
    import h5py

# Decompressed chunks that threads working on neighbouring rows share: at most this many bytes, but always two.
CACHE_BYTES = 32 * 2**20
_GZIP, _SHUFFLE = 1, 2


class Hdf5Rows:
    """Rows of the dataset `key` of a file, shape (n, ...): contiguous or chunked, with gzip and shuffle filters.

    What else HDF5 can hold (other filters, external files) is read by h5py, slowly.

    Raises:
        DatasetError: not an HDF5 file, a damaged one, or no such dataset in it.
    """

    def __init__(self, path: Path, key: str) -> None:
        import h5py

        self.path, self.key = path, key
        try:
            with h5py.File(path, "r") as file:
                dataset = file[key]
                self.shape: tuple[int, ...] = dataset.shape
                self.dtype: np.dtype[Any] = dataset.dtype
                self._layout = _layout(dataset)
        except (OSError, KeyError, AttributeError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise DatasetError(f"{path} is not a readable HDF5 file with a dataset '{key}' ({reason}).") from error
        self._row_bytes = int(np.prod(self.shape[1:])) * self.dtype.itemsize
        self._lock = threading.Lock()
        self._descriptor: tuple[int, int] | None = None
        self._cache: OrderedDict[int, Future[np.ndarray]] = OrderedDict()

    def __reduce__(self) -> tuple[type[Hdf5Rows], tuple[Path, str]]:
        """Let another process open the file itself."""
        return Hdf5Rows, (self.path, self.key)

    def __len__(self) -> int:
        return self.shape[0]

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return rows `start` to `stop` as an array of their own.  Threads may call it at once.

        Raises:
            DatasetError: the file is cut short, or a chunk does not decompress.
        """
        stop = min(stop, len(self))
        if self._layout is None:
            return self._read_by_h5py(start, stop)
        if self._layout.offset is not None:
            rows = np.empty((stop - start, *self.shape[1:]), dtype=self.dtype)
            self._read_into(rows, self._layout.offset + start * self._row_bytes)
            return rows
        step = self._layout.chunk[0]
        parts = [
            self._band(number)[max(start - number * step, 0) : stop - number * step]
            for number in range(start // step, -(-stop // step))
        ]
        return np.concatenate(parts)

    def _read_by_h5py(self, start: int, stop: int) -> np.ndarray:
        import h5py

        with self._lock, h5py.File(self.path, "r") as file:
            return np.asarray(file[self.key][start:stop])

    def _band(self, number: int) -> np.ndarray:
        """Return all rows of the chunks that start at one row, decompressed by the first thread that asks."""
        with self._lock:
            band = self._cache.get(number)
            mine = band is None
            if band is None:
                band = self._cache[number] = Future()
            self._cache.move_to_end(number)
            while len(self._cache) > max(2, CACHE_BYTES // (self._layout_of_chunks.chunk[0] * self._row_bytes)):
                self._cache.popitem(last=False)
        if mine:
            try:
                band.set_result(self._decompressed(number))
            except BaseException as error:
                band.set_exception(error)
        return band.result()

    @property
    def _layout_of_chunks(self) -> _Layout:
        assert self._layout is not None
        return self._layout

    def _decompressed(self, number: int) -> np.ndarray:
        layout = self._layout_of_chunks
        first = number * layout.chunk[0]
        band = np.zeros((min(layout.chunk[0], len(self) - first), *self.shape[1:]), dtype=self.dtype)
        for piece in layout.pieces.get(number, ()):
            raw = np.empty(piece.size, dtype=np.uint8)
            self._read_into(raw, piece.offset)
            values = self._unfiltered(raw, piece.filter_mask).reshape(layout.chunk)
            sides = zip(piece.origin[1:], layout.chunk[1:], strict=True)
            target = band[(slice(None), *(slice(low, low + side) for low, side in sides))]
            target[...] = values[tuple(slice(0, side) for side in target.shape)]
        return band

    def _unfiltered(self, raw: np.ndarray, filter_mask: int) -> np.ndarray:
        """Return a chunk's elements: filters undone last to first, those that its mask marks as skipped omitted."""
        data = raw
        for position, code in reversed(list(enumerate(self._layout_of_chunks.filters))):
            if filter_mask >> position & 1:
                continue
            if code == _GZIP:
                try:
                    data = np.frombuffer(zlib.decompress(data.data), dtype=np.uint8)
                except zlib.error as error:
                    raise DatasetError(f"{self.path} is damaged: a chunk does not decompress ({error}).") from error
            else:
                data = np.ascontiguousarray(data.reshape(self.dtype.itemsize, -1).T).reshape(-1)
        return data.view(self.dtype)

    def _read_into(self, array: np.ndarray, offset: int) -> None:
        view = array.reshape(-1).view(np.uint8).data
        descriptor = self._open()
        while len(view):
            count = os.preadv(descriptor, [view], offset)
            if not count:
                raise DatasetError(f"{self.path} is cut short: it ends at byte {offset:,}. Download it again.")
            view, offset = view[count:], offset + count

    def _open(self) -> int:
        """Return a descriptor that this process opened: none is shared across a fork."""
        with self._lock:
            if self._descriptor is None or self._descriptor[0] != os.getpid():
                self._descriptor = (os.getpid(), os.open(self.path, os.O_RDONLY))
            return self._descriptor[1]

    def __del__(self) -> None:
        descriptor = getattr(self, "_descriptor", None)
        if descriptor is not None and descriptor[0] == os.getpid():
            os.close(descriptor[1])


@dataclass(frozen=True)
class _Piece:
    """One chunk: the index of its first element, and where its bytes lie."""

    origin: tuple[int, ...]
    offset: int
    size: int
    filter_mask: int


@dataclass(frozen=True)
class _Layout:
    """Where a dataset's bytes are: from one offset on, or in chunks, keyed by the number of their row of chunks."""

    offset: int | None = None
    chunk: tuple[int, ...] = ()
    filters: tuple[int, ...] = ()
    pieces: dict[int, list[_Piece]] = field(default_factory=dict)


def _layout(dataset: h5py.Dataset) -> _Layout | None:
    """Return where the bytes are, None if only the library can read them."""
    settings = dataset.id.get_create_plist()
    filters = tuple(settings.get_filter(position)[0] for position in range(settings.get_nfilters()))
    if set(filters) - {_GZIP, _SHUFFLE} or dataset.file.userblock_size or dataset.external or dataset.is_virtual:
        return None
    if not dataset.chunks:
        offset = dataset.id.get_offset()
        return None if offset is None else _Layout(offset=offset)
    layout = _Layout(chunk=dataset.chunks, filters=filters)

    def add(stored: Any) -> None:
        piece = _Piece(tuple(stored.chunk_offset), stored.byte_offset, stored.size, stored.filter_mask)
        layout.pieces.setdefault(piece.origin[0] // layout.chunk[0], []).append(piece)

    dataset.id.chunk_iter(add)
    return layout
