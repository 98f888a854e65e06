"""Copies that replace a feature file: with another manifest or more columns, with fewer rows, or joined from parts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mt.cache.feature_file import format
from mt.cache.feature_file.create import create
from mt.cache.names import JSON
from mt.system import files

if TYPE_CHECKING:
    import numpy as np

    from mt.cache.feature_file.read import FeatureFile


def resealed(path: Path, temporary: Path, arrays: Mapping[str, np.ndarray], manifest: dict[str, JSON]) -> None:
    """Write a synced copy of a file with the same blocks, and with another manifest or more arrays of its rows."""
    with _opened(path) as source:
        old = format.read_layout(source, path)
        create(temporary, arrays, manifest, dim=old.dim, dtype=old.dtype, block_rows=old.block_rows)
        with _opened(temporary, writable=True) as target:
            new = format.read_layout(target, temporary)
            for (start, stop), (into, _) in zip(_parts(old), _parts(new), strict=True):
                for at in range(start, stop, files.CHUNK):
                    files.write(target, files.read(source, min(files.CHUNK, stop - at), at), into + at - start)
            files.sync(target)


def without_rows(features: FeatureFile, keep: np.ndarray, temporary: Path, manifest: dict[str, JSON]) -> None:
    """Write a synced copy of a complete file that has only some of its rows.

    keep: (n_rows,) bool, at least one of them true.
    """
    import numpy as np

    arrays = {name: np.ascontiguousarray(array[keep]) for name, array in features.stored.items()}
    kept = np.flatnonzero(keep).tolist()
    with _opened(features.path) as source:
        old = format.read_layout(source, features.path)
        create(temporary, arrays, manifest, dim=old.dim, dtype=old.dtype, block_rows=old.block_rows)
        with _opened(temporary, writable=True) as target:
            new = format.read_layout(target, temporary)
            for block in range(new.n_blocks):
                first, last = new.rows(block)
                rows = kept[first:last]
                status = b"".join(files.read(source, 1, old.status + row) for row in rows)
                values = b"".join(
                    files.read(source, old.row_bytes, old.embeddings + row * old.row_bytes) for row in rows
                )
                files.write(target, values, new.embeddings + first * new.row_bytes)
                files.write(target, status, new.status + first)
                files.write(target, format.block_digest(block, status, values), new.blocks + block * format.DIGEST)
            files.sync(target)


def joined(
    parts: Sequence[Path],
    arrays: Mapping[str, np.ndarray],
    manifest: dict[str, JSON],
    temporary: Path,
    advance: Callable[[int], object] = int,
) -> None:
    """Write a synced file from parts that hold its blocks in order; each block is verified as it is read.

    arrays: those of all rows beside the embeddings.  advance: called with 1 for every block.
    Raises DamagedError if bytes disagree with their checksum, and NoSpaceError if the disk lacks the space.
    """
    with _opened(parts[0]) as source:
        first = format.read_layout(source, parts[0])
    create(temporary, arrays, manifest, dim=first.dim, dtype=first.dtype, block_rows=first.block_rows)
    with _opened(temporary, writable=True) as target:
        new, block = format.read_layout(target, temporary), 0
        for path in parts:
            with _opened(path) as source:
                old = format.read_layout(source, path)
                for number, digest in enumerate(format.read_digests(source, old)):
                    start, stop = old.rows(number)
                    status = files.read(source, stop - start, old.status + start)
                    values = files.read(source, (stop - start) * old.row_bytes, old.embeddings + start * old.row_bytes)
                    if format.block_digest(number, status, values) != digest:
                        raise format.damaged(path, f"its block {number} disagrees with its checksum")
                    at, _ = new.rows(block)
                    files.write(target, values, new.embeddings + at * new.row_bytes)
                    files.write(target, status, new.status + at)
                    files.write(target, format.block_digest(block, status, values), new.blocks + block * format.DIGEST)
                    block += 1
                    advance(1)
        files.sync(target)


def _parts(layout: format.FileLayout) -> list[tuple[int, int]]:
    """Return the byte ranges of status, embeddings and checksums, in the same order for every file."""
    sizes = {
        layout.status: layout.n_rows,
        layout.embeddings: layout.n_rows * layout.row_bytes,
        layout.blocks: layout.n_blocks * format.DIGEST,
    }
    return [(start, start + size) for start, size in sizes.items()]


@contextmanager
def _opened(path: Path, *, writable: bool = False) -> Iterator[int]:
    descriptor = files.open_existing(path, writable=writable)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
