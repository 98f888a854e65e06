"""Reading a feature file: a peek by a few plain reads, or its rows, verified and then mapped into memory."""

from __future__ import annotations

import io
import mmap
import os
import shlex
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from mt.cache.feature_file import format
from mt.cache.feature_file.format import FileLayout, Status
from mt.cache.feature_file.rows import COLUMNS, CONTENT
from mt.cache.names import JSON, with_settings
from mt.errors import CacheError, IncompleteError
from mt.system import files
from mt.terminal.progress import counted

if TYPE_CHECKING:
    import numpy as np

    from mt.types import Texts

NAMED = 10  # rows that a message names


def open_features(path: str | os.PathLike[str], *, verify: bool = False) -> FeatureFile:
    """Open a complete feature file.  Needs no lock and no write permission.

    The seal is checked first, by plain reads.  verify: check every block's checksum as well.
    Raises IncompleteError naming the command that finishes the file, DamagedError naming the damaged rows,
    NotAFeatureFileError for other files and newer versions, and CacheError where there is none.
    """
    features = FeatureFile(Path(path))
    if verify and (damages := features.verify()):
        raise format.damaged(features.path, in_words(damages))
    return features


class FeatureFile:
    """One backbone's embeddings of one split, opened for reading.

    embeddings, ids, labels, groups and columns hold the rows that have an embedding; `status` holds all rows.
    """

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise missing_error(path)
        self.path = path
        self._descriptor = descriptor = format.open_for_reading(path)  # one inode, whatever its name leads to later
        weakref.finalize(self, os.close, descriptor)
        self._layout = format.read_layout(descriptor, path)
        self.manifest = format.read_manifest(descriptor, self._layout, path)
        format.check_seal(descriptor, self._layout, path)
        done = format.count_done(descriptor, self._layout, path)
        if done < self._layout.n_blocks:
            raise incomplete(path, self.manifest, self._layout, done)
        if shard := self.manifest.get("shard"):
            raise CacheError(
                f"{path} is part {shard['number']} of {shard['of']} of a feature file. Join the parts: mt cache merge"
            )
        self._map = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)

    def __repr__(self) -> str:
        what = f"{self.dataset} {self.split}, {self.backbone}, {self.n_ok} x {self.dim}"
        return f"FeatureFile({str(self.path)!r}: {what})"

    @property
    def dataset(self) -> str:
        return with_settings(str(self.manifest["dataset"]), self.manifest.get("settings", {}))

    @property
    def bare_dataset(self) -> str:
        """The dataset's name without its settings."""
        return str(self.manifest["dataset"])

    @property
    def split(self) -> str:
        return str(self.manifest["split"])

    @property
    def backbone(self) -> str:
        return str(self.manifest["backbone"])

    @property
    def task(self) -> str:
        return str(self.manifest["task"])

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(self.manifest["class_names"])

    @property
    def metric(self) -> str:
        return str(self.manifest["metric"])

    @property
    def fingerprints(self) -> dict[str, str]:
        return dict(self.manifest["fingerprints"])

    @property
    def dim(self) -> int:
        return self._layout.dim

    @property
    def n_rows(self) -> int:
        """Rows of the split, skipped ones included."""
        return self._layout.n_rows

    @property
    def n_ok(self) -> int:
        """Rows that have an embedding."""
        return self.n_rows - self.n_skipped

    @cached_property
    def n_skipped(self) -> int:
        """Rows whose image gave no embedding."""
        import numpy as np

        return int(np.count_nonzero(self.status != Status.OK))

    @cached_property
    def status(self) -> np.ndarray:
        """One `Status` per row of the split, (n_rows,) uint8."""
        return self._view("u1", self.n_rows, self._layout.status)

    @property
    def is_ok(self) -> np.ndarray:
        """(n_rows,) bool, which rows have an embedding."""
        found: np.ndarray = self.status == Status.OK
        return found

    @cached_property
    def embeddings(self) -> np.ndarray:
        """(n_ok, dim), read-only and mapped into memory; a copy only where rows were skipped."""
        return self._ok(self.mapped)

    @property
    def mapped(self) -> np.ndarray:
        """(n_rows, dim), read-only and mapped into memory: skipped rows too."""
        dtype = "<f4" if self._layout.dtype == "float32" else "<f2"
        return self._view(dtype, self.n_rows * self.dim, self._layout.embeddings).reshape(self.n_rows, self.dim)

    @cached_property
    def ids(self) -> Texts:
        """The name of each row."""
        return self._texts("ids")

    @property
    def labels(self) -> np.ndarray:
        """(n_ok,) int64 classes, or (n_ok, L) int8 zeros and ones; `MISSING` (-1) where a label is not known."""
        return self._ok(self._stored["labels"])

    @cached_property
    def groups(self) -> Texts | None:
        """What each row belongs to and must not be split from, or None where that is not known."""
        return self._texts("groups") if "groups" in self._stored else None

    @cached_property
    def columns(self) -> dict[str, Sequence[Any]]:
        """Metadata by name, in the order of the rows: texts, or a list of numbers."""
        return {
            unquoted(name.removeprefix(COLUMNS)): self._texts(name)
            if array.dtype.kind == "S"
            else self._ok(array).tolist()
            for name, array in self._stored.items()
            if name.startswith(COLUMNS)
        }

    @property
    def content(self) -> np.ndarray | None:
        """(n_ok, 16) uint8, the content hash of each row's image (zeros: not known); None in a file without them."""
        return self._ok(self._stored[CONTENT]) if CONTENT in self._stored else None

    @property
    def stored(self) -> dict[str, np.ndarray]:
        """The arrays of all rows, skipped ones too, beside the embeddings: by the name of their HDF5 dataset."""
        return self._stored

    def skipped(self) -> list[tuple[str, Status]]:
        """Return the id and the reason of every row without an embedding."""
        rows = (self.status != Status.OK).nonzero()[0]
        return list(zip(decoded(self._stored["ids"][rows]), map(Status, self.status[rows].tolist()), strict=True))

    def verify(self) -> list[Damage]:
        """Return the blocks whose bytes disagree with their checksums, in the order of the file."""
        return find_damage(self._descriptor, self._layout)

    def _view(self, dtype: str, count: int, offset: int) -> np.ndarray:
        import numpy as np

        return np.frombuffer(self._map, dtype=dtype, count=count, offset=offset)

    def _texts(self, name: str) -> Texts:
        from mt.types import Texts

        return Texts(self._ok(self._stored[name]))

    def _ok(self, array: np.ndarray) -> np.ndarray:
        return array if self.n_skipped == 0 else array[self.status == Status.OK]

    @cached_property
    def _stored(self) -> dict[str, np.ndarray]:
        """The arrays of all rows that HDF5 holds beside the embeddings, by dataset name."""
        return stored_rows(self._map)


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
        n_ok, n_missing = format.count_status(descriptor, layout, (Status.OK, Status.MISSING))
    finally:
        os.close(descriptor)
    return Summary(
        manifest,
        layout.n_rows,
        n_ok,
        layout.n_rows - n_ok - n_missing,
        layout.dim,
        layout.dtype,
        layout.block_rows,
        layout.n_blocks,
        done,
    )


