"""The image files of a dataset: a source of one image per row, a file or one frame of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from mt.cache.content import ContentIndex
from mt.cache.feature_file.format import Status
from mt.cache.names import digest, digest_of_rows
from mt.datasets.base import ImageError, Json, Loaded
from mt.datasets.decoding.kinds import KINDS_REVISION, revised_readers
from mt.datasets.decoding.notes import Notes
from mt.datasets.decoding.row_hashes import HASH_BYTES, as_rows, of_file
from mt.datasets.decoding.rules import Decoding
from mt.datasets.dicom.headers import files_as_they_are
from mt.datasets.image_file import Decoded, examine, frame_count
from mt.system.device import cores

_PART = 1 << 13  # files whose kinds are looked for at a time


@dataclass(frozen=True)
class ImageFiles:
    """A source of one image per row: a file, or one frame of it.

    `absent` are the rows whose file was known to be missing at the start; `frames` holds each row's frame, from 1,
    where the rows of a dataset are frames.
    """

    paths: Sequence[str]
    absent: frozenset[int] = frozenset()
    decoding: Decoding = field(default_factory=Decoding)
    frames: Sequence[int] | None = None
    notes: Notes = field(default_factory=Notes, compare=False, repr=False)

    def __len__(self) -> int:
        return len(self.paths)

    def only(self, places: Sequence[int]) -> ImageFiles:
        """Return the files at these places, so that `--limit` neither reads nor hashes the others."""
        absent = frozenset(row for row, place in enumerate(places) if place in self.absent)
        frames = None if self.frames is None else [self.frames[place] for place in places]
        return replace(self, paths=[self.paths[place] for place in places], absent=absent, frames=frames)

    def load(self, start: int, stop: int) -> list[Loaded]:
        return [self._load(row) for row in range(start, min(stop, len(self)))]

    @property
    def on_device(self) -> bool:
        """Whether a device decodes the files, and no intensity rule changes the pixels afterwards."""
        return self.decoding.decoder == "device" and self.decoding.intensity in ("auto", "full")

    def by_pillow(self) -> ImageFiles:
        """Return the same images, none of them decoded by a device."""
        return replace(self, decoding=replace(self.decoding, decoder="pillow"))

    def contents(self, start: int, stop: int) -> list[bytes]:
        """Return the bytes of the rows' files; none for a file that cannot be read, or if a later frame is wanted."""
        return [self._content(row) for row in range(start, min(stop, len(self)))]

    def _content(self, row: int) -> bytes:
        frame = self.decoding.frame if self.frames is None else str(self.frames[row])
        if row in self.absent or frame not in (None, "first", "middle", "all", "1"):
            return b""
        try:
            return Path(self.paths[row]).read_bytes()
        except OSError:
            return b""

    def _load(self, row: int) -> Loaded:
        found = self._examine(row)
        return found if isinstance(found, ImageError) else found.image

    def examine(self, start: int, stop: int) -> list[Decoded | ImageError]:
        """Return images as `load` does, each with the share of its depth that it uses."""
        return [self._examine(row) for row in range(start, min(stop, len(self)))]

    def _examine(self, row: int) -> Decoded | ImageError:
        if row in self.absent:
            return ImageError(f"{self.paths[row]}: no such file", Status.ABSENT)
        decoding = self.decoding if self.frames is None else replace(self.decoding, frame=str(self.frames[row]))
        try:
            return examine(self.paths[row], decoding, self.notes)
        except ImageError as error:
            return error

    def content(self, index: ContentIndex) -> Json:
        """Return one hash over the content hashes of all files, and how they are read if not by default.

        An absent file counts as such.  A reader whose pixels changed since the first release states its revision.
        """
        files = self._files_digest(index)
        return {
            "files": files,
            **({"frames": digest(list(self.frames))} if self.frames is not None else {}),
            **({"decoding": asked} if (asked := self.decoding.describe()) else {}),
            **({"readers": revised} if (revised := self._revised(files, index)) else {}),
        }

    def _files_digest(self, index: ContentIndex) -> str:
        """Return one hash over the content of all files, remembered for as long as none changed."""
        present, absent = self._present(range(len(self))), sorted(self.absent)
        key = {"states": index.states(present), "absent": absent}
        known = None if index.rehash else index.recall("files", key)
        if known is None:
            hashes = self._hashes(index, present)
            texts = (sha256.tobytes().hex() for sha256 in hashes)
            known = digest_of_rows(None if row in self.absent else next(texts) for row in range(len(self)))
            if index.states(present) == key["states"]:
                index.remember("files", key, known)
        return str(known)

    def _present(self, places: Sequence[int]) -> Sequence[str]:
        """Return the paths at these places, without those of files that are not there."""
        if not self.absent and len(places) == len(self):
            return self.paths
        return [self.paths[place] for place in places if place not in self.absent]

    def _hashes(self, index: ContentIndex, paths: Sequence[str]) -> np.ndarray:
        """Return the sha256 of each file, (n, 32); one that holds several frames is hashed once."""
        if self.frames is None:
            return index.hashes(paths, label="hashing images")
        number = {path: row for row, path in enumerate(dict.fromkeys(paths))}
        return index.hashes(list(number), label="hashing images")[[number[path] for path in paths]]

    def row_hashes(self, index: ContentIndex, places: Sequence[int]) -> np.ndarray:
        """Return the content hash of each image: of its file, its frame and its reader's revision, if any."""
        present = self._present(places)
        found = np.zeros((len(places), HASH_BYTES), dtype=np.uint8)
        there = np.array([place not in self.absent for place in places], dtype=bool) if self.absent else slice(None)
        hashes = self._hashes(index, present)
        readers = self._own_readers(present) if self.content(index).get("readers") else {}
        if not readers and self.frames is None:
            found[there] = hashes[:, :HASH_BYTES]
            return found
        frames = [] if self.frames is None else [self.frames[place] for place in places if place not in self.absent]
        own = [
            of_file(
                sha256.tobytes().hex(),
                {
                    **({} if self.frames is None else {"frame": frames[row]}),
                    **({"reader": reader} if (reader := readers.get(path)) else {}),
                },
            )
            for row, (path, sha256) in enumerate(zip(present, hashes, strict=True))
        ]
        found[there] = as_rows(own)
        return found

    @staticmethod
    def _own_readers(paths: Sequence[str]) -> dict[str, dict[str, int]]:
        return {path: found for path, found in _readers(paths) if found}

    def _revised(self, files: str, index: ContentIndex) -> dict[str, int]:
        """Return the revisions of the readers that these files need: looked for once, remembered by content."""
        key = {"revision": KINDS_REVISION, "files": files}
        known = index.recall("readers", key)
        if known is None:
            present = self._present(range(len(self)))
            known = {name: number for _, found in _readers(present) for name, number in found.items()}
            index.remember("readers", key, known)
        return dict(known)


def frame_counts(paths: Sequence[str], index: ContentIndex) -> list[int]:
    """Return how many frames each file holds, 1 of an unreadable one; remembered by path, size and time."""
    key = {"revision": KINDS_REVISION, "files": files_as_they_are(paths)}
    known = index.recall("frames", key)
    if known is None:
        with ThreadPoolExecutor(cores()) as pool:
            known = list(pool.map(frame_count, paths))
        index.remember("frames", key, known)
    return list(known)


def _readers(paths: Sequence[str]) -> Iterator[tuple[str, dict[str, int]]]:
    """Yield each path with the revisions of the readers that its file needs."""
    with ThreadPoolExecutor(cores()) as pool:
        for start in range(0, len(paths), _PART):
            part = paths[start : start + _PART]
            yield from zip(part, pool.map(revised_readers, map(Path, part)), strict=True)
