"""Where a published dataset's files are, and its packed files unpacked once."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from mt.cache.names import digest
from mt.datasets.registry import DatasetRequest
from mt.errors import DatasetError
from mt.system import files
from mt.terminal import progress

_BLOCK = 2**22


def dataset_folder(request: DatasetRequest, names: Sequence[str], *, marker: str) -> Path:
    """Return the first folder below the data folder (by these names, or itself) that holds a file like `marker`.

    Raises:
        DatasetError: none does; the message says what was looked for, where, and how to get it.
    """
    places = [request.data_dir / name for name in names] + [request.data_dir]
    for place in places:
        if any(place.glob(marker)):
            return place
    raise missing(request, marker, places)


def missing(request: DatasetRequest, what: str, places: Sequence[Path]) -> DatasetError:
    """Return the error for a file that is in none of the places."""
    looked = ", ".join(str(place) for place in places)
    obtain = request.spec.obtain.replace("DATA", str(request.data_dir))
    return DatasetError(
        f"{request.name}: no {what} in {looked}. Expected there: {request.spec.layout}. {obtain} "
        "(Another folder: --data-dir)"
    )


def gunzipped(packed: Path) -> Path:
    """Return the file that `packed` (NAME.gz) holds, decompressed once into NAME beside it.

    Where that folder cannot be written, into the user's own folder.  The file appears whole or not at all.

    Raises:
        DatasetError: not gzip, cut short, or damaged.
    """
    beside = packed.with_suffix("")
    target = beside if os.access(packed.parent, os.W_OK) else unpacked_path(packed, beside.name)
    if not target.exists():
        try:
            with gzip.open(packed, "rb") as stream:
                copy_whole(stream, target, label=f"decompressing {packed.name}", size=_unpacked_size(packed))
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DatasetError(f"{packed} is damaged or cut short ({error}). Download it again.") from error
    return target


def _unpacked_size(packed: Path) -> int:
    """Return how large a .gz becomes: it records that modulo 4 GiB, and images hardly grow by compression."""
    size = packed.stat().st_size
    with open(packed, "rb") as file:
        file.seek(max(size - 4, 0))
        recorded = int.from_bytes(file.read(4), "little")
    return recorded + max(0, -(-(size - recorded) // 2**32)) * 2**32


def unpacked_path(packed: Path, name: str) -> Path:
    """Return a path in the user's folder for what a file holds; it changes when the file changes."""
    stat = packed.stat()
    key = digest([str(packed.absolute()), stat.st_size, stat.st_mtime_ns])
    return files.user_dir() / "unpacked" / key[:16] / name


def copy_whole(stream: IO[bytes] | gzip.GzipFile, target: Path, *, label: str, size: int) -> None:
    """Copy a stream of about `size` bytes into a file that appears under its name only once it is whole and on disk."""
    files.make_folder(target.parent)
    with (
        files.whole(target) as aside,
        aside.open("wb") as file,
        progress.bar(label, size // _BLOCK, unit="blocks of 4 MiB") as advance,
    ):
        while block := stream.read(_BLOCK):
            file.write(block)
            advance(1)