def status_counts(path: Path) -> dict[str, int]:
    """Return the number of rows of each status that occurs, by its lower-case name."""
    descriptor = format.open_for_reading(path)
    try:
        layout = format.read_layout(descriptor, path)
        counts = format.count_status(descriptor, layout, tuple(Status))
    finally:
        os.close(descriptor)
    return {one.name.lower(): count for one, count in zip(Status, counts, strict=True) if count}


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


def incomplete(path: Path, manifest: dict[str, JSON], layout: FileLayout, done: int) -> IncompleteError:
    """Return the error for a file that lacks blocks, with the command that finishes it."""
    return _incomplete(path, manifest, done * layout.block_rows, layout.n_rows)


def _incomplete(path: Path, manifest: dict[str, JSON], done: int, rows: int) -> IncompleteError:
    command = in_cache(manifest.get("shard", manifest).get("command") or "mt featurize", path)
    return IncompleteError(f"{path} has {min(done, rows)} of {rows} rows. Finish it with: {command}")


def in_cache(command: str, path: Path) -> str:
    """Return a command that is about a feature file, with the cache folder that the file is in."""
    cache = path.absolute().parent.parent.parent
    return command if cache == files.cache_dir() else f"{command} --cache-dir {shlex.quote(str(cache))}"


@dataclass(frozen=True)
class Damage:
    """A block whose bytes are not those that were written: rows `start` up to `stop`, and their ids."""

    block: int
    start: int
    stop: int
    ids: tuple[str, ...]

    def __str__(self) -> str:
        more = ", ..." if len(self.ids) > NAMED else ""
        named = ", ".join(self.ids[:NAMED])
        return f"rows {self.start} to {self.stop - 1} (block {self.block}): {named}{more}"


