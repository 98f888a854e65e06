"""HDF5 files of other programs: TRIDENT's and CLAM's per-slide files, and matrices with ids and labels.

TRIDENT (mahmoodlab/TRIDENT, trident/IO.py and wsi_objects/WSI.py) and CLAM (mahmoodlab/CLAM, extract_features_fp.py)
write one file per slide: `features` (tiles, dim) and `coords` (tiles, 2); TRIDENT's slide encoders write `features`
(dim,).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from mt.cache.feature_file.format import MAGIC
from mt.errors import InputError
from mt.importing.readers.matrix import (
    Matrix,
    as_text,
    beside_name,
    checked_shape,
    chosen_key,
    is_beside,
    rows_per_part,
    stored_dtype,
)
from mt.types import Array

COORDS = "coords"


def open_hdf5(path: Path, key: str | None) -> Matrix:
    """Return the embeddings of an HDF5 file, and its ids, labels, splits and groups if it holds them.

    Nothing outside the file is read: external links, external storage and virtual datasets are refused.
    """
    with path.open("rb") as file:
        if file.read(len(MAGIC)) == MAGIC:
            raise InputError(
                f"{path} is a feature file of mt already. Use its cache folder: --cache-dir, or copy the file there."
            )
    with _opened(path) as datasets:
        name = chosen_key(path, {name: dataset.shape for name, dataset in datasets.items() if name != COORDS}, key)
        dataset = datasets[name]
        n, dim = checked_shape(path, dataset.shape, dataset.dtype, name)
        dtype, three = dataset.dtype, dataset.ndim == 3
        one_case = COORDS in datasets or dataset.ndim in (1, 3)
        beside = {
            beside_name(other): as_text(_values(found))
            for other, found in datasets.items()
            if other != name and is_beside(other, found.shape, n)
        }
    step = rows_per_part(dim, dtype.itemsize)

    def parts() -> Iterator[Array]:
        with _opened(path) as datasets:
            dataset = datasets[name]
            for start in range(0, n, step):
                rows = dataset[0, start : start + step] if three else dataset[start : start + step]
                yield rows.reshape(-1, dim) if dataset.ndim != 1 else dataset[()].reshape(1, dim)

    return Matrix(path, n, dim, stored_dtype(dtype), parts, beside, one_case=one_case)


@contextmanager
def _opened(path: Path) -> Iterator[Mapping[str, Any]]:
    """Yield the datasets at the top of a file by name."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            found = {name: _inside(file, name, path) for name in file}
            yield {name: one for name, one in found.items() if isinstance(one, h5py.Dataset)}
    except (OSError, KeyError, RuntimeError) as error:
        raise InputError(f"{path} is not a whole HDF5 file: {' '.join(str(error).split())[:200]}") from error


def _inside(file: Any, name: str, path: Path) -> Any:
    """Return a dataset or group whose bytes are in the file itself."""
    import h5py

    if isinstance(file.get(name, getlink=True), h5py.ExternalLink):
        raise InputError(f"{path}: '{name}' is a link to another file, which mt does not follow. Copy the data there.")
    found = file[name]
    if isinstance(found, h5py.Dataset) and (found.external or found.is_virtual):
        raise InputError(f"{path}: the values of '{name}' lie in other files, which mt does not read. Copy them there.")
    return found


def _values(dataset: Any) -> Array:
    import h5py

    values = dataset[()]
    if h5py.check_string_dtype(dataset.dtype) is not None:
        return np.array([value.decode("utf-8", "surrogateescape") for value in values.tolist()], dtype=object)
    return np.asarray(values)
