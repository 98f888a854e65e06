"""Image files of all kinds, decoded to 8-bit RGB: any depth, palette, CMYK, rotated, several pages, DICOM."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from mt.cache.content import ContentIndex
from mt.cache.feature_file.format import Status
from mt.cache.names import digest, digest_of_rows
from mt.datasets.base import ImageError, Json, Loaded, Pixels
from mt.datasets.decoding import jpeg, netpbm, pillow, png, tiff
from mt.datasets.decoding.kinds import KINDS_REVISION, is_dicom, revised_readers
from mt.datasets.decoding.notes import Notes
from mt.datasets.decoding.row_hashes import HASH_BYTES, as_rows, of_file
from mt.datasets.decoding.rules import Decoding, frame_number
from mt.datasets.decoding.samples import Samples
from mt.datasets.decoding.turning import turned
from mt.datasets.dicom.headers import files_as_they_are
from mt.errors import MissingExtraError
from mt.system.device import cores

_PHOTOGRAPHS = (
    ".png",
    ".apng",
    ".jpg",
    ".jpeg",
    ".jpe",
    ".mpo",
    ".jp2",
    ".j2k",
    ".tif",
    ".tiff",
    ".bmp",
    ".gif",
    ".webp",
    ".ppm",
    ".pgm",
    ".pbm",
    ".pnm",
)
DICOM_SUFFIXES = (".dcm", ".dicom")
_PART = 1 << 13  # files whose kinds are looked for at a time
SUFFIXES = frozenset((*_PHOTOGRAPHS, *DICOM_SUFFIXES))


def is_photograph(path: str) -> bool:
    """Return whether a file's name says that it is an image of another kind than DICOM."""
    return path.lower().endswith(_PHOTOGRAPHS)


@dataclass(frozen=True)
class Decoded:
    """One image as 8-bit RGB, and the share of its depth's range that it uses (None: see `Samples.range_share`)."""

    image: Pixels
    range_share: float | None = None


def decode(source: str | os.PathLike[str] | bytes, decoding: Decoding | None = None) -> Image.Image:
    """Return the image in a file, or in the bytes of one, as 8-bit RGB with its EXIF rotation applied.

    Depth and polarity come from the file: n bits become `round(255 v / (2^n - 1))`, small values bright where the
    file says so.  Alpha and colour profiles are ignored; CMYK is converted as Pillow's `convert("RGB")` does.

    Raises:
        ImageError: the file is absent, empty, truncated, too large, or not an image; the message names it.
        MissingExtraError: a DICOM file, and pydicom is not installed.
    """
    image = examine(source, decoding or Decoding(), Notes()).image
    return Image.fromarray(image) if isinstance(image, np.ndarray) else image


def examine(source: str | os.PathLike[str] | bytes, decoding: Decoding, notes: Notes) -> Decoded:
    """Return the image in a file and the share of its depth that it uses; remarks to report once go to `notes`.

    Raises:
        ImageError: as `decode`.
        MissingExtraError: as `decode`.
    """
    name = "image" if isinstance(source, bytes) else os.fspath(source)
    if decoding.decoder == "device":
        from mt.datasets.decoding import nvjpeg

        nvjpeg.require()
    try:
        if isinstance(source, bytes):
            return _decoded(source, decoding, notes)
        with open(source, "rb") as file:
            return _decoded(file.read(), decoding, notes)
    except (ImageError, MissingExtraError):
        raise
    except Exception as error:  # decoders raise many kinds for a broken file; each concerns this one image
        status, reason = _reason(error)
        raise ImageError(f"{name}: {reason}", status) from error


def _decoded(data: bytes, decoding: Decoding, notes: Notes) -> Decoded:
    if not data:
        raise EOFError
    found = _found(data, decoding, notes)
    if isinstance(found, Samples):
        share = found.range_share() if decoding.intensity in ("auto", "full") else None
        return Decoded(Image.fromarray(found.eight_bits(decoding.rule)), share)
    if decoding.intensity in ("auto", "full"):
        return Decoded(found)
    return Decoded(Image.fromarray(Samples(np.asarray(found), 0, 255).eight_bits(decoding.rule)))


def _found(data: bytes, decoding: Decoding, notes: Notes) -> Pixels | Samples:
    """Return 8-bit RGB, or samples of another depth, by what the content says the file is."""
    plain = _plain_jpeg(data, decoding)
    if plain is not None:
        frame_number(1, decoding.frame)
        return plain
    if is_dicom(data):
        from mt.datasets.dicom.object_pixels import read_dicom

        return read_dicom(data, decoding, notes)
    if data.startswith(tiff.MARKS):
        return _tiff(data, decoding)
    header = netpbm.deep_header(data)
    if header is not None:
        pillow.refuse_bomb(header.width, header.height, decoding.max_pixels)
        return netpbm.read_netpbm(data, header)
    found, photograph = pillow.read(data, decoding)
    if photograph:
        notes.add(pillow.MPO)
    return _png(data, found, decoding) if data.startswith(png.SIGNATURE) else found


