"""The formats by suffix, and the files of a folder: one file per case."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from mt.errors import InputError
from mt.importing.readers.matrix import Matrix

SUFFIXES = (".npy", ".npz", ".parquet", ".csv", ".tsv", ".pt", ".pth", ".safetensors", ".h5", ".hdf5")
# CLAM keeps the same features twice (mahmoodlab/CLAM, extract_features_fp.py); the first one is taken.
_CLAM = ("h5_files", "pt_files")


def open_matrix(path: Path, key: str | None) -> Matrix:
    """Return the embeddings of a file, whose suffix names its format.

    Raises InputError for a file that is not there, of an unknown suffix, or damaged.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"{path} is of no format that mt imports. Expected: {', '.join(SUFFIXES)}, or a folder.")
    if not path.is_file():
        raise InputError(f"No file {path}. Name files of embeddings, or a folder with one file per case.")
    try:
        return _reader(suffix)(path, key)
    except PermissionError as error:
        raise InputError(f"Cannot read {path}: {error.strerror}.") from error


def _reader(suffix: str) -> Callable[[Path, str | None], Matrix]:
    from mt.importing.readers import feature_tables, hdf5_features, numpy_files, tensor_files

    readers: dict[str, Callable[[Path, str | None], Matrix]] = {
        ".npy": lambda path, key: numpy_files.open_npy(path),
        ".npz": numpy_files.open_npz,
        ".parquet": feature_tables.open_parquet,
        ".csv": feature_tables.open_csv,
        ".tsv": feature_tables.open_csv,
        ".pt": tensor_files.open_pt,
        ".pth": tensor_files.open_pt,
        ".safetensors": tensor_files.open_safetensors,
        ".h5": hdf5_features.open_hdf5,
        ".hdf5": hdf5_features.open_hdf5,
    }
    return readers[suffix]


def files_of(folder: Path) -> list[Path]:
    """Return the files of embeddings in a folder, one per case, in the order of their names.

    Raises InputError for a folder without any, with several formats, or with a link that leads out of it.
    """
    for name in _CLAM:
        if (folder / name).is_dir():
            folder = folder / name
            break
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.name[0] != ".")
    kinds = sorted({path.suffix.lower() for path in found})
    if not found:
        raise InputError(f"{folder} holds no files of embeddings. Expected one per case: {', '.join(SUFFIXES)}")
    if len(kinds) > 1:
        raise InputError(f"{folder} holds {', '.join(kinds)}. Expected one format: keep the others elsewhere.")
    home = os.path.realpath(folder)
    for path in found:
        if path.is_symlink() and os.path.dirname(os.path.realpath(path)) != home:
            raise InputError(f"{path} is a link that leads out of {folder}. Copy the file there.")
    return found