def find_damage(descriptor: int, layout: FileLayout, advance: Callable[[int], object] = int) -> list[Damage]:
    """Return the blocks whose bytes disagree with their checksums, of a file whose seal has been checked."""
    there = format.present(format.read_digests(descriptor, layout))
    wrong = list(format.wrong_blocks(descriptor, layout, there, advance))
    ids = row_ids(descriptor, layout) if wrong else []
    return [Damage(block, *layout.rows(block), tuple(ids[slice(*layout.rows(block))])) for block in wrong]


def in_words(damages: Sequence[Damage]) -> str:
    """Return which rows are damaged, in one sentence."""
    more = f"; and {counted(len(damages) - 3, 'more block')}" if len(damages) > 3 else ""
    return f"checksums disagree in {counted(len(damages), 'block')}: {'; '.join(map(str, damages[:3]))}{more}"


def stored_rows(mapped: mmap.mmap) -> dict[str, np.ndarray]:
    """Read ids, labels, groups, columns and content, by dataset name, from a mapped file whose seal has been checked.

    They are in the order in which `arrays_of` returns them.
    """
    import h5py

    with h5py.File(_Mapped(mapped), "r") as opened:
        names = ["ids", "labels", *(["groups"] if "groups" in opened else [])]
        names += [COLUMNS + name for name in sorted(opened.get("columns", ()), key=unquoted)]
        names += [CONTENT] if CONTENT in opened else []
        return {name: opened[name][()] for name in names}


def partial_rows(path: Path) -> dict[str, np.ndarray]:
    """Return what a file keeps of all its rows beside the embeddings, complete or not, by dataset name."""
    descriptor = format.open_for_reading(path)
    try:
        layout = format.read_layout(descriptor, path)
        format.check_seal(descriptor, layout, path)
        with mmap.mmap(descriptor, layout.file_size, access=mmap.ACCESS_READ) as mapped:
            return stored_rows(mapped)
    finally:
        os.close(descriptor)


def row_ids(descriptor: int, layout: FileLayout) -> list[str]:
    """Return the ids of all rows of an open file, complete or not, whose seal has been checked."""
    with mmap.mmap(descriptor, layout.file_size, access=mmap.ACCESS_READ) as mapped:
        return decoded(stored_rows(mapped)["ids"])


def decoded(array: np.ndarray) -> list[Any]:
    """Return a stored array as a list of strings or numbers."""
    values: list[Any] = array.tolist()
    return [text.decode("utf-8", "surrogateescape") for text in values] if array.dtype.kind == "S" else values


def unquoted(name: str) -> str:
    """Return the name of the column that an HDF5 dataset under `columns/` holds."""
    return "" if name == "%" else unquote(name, errors="surrogateescape")


class _Mapped(io.RawIOBase):
    """The mapped bytes as a file for HDF5: the same file that was checked, whatever its name leads to by now."""

    def __init__(self, mapped: mmap.mmap) -> None:
        self.mapped = mapped
        self.at = 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self.at = offset if whence == os.SEEK_SET else len(self.mapped) + offset
        return self.at

    def tell(self) -> int:
        return self.at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        part = self.mapped[self.at : self.at + len(view)]
        view[: len(part)] = part
        self.at += len(part)
        return len(part)
