"""Writing a feature file: created whole, filled block by block, and never under its final name until complete.

    created under a temporary name -> synced -> `.partial` -> blocks -> synced -> `.h5`

A block's checksum is written only after the block's rows are on the disk.  So a checksum that exists is true, whenever
the process was killed; a block without one is computed again.  Blocks that arrive faster than one per SYNC_EVERY share
a sync.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from mt.cache.feature_file import format
from mt.cache.feature_file.create import create
from mt.cache.feature_file.format import Status
from mt.cache.feature_file.lock import acquire
from mt.cache.feature_file.resume import agree, with_other_compute
from mt.cache.feature_file.rows import arrays_of
from mt.cache.names import JSON
from mt.errors import CacheError, InputError
from mt.system import files
from mt.types import Array, LabelledRows

if TYPE_CHECKING:
    import numpy as np
    from filelock import BaseFileLock


SYNC_EVERY = 0.25  # seconds between two syncs: blocks that arrive in between wait for the next one


def partial_path(path: Path) -> Path:
    """Return the name of a feature file that is not complete yet."""
    return path.with_suffix(".partial")


def temporary_path(path: Path) -> Path:
    """Return the name of a feature file that is being created: after a crash such a file is of no use."""
    return path.with_suffix(".tmp")


@dataclass(frozen=True)
class Existing:
    """What a writer does about a file that exists, or that is being written.

    overwrite: start again; an existing file stays until the new one is complete.  allow_mixed: resume although device
    or versions differ from those that computed the existing rows.  wait: seconds to wait for another writer.
    """

    overwrite: bool = False
    allow_mixed: bool = False
    wait: float = 0.0


class FeatureWriter:
    """The only writer of a feature file.  Use it as a context manager: leaving it early keeps what is written.

    resumed_manifest: the manifest in the file; on resume its batch size and thread count are the ones to use, so that
    the rows are those of an uninterrupted run.
    created: this call made the file.
    """

    def __init__(self, path: Path, lock: BaseFileLock, *, created: bool, complete: bool = False) -> None:
        self.path = path
        self.created = created
        self._lock = lock
        self._file = path if complete else partial_path(path)
        self._descriptor: int | None = files.open_existing(self._file, writable=not complete)
        self._layout = format.read_layout(self._descriptor, self._file)
        self.resumed_manifest = format.read_manifest(self._descriptor, self._layout, self._file)
        self.n_rows, self.dim = self._layout.n_rows, self._layout.dim
        self.n_blocks, self.block_rows = self._layout.n_blocks, self._layout.block_rows
        if complete:
            format.count_done(self._descriptor, self._layout, path)
        missing = () if complete else range(self.n_blocks) if created else self._verified()
        self._missing = dict.fromkeys(missing)  # in order; one is removed in the same time however many there are
        self._unsynced: dict[int, bytes] = {}  # checksums of blocks whose rows are written but may not be on the disk
        self._synced = -math.inf  # when, by the monotonic clock

    @classmethod
    def open(
        cls,
        path: Path,
        rows: LabelledRows[None],
        manifest: dict[str, JSON],
        *,
        dim: int,
        dtype: str = "float32",
        block_rows: int,
        content: Array | Sequence[bytes] | None = None,
        existing: Existing | None = None,
    ) -> Self:
        """Create the file with its space reserved, or resume the partial one after verifying its blocks.

        If the complete file exists (another run made it meanwhile), `missing` is empty.
        rows: n ids, labels, groups and columns.  dtype: float32 or float16.  block_rows: rows per checksum of a new
        file; a resumed one keeps its own.  content: (n, 16) bytes, the content hash of each row's image, if known.

        Raises:
            LockedError: another process writes the file.
            NoSpaceError: the disk lacks the space; nothing is left behind.
            DamagedError: the existing file is damaged.
            CacheError: the existing file is of other rows or another fingerprint, or the folder cannot be written.
            InputError: the rows cannot be stored, or the dtype is unknown.
        """
        if dtype not in ("float32", "float16"):
            raise InputError(f"No dtype '{dtype}' for features. Use float32 or float16.")
        existing = existing or Existing()
        partial = partial_path(path)
        arrays = arrays_of(rows, content)
        try:
            files.make_folder(path.parent)
            lock = acquire(path, existing.wait)
            try:
                if path.exists() and not existing.overwrite:
                    agree(path, arrays, manifest, dim=dim, dtype=dtype, allow_mixed=True)
                    return cls(path, lock, created=False, complete=True)
                files.remove(temporary_path(path))
                created = existing.overwrite or not partial.exists()
                if created:
                    create(temporary_path(path), arrays, manifest, dim=dim, dtype=dtype, block_rows=block_rows)
                    files.rename(temporary_path(path), partial)
                elif not agree(partial, arrays, manifest, dim=dim, dtype=dtype, allow_mixed=existing.allow_mixed):
                    with_other_compute(partial, temporary_path(path), arrays, manifest["compute"])
                return cls(path, lock, created=created)
            except BaseException:
                lock.release()
                raise
        except OSError as error:
            raise files.explained(error, path) from error

    @property
    def missing(self) -> list[int]:
        """The numbers of the blocks still to be written, as a new list: callers write while they loop over it."""
        return list(self._missing)

    @property
    def rows(self) -> slice:
        """The rows of the split that the file holds: all."""
        return slice(0, self.n_rows)

    def write_block(self, block: int, embeddings: np.ndarray, status: np.ndarray) -> None:
        """Write one whole block; its checksum follows once the block is on the disk, at `close` at the latest.

        embeddings: (rows of the block, dim).  status: (rows of the block,), one `Status` per row; rows that are not OK
        are stored as zeros.  Raises InputError for another shape, and for values that are not finite, naming the ids of
        their rows; CacheError if the file is complete or cannot be written.
        """
        import numpy as np

        if self._file == self.path:
            raise CacheError(f"{self.path} is complete and takes no more rows. To make it again, use --overwrite.")
        start, stop = self._layout.rows(block)
        if embeddings.shape != (stop - start, self.dim) or status.shape != (stop - start,):
            raise InputError(
                f"Block {block} of {self.path.name} takes embeddings of shape {(stop - start, self.dim)} and "
                f"{stop - start} statuses; got {embeddings.shape} and {status.shape}."
            )
        ok = status == Status.OK
        if not np.isin(status, [known for known in Status if known != Status.MISSING]).all():
            raise InputError(f"Block {block} of {self.path.name} has rows of status MISSING or unknown.")
        with np.errstate(over="ignore"):
            data = np.asarray(embeddings if ok.all() else np.where(ok[:, None], embeddings, 0), dtype=self._dtype())
        self._refuse_not_finite(data, start)
        self._put(block, np.ascontiguousarray(data), np.ascontiguousarray(status, dtype="u1"))

    def finish(self) -> Path:
        """Sync the complete file, give it its final name, and return that name.  Raises CacheError if blocks lack."""
        if self._missing:
            raise CacheError(f"{self.path.name} still lacks {len(self._missing)} of {self.n_blocks} blocks.")
        descriptor = self._open()
        self._sync()
        try:
            if self._file != self.path:
                files.sync(descriptor)
                files.rename(self._file, self.path)
        except OSError as error:
            raise files.explained(error, self.path) from error
        self.close()
        return self.path

    def discard(self) -> None:
        """Remove the file if this writer created it, and release it."""
        if self._descriptor is not None and self.created:
            files.remove(self._file)
            self._unsynced.clear()
        self.close()

    def close(self) -> None:
        """Release the file and its lock; what is written stays and can be resumed."""
        if self._descriptor is None:
            return
        try:
            self._sync()
        finally:
            os.close(self._descriptor)
            self._descriptor = None
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> int:
        if self._descriptor is None:
            raise CacheError(f"The writer of {self.path.name} is closed.")
        return self._descriptor

    def _dtype(self) -> str:
        return "<f4" if self._layout.dtype == "float32" else "<f2"

    def _put(self, block: int, data: np.ndarray, status: np.ndarray) -> None:
        """Write rows, and sync unless the last sync was a moment ago: then the block shares the next one."""
        descriptor, layout = self._open(), self._layout
        start, _ = layout.rows(block)
        rows, states = data.data, status.data
        try:
            files.write(descriptor, rows, layout.embeddings + start * layout.row_bytes)
            files.write(descriptor, states, layout.status + start)
        except OSError as error:
            raise files.explained(error, self.path) from error
        self._unsynced[block] = format.block_digest(block, states, rows)
        self._missing.pop(block, None)
        if time.monotonic() - self._synced >= SYNC_EVERY:
            self._sync()

    def _sync(self) -> None:
        """Sync, then write the checksums of the blocks that waited: in this order a checksum on the disk is true.

        After a sync that failed these blocks are missing again.  The system may have dropped their rows, and the next
        sync would succeed without them.
        """
        if not self._unsynced:
            return
        descriptor, waited, self._unsynced = self._open(), self._unsynced, {}
        try:
            files.sync(descriptor)
            for block, checksum in waited.items():
                files.write(descriptor, checksum, self._layout.blocks + block * format.DIGEST)
        except BaseException as error:
            self._missing = dict.fromkeys(sorted({*self._missing, *waited}))
            if isinstance(error, OSError):
                raise files.explained(error, self.path) from error
            raise
        self._synced = time.monotonic()

    def _refuse_not_finite(self, data: np.ndarray, start: int) -> None:
        import numpy as np

        bad = np.flatnonzero(~np.isfinite(data).all(axis=1))
        if len(bad):
            from mt.cache.feature_file.read import row_ids

            ids = row_ids(self._open(), self._layout)
            named = ", ".join(ids[start + row] for row in bad[:10]) + (", ..." if len(bad) > 10 else "")
            raise InputError(
                f"{len(bad)} embeddings for {self.path.name} are NaN or infinite in {self._layout.dtype}: "
                f"{named}. Look at these images, or use --precision float32 and --dtype float32."
            )

    def _verified(self) -> list[int]:
        """Return the blocks without a true checksum, after clearing the checksums that are wrong."""
        descriptor, layout = self._open(), self._layout
        format.check_seal(descriptor, layout, self._file)
        there = format.present(format.read_digests(descriptor, layout))
        wrong = list(format.wrong_blocks(descriptor, layout, there))
        for block in wrong:
            files.write(descriptor, bytes(format.DIGEST), layout.blocks + block * format.DIGEST)
        return sorted(set(range(self.n_blocks)) - set(there) | set(wrong))