def _plain_jpeg(data: bytes, decoding: Decoding) -> np.ndarray | None:
    """Return the pixels of a JPEG file that does not need Pillow, decoded as `--decoder` says."""
    if decoding.decoder == "device":
        from mt.datasets.decoding.nvjpeg import decode_batch

        (there,) = decode_batch([data], decoding.most_pixels)
        if there is not None:
            return np.asarray(there.cpu().numpy())
    return jpeg.decode(data, decoding.most_pixels)


def _tiff(data: bytes, decoding: Decoding) -> Image.Image | Samples:
    file = BytesIO(data)
    try:
        pages = tiff.pages_of(file)
    except Exception:  # tifffile refuses some files that Pillow reads
        return pillow.read(data, decoding)[0]
    page = tiff.chosen_page(pages, decoding.frame)
    pillow.refuse_bomb(*page.width_and_height, decoding.max_pixels)
    if page.ordinary:
        return pillow.read(data, decoding, place=page.place)[0]
    samples = tiff.read_page(file, page)
    return replace(samples, values=turned(samples.values, page.orientation))


def _png(data: bytes, found: Image.Image | Samples, decoding: Decoding) -> Image.Image | Samples:
    """Return what Pillow found, or the 16-bit samples of a PNG where they decide."""
    if not png.is_deep(data):
        return found
    bits = png.narrower_bits(BytesIO(data))
    if isinstance(found, Samples):
        return png.declared(found.values, bits)
    if bits is None and decoding.intensity in ("auto", "full"):
        return _from_high_bytes(found)
    bare = png.without_metadata(data)
    image, again = pillow.opened(BytesIO(bare)), pillow.opened(BytesIO(bare))
    if image.mode == "LA":  # grey with alpha, of which Pillow cannot be asked to keep the low bytes
        return _from_high_bytes(found)
    orientation = pillow.orientation(image)
    return png.declared(turned(png.colour(image, again), orientation), bits)


def _from_high_bytes(image: Image.Image) -> Samples:
    """Return 16-bit samples of which Pillow kept the high bytes."""
    return Samples(np.asarray(image, dtype=np.uint16) * 257, 0, 65535)


def frame_counts(paths: Sequence[str], index: ContentIndex) -> list[int]:
    """Return how many frames each file holds, 1 of an unreadable one; remembered by path, size and time."""
    key = {"revision": KINDS_REVISION, "files": files_as_they_are(paths)}
    known = index.recall("frames", key)
    if known is None:
        with ThreadPoolExecutor(cores()) as pool:
            known = list(pool.map(_frame_count, paths))
        index.remember("frames", key, known)
    return list(known)


def _frame_count(path: str) -> int:
    try:
        with open(path, "rb") as file:
            if file.read(4) in tiff.MARKS:
                return len(tiff.pages_of(file)[1])
            file.seek(0)
            return pillow.frames_of(pillow.opened(file))
    except Exception:  # decoding says what is wrong with it
        return 1


def _reason(error: Exception) -> tuple[Status, str]:
    """Return the status and the words for what a decoder raised."""
    text = " ".join(str(error).split())
    if isinstance(error, FileNotFoundError):
        return Status.ABSENT, "no such file"
    if isinstance(error, EOFError) and not text:
        return Status.EMPTY, "the file is empty (0 bytes)"
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning | MemoryError):
        return Status.TOO_LARGE, f"too many pixels, taken for a decompression bomb ({text})"
    if isinstance(error, UnidentifiedImageError):
        return Status.UNREADABLE, "not an image in a known format (PNG, JPEG, TIFF, DICOM, ...)"
    if "truncated" in text.lower() or isinstance(error, EOFError | struct.error):
        return Status.TRUNCATED, f"the file is cut short ({text})"
    return Status.UNREADABLE, text or type(error).__name__


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


def _readers(paths: Sequence[str]) -> Iterator[tuple[str, dict[str, int]]]:
    """Yield each path with the revisions of the readers that its file needs."""
    with ThreadPoolExecutor(cores()) as pool:
        for start in range(0, len(paths), _PART):
            part = paths[start : start + _PART]
            yield from zip(part, pool.map(revised_readers, map(Path, part)), strict=True)
