"""What can be said of a feature file by a few plain reads, without HDF5 or numpy."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path

from mt.cache.feature_file import format
from mt.cache.feature_file.status import Status
from mt.cache.fingerprint import JSON
from mt.errors import CacheError, IncompleteError
from mt.system import files, folders


@dataclass(frozen=True)
class Summary:
    """A file's manifest and sizes.

    n_ok: rows that have an embedding.  n_skipped: rows whose image gave none.  The others are not computed yet.
    """

    manifest: dict[str, JSON]
    n_rows: int
    n_ok: int
    n_skipped: int
    dim: int
    dtype: str
    block_rows: int
    n_blocks: int
    n_blocks_done: int

    @property
    def complete(self) -> bool:
        return self.n_blocks_done == self.n_blocks


def peek(path: Path) -> Summary:
    """Read the user block and the manifest, each checked, the table of checksums and the rows' status.

    Raises NotAFeatureFileError, DamagedError or CacheError.
    """
    descriptor = format.open_for_reading(path)
    try:
        layout = format.read_layout(descriptor, path)
        manifest = format.read_manifest(descriptor, layout, path)
        done = format.count_done(descriptor, layout, path)
        status = files.read(descriptor, layout.n_rows, layout.status)
    finally:
        os.close(descriptor)
    n_ok, n_missing = status.count(Status.OK), status.count(Status.MISSING)
    return Summary(
        manifest, layout.n_rows, n_ok, layout.n_rows - n_ok - n_missing, layout.dim, layout.dtype,
        layout.block_rows, layout.n_blocks, done,
    )  # fmt: skip


def status_counts(path: Path) -> dict[str, int]:
    """Return the number of rows of each status that occurs, by its lower-case name."""
    descriptor = format.open_for_reading(path)
    try:
        layout = format.read_layout(descriptor, path)
        status = files.read(descriptor, layout.n_rows, layout.status)
    finally:
        os.close(descriptor)
    return {one.name.lower(): status.count(one) for one in Status if one in status}


def is_complete(path: str | os.PathLike[str]) -> bool:
    """Say whether a file is there, undamaged as far as a peek shows, and has all its rows."""
    try:
        return peek(Path(path)).complete
    except CacheError:
        return False


def missing_error(path: Path) -> CacheError:
    """Return the error for a path without a file: an IncompleteError where a partial file stands beside it."""
    partial = path.with_suffix(".partial")
    if not partial.exists():
        return CacheError(f"No feature file {path}. See: mt cache list")
    summary = peek(partial)
    return _incomplete(partial, summary.manifest, summary.n_blocks_done * summary.block_rows, summary.n_rows)


def incomplete(path: Path, manifest: dict[str, JSON], layout: format.FileLayout, done: int) -> IncompleteError:
    """Return the error for a file that lacks blocks, with the command that finishes it."""
    return _incomplete(path, manifest, done * layout.block_rows, layout.n_rows)


def _incomplete(path: Path, manifest: dict[str, JSON], done: int, rows: int) -> IncompleteError:
    command = manifest.get("command") or "mt featurize"
    cache = path.absolute().parent.parent.parent
    if cache != folders.cache_dir():
        command += f" --cache-dir {shlex.quote(str(cache))}"
    return IncompleteError(f"{path} has {min(done, rows)} of {rows} rows. Finish it with: {command}")
