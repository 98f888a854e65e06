"""Arrays inside a NumPy `.npz`, read by rows, so that large archives do not fill the memory."""

from __future__ import annotations

import threading
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from mt.datasets.location import copy_whole, unpacked_path
from mt.errors import DatasetError

# An array up to this size is held in memory; a larger one is unpacked once into a file and mapped.
IN_MEMORY_BYTES = 256 * 2**20
_BROKEN = (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError)


def read_member(path: Path, key: str) -> np.ndarray:
    """Return a whole array of the archive; objects, which would run code, are refused.

    Raises:
        DatasetError: no such key, or a damaged archive.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            return np.asarray(archive[key])
    except _BROKEN as error:
        raise _unreadable(path, key, error) from error


class NpzRows:
    """Rows of the array `key`, read when first asked for; its shape is known at once.

    Raises:
        DatasetError: no such key, a damaged archive, or an array whose size contradicts its header.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path, self.key = path, key
        try:
            with zipfile.ZipFile(path) as archive, archive.open(f"{key}.npy") as member:
                version = np.lib.format.read_magic(member)
                wide = version > (1, 0)
                read = np.lib.format.read_array_header_2_0 if wide else np.lib.format.read_array_header_1_0
                self.shape, fortran, self.dtype = read(member)
                size, header = archive.getinfo(f"{key}.npy").file_size, member.tell()
        except _BROKEN as error:
            raise _unreadable(path, key, error) from error
        self.bytes = int(np.prod(self.shape)) * self.dtype.itemsize
        if fortran or self.dtype.hasobject or size != header + self.bytes:
            raise DatasetError(f"{path}: '{key}' is not a plain array of {self.shape} {self.dtype}.")
        self._rows: np.ndarray | None = None
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[NpzRows], tuple[Path, str]]:
        """Let another process open the archive itself."""
        return NpzRows, (self.path, self.key)

    def __len__(self) -> int:
        return int(self.shape[0])

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return rows `start` to `stop`.  Threads may call it at once."""
        with self._lock:
            if self._rows is None:
                self._rows = read_member(self.path, self.key) if self.bytes <= IN_MEMORY_BYTES else self._mapped()
        return np.array(self._rows[start:stop])

    def _mapped(self) -> np.ndarray:
        target = unpacked_path(self.path, f"{self.key}.npy")
        if not target.exists():
            try:
                with zipfile.ZipFile(self.path) as archive, archive.open(f"{self.key}.npy") as member:
                    copy_whole(member, target, label=f"unpacking {self.path.name}", size=self.bytes)
            except _BROKEN as error:
                raise _unreadable(self.path, self.key, error) from error
        rows: np.ndarray[Any, Any] = np.load(target, mmap_mode="r", allow_pickle=False)
        return rows


def _unreadable(path: Path, key: str, error: Exception) -> DatasetError:
    reason = " ".join(str(error).split())
    return DatasetError(f"{path} is not a readable .npz archive with an array '{key}' ({reason}).")
