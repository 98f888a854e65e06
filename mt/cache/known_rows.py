"""Embeddings that complete files of a cache already hold, found by the images' content: copied, not computed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mt.cache.catalog import Catalog
from mt.cache.feature_file.read import FeatureFile, open_features, peek
from mt.cache.feature_file.resume import ADOPTED, MIXED, differences
from mt.cache.names import JSON, slug
from mt.errors import CacheError

COPIED = "copied"  # in a manifest: how many rows, and from where
Pace = tuple[int, int]  # batch size and threads: what a resumed file keeps, too
SameBits = Callable[[Pace, Pace], bool]


@dataclass(frozen=True, eq=False)
class _HeldImages:
    """A file, the sorted content hashes of the images that it holds, and the row number of each."""

    features: FeatureFile
    images: np.ndarray
    row: np.ndarray

    def rows_of(self, asked: np.ndarray) -> np.ndarray:
        """Return the number of the row that holds each image, -1 where none does."""
        if not len(self.images):
            return np.full(len(asked), -1)
        place = np.minimum(np.searchsorted(self.images, asked), len(self.images) - 1)
        return np.where(self.images[place] == asked, self.row[place], -1)


@dataclass(frozen=True)
class WantedRows:
    """What a file must agree in, so that its embeddings are those that a run would compute.

    backbone: its fingerprint.  decoding: how bytes become pixels.  compute: device, versions, batch size, threads.
    content: (n, 16) uint8, the content hash of each row's image.
    """

    name: str
    backbone: str
    dim: int
    dtype: str
    decoding: Mapping[str, JSON]
    compute: Mapping[str, JSON]
    content: np.ndarray


@dataclass(frozen=True, eq=False)
class KnownRows:
    """Which rows' embeddings other files hold, and where.

    mask: (n,) bool.  file, row: (n,) number of the file among `files`, and of the row among its embeddings.
    """

    dim: int
    mask: np.ndarray
    file: np.ndarray
    row: np.ndarray
    files: tuple[FeatureFile, ...] = ()

    def __len__(self) -> int:
        """Return how many rows are known."""
        return int(np.count_nonzero(self.mask))

    def copied(self, rows: slice) -> np.ndarray:
        """Return the embeddings of some rows, (rows, dim) float32, zeros where they are not known."""
        found = np.zeros((len(self.mask[rows]), self.dim), dtype=np.float32)
        for number, features in enumerate(self.files):
            here = self.mask[rows] & (self.file[rows] == number)
            found[here] = features.embeddings[self.row[rows][here]]
        return found

    def counts(self) -> list[tuple[Path, int]]:
        """Return each file with the number of rows that come from it."""
        numbers = np.bincount(self.file[self.mask], minlength=len(self.files))
        return [(features.path, int(count)) for features, count in zip(self.files, numbers, strict=True)]

    def described(self, cache_dir: Path) -> dict[str, JSON]:
        """Return what a manifest says of the rows that are copied."""
        sources = [
            {
                "file": str(features.path.relative_to(cache_dir)),
                "fingerprint": features.fingerprints["file"],
                "rows": n,
                "batch_size": features.manifest["compute"]["batch_size"],
            }
            for features, (_, n) in zip(self.files, self.counts(), strict=True)
        ]
        return {"rows": len(self), "from": sources}


def nothing_known(rows: int, dim: int) -> KnownRows:
    """Return known rows of which none is known."""
    return KnownRows(dim, np.zeros(rows, dtype=bool), np.zeros(rows, dtype=np.int64), np.zeros(rows, dtype=np.int64))


def find_known(
    wanted: WantedRows, cache_dir: Path, *, same_bits: SameBits, any_pace: bool, any_compute: bool = False
) -> tuple[KnownRows, Pace]:
    """Return the rows that complete files of a cache hold, and the pace of the new file: its batch size and threads.

    All files that are taken were computed at this pace, or at one that gives each image the same bits.  It is the
    wanted pace, unless another saves more images.
    same_bits: returns whether two paces give each image the same bits.  any_pace: allow another pace; another thread
    count only if it saves at least half of the images.  any_compute: take rows whatever computed them.
    """
    held: dict[Pace, list[_HeldImages]] = {}
    own = pace_of(wanted.compute)
    for features in _candidates(wanted, cache_dir, any_compute=any_compute):
        pace = own if any_compute else pace_of(features.manifest["compute"])
        if pace == own or any_pace:
            held.setdefault(pace, []).append(_held(features))
    best, kept = nothing_known(len(wanted.content), wanted.dim), own
    for pace in sorted({own, *held}, key=lambda pace: (pace != own, pace)):
        known = _joined(wanted, [one for other in held if same_bits(pace, other) for one in held[other]])
        worth_it = pace[1] == own[1] or 2 * len(known) >= len(wanted.content)
        if len(known) > len(best) and worth_it:
            best, kept = known, pace
    return best, kept


def recorded(wanted: WantedRows, copied: Mapping[str, JSON] | None, partial: Path, cache_dir: Path) -> KnownRows:
    """Return the known rows that a file was begun with, from the files that its manifest names, to resume it.

    Raises:
        CacheError: one of the files is gone or no longer the same.
    """
    if not copied:
        return nothing_known(len(wanted.content), wanted.dim)
    try:
        sources = [open_features(cache_dir / one["file"]) for one in copied["from"]]
        same = [features.fingerprints["file"] for features in sources] == [one["fingerprint"] for one in copied["from"]]
        held = [_held(features) for features in sources]
        known = _joined(wanted, held, in_order=True) if same else None
    except CacheError:
        known = None
    if known is None or len(known) != copied["rows"]:
        named = ", ".join(str(one["file"]) for one in copied["from"])
        raise CacheError(
            f"{partial} was begun with embeddings of {named}, which are not there any more as they were. "
            "To make it again, use --overwrite."
        )
    return known


def pace_of(compute: Mapping[str, JSON]) -> Pace:
    """Return the batch size and thread count that a file was computed with."""
    return int(compute["batch_size"]), int(compute["threads"])


def _candidates(wanted: WantedRows, cache_dir: Path, *, any_compute: bool) -> Iterable[FeatureFile]:
    """Yield the complete files whose embeddings a run would compute, if batch size and threads were the same."""
    for path in Catalog(cache_dir).paths():
        if path.suffix != ".h5" or not path.name.startswith(f"{slug(wanted.name)}-"):
            continue
        try:
            summary = peek(path)
            if summary.complete and summary.dtype == wanted.dtype and _agrees(wanted, summary.manifest, any_compute):
                features = open_features(path)
                if features.content is not None and features.dim == wanted.dim:
                    yield features
        except (CacheError, OSError):  # a damaged file is named by every command that reads it
            continue


def _agrees(wanted: WantedRows, manifest: Mapping[str, Any], any_compute: bool) -> bool:
    if manifest.get("fingerprints", {}).get("backbone") != wanted.backbone:
        return False
    if manifest.get("decoding") != wanted.decoding or not set(manifest.get("compute", {})) >= ADOPTED:
        return False
    return any_compute or not (MIXED in manifest or list(differences(manifest["compute"], dict(wanted.compute))))


def _joined(wanted: WantedRows, held: Sequence[_HeldImages], *, in_order: bool = False) -> KnownRows:
    """Return the rows that these files hold; if several hold a row, the file with most of the rows, then by name."""
    content = _keys(wanted.content)
    if not in_order:
        held = sorted(held, key=lambda one: (-int(np.isin(one.images, content).sum()), str(one.features.path)))
    known = nothing_known(len(content), wanted.dim)
    taken: list[FeatureFile] = []
    for one in held:
        places = one.rows_of(content)
        new = (places >= 0) & ~known.mask
        if new.any():
            known.file[new], known.row[new] = len(taken), places[new]
            known.mask[new] = True
            taken.append(one.features)
    return KnownRows(known.dim, known.mask, known.file, known.row, tuple(taken))


def _held(features: FeatureFile) -> _HeldImages:
    """Return the images in a file's undamaged blocks, each with the number of its first row."""
    sound = np.ones(features.n_rows, dtype=bool)
    for damage in features.verify():
        sound[damage.start : damage.stop] = False
    if features.content is None:
        return _HeldImages(features, np.empty(0, "S16"), np.empty(0, np.int64))
    keys = _keys(features.content)
    rows = np.flatnonzero(sound[features.is_ok] & (keys != b""))
    images, first = np.unique(keys[rows], return_index=True)
    return _HeldImages(features, images, rows[first])


def _keys(content: np.ndarray) -> np.ndarray:
    """Return the hashes as (n,) values that can be sorted; a hash of zeros becomes the empty value."""
    return np.ascontiguousarray(content).reshape(-1).view("S16")
