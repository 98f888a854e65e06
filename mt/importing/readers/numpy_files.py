"""NumPy's files: .npy, read in parts so that memory stays constant, and .npz."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mt.errors import InputError
from mt.importing.readers.matrix import (
    Matrix,
    as_text,
    beside_name,
    checked_shape,
    chosen_key,
    is_beside,
    matrix_of,
    rows_per_part,
    stored_dtype,
)
from mt.types import Array


def open_npy(path: Path) -> Matrix:
    """Return the embeddings of a .npy file."""
    array = load_npy(path)
    if not array.flags.c_contiguous or not isinstance(array, np.memmap):
        return matrix_of(path, array, {})
    n, dim = checked_shape(path, array.shape, array.dtype)
    dtype, offset, step = array.dtype, array.offset, rows_per_part(dim, array.dtype.itemsize)
    del array

    def parts() -> Iterator[Array]:
        for start in range(0, n, step):
            rows = min(step, n - start)
            at = offset + start * dim * dtype.itemsize
            yield np.fromfile(path, dtype=dtype, count=rows * dim, offset=at).reshape(rows, dim)

    return Matrix(path, n, dim, stored_dtype(dtype), parts)


def load_npy(path: Path) -> Array:
    """Return a .npy file's array, mapped; Python objects in it are never unpickled.

    Raises InputError for objects, and for a file that is not a complete .npy file.
    """
    try:
        array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise unusable(path, ".npy", error) from error
    if not isinstance(array, np.ndarray):
        raise InputError(f"{path} is an archive of arrays. Name it .npz.")
    return array


def open_npz(path: Path, key: str | None) -> Matrix:
    """Return the embeddings of a .npz file, and its ids, labels, splits and groups if it holds them."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        raise unusable(path, ".npz", error) from error
    name = chosen_key(path, {name: array.shape for name, array in arrays.items()}, key)
    n, _ = checked_shape(path, arrays[name].shape, arrays[name].dtype, name)
    beside = {
        beside_name(other): as_text(array)
        for other, array in arrays.items()
        if other != name and is_beside(other, array.shape, n)
    }
    return matrix_of(path, arrays[name], beside, what=name)


def unusable(path: Path, kind: str, error: Exception) -> InputError:
    """Return the error for a file that does not load: it holds Python objects, or is damaged."""
    text = " ".join(str(error).split())
    if "pickle" in text.lower() or "Python objects" in text:
        return InputError(
            f"{path} holds pickled Python objects, which mt never loads: they can run code. Save plain numbers: "
            "numpy.save(FILE, array.astype('float32'))"
        )
    return InputError(f"{path} is not a whole {kind} file: {text}")
