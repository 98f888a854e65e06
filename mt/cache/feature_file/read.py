"""Reading a feature file: verified by plain reads, then mapped into memory."""

from __future__ import annotations

import mmap
import os
import weakref
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mt.cache.dataset_name import with_settings
from mt.cache.feature_file import format
from mt.cache.feature_file.arrays import stored_rows
from mt.cache.feature_file.rows import COLUMNS, decoded, unquoted
from mt.cache.feature_file.status import Status
from mt.cache.feature_file.summary import Summary, incomplete, is_complete, missing_error, peek, status_counts
from mt.cache.feature_file.verify import Damage, find_damage, in_words

if TYPE_CHECKING:
    import numpy as np

__all__ = ["FeatureFile", "Summary", "is_complete", "open_features", "peek", "status_counts"]

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
        self._map = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)

    def __repr__(self) -> str:
        what = f"{self.dataset} {self.split}, {self.backbone}, {self.n_ok} x {self.dim}"
        return f"FeatureFile({str(self.path)!r}: {what})"

    @property
    def dataset(self) -> str:
        return with_settings(str(self.manifest["dataset"]), self.manifest.get("settings", {}))

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
        """One `Status` a row of the split, (n_rows,) uint8."""
        return self._view("u1", self.n_rows, self._layout.status)

    @cached_property
    def embeddings(self) -> np.ndarray:
        """(n_ok, dim), read-only and mapped into memory; a copy only where rows were skipped."""
        dtype = "<f4" if self._layout.dtype == "float32" else "<f2"
        every = self._view(dtype, self.n_rows * self.dim, self._layout.embeddings).reshape(self.n_rows, self.dim)
        return self._ok(every)

    @cached_property
    def ids(self) -> list[str]:
        return decoded(self._ok(self._stored["ids"]))

    @property
    def labels(self) -> np.ndarray:
        """(n_ok,) int64 classes, or (n_ok, L) int8 zeros and ones."""
        return self._ok(self._stored["labels"])

    @cached_property
    def groups(self) -> list[str] | None:
        """What each row belongs to and must not be split from, or None where that is not known."""
        return decoded(self._ok(self._stored["groups"])) if "groups" in self._stored else None

    @cached_property
    def columns(self) -> dict[str, list[Any]]:
        """Metadata by name, in the order of the rows."""
        return {
            unquoted(name.removeprefix(COLUMNS)): decoded(self._ok(array))
            for name, array in self._stored.items()
            if name.startswith(COLUMNS)
        }

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

    def _ok(self, array: np.ndarray) -> np.ndarray:
        return array if self.n_skipped == 0 else array[self.status == Status.OK]

    @cached_property
    def _stored(self) -> dict[str, np.ndarray]:
        """The arrays of all rows that HDF5 holds beside the embeddings, by dataset name."""
        return stored_rows(self._map)
