"""Decoding image files as people have them to 8-bit RGB: 16-bit, palette, CMYK, rotated, DICOM."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mt.cache.content import ContentIndex
from mt.cache.feature_file.status import Status
from mt.cache.fingerprint import digest
from mt.datasets.base import ImageError, Json, Loaded
from mt.errors import MissingExtraError

_PHOTOGRAPHS = (".png", ".jpg", ".jpeg", ".jpe", ".jp2", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".ppm", ".pgm")
SUFFIXES = frozenset((*_PHOTOGRAPHS, ".dcm", ".dicom"))
# Pillow's other readers either run programs (EPS) or read what no one photographs with.
FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "GIF", "WEBP", "PPM", "JPEG2000")
_DICOM_PREFIX = slice(128, 132)


def decode(source: str | os.PathLike[str] | bytes) -> Image.Image:
    """Return the image in a file, or in the bytes of one, as 8-bit RGB with its EXIF rotation applied.

    16-bit grey becomes `round(v / 257)`; alpha is dropped and CMYK converted as Pillow's `convert("RGB")` does.

    Raises:
        ImageError: the file is absent, empty, truncated, too large, or no image; the message names it.
        MissingExtraError: a DICOM file, and pydicom is not installed.
    """
    name = "image" if isinstance(source, bytes) else os.fspath(source)
    try:
        with BytesIO(source) if isinstance(source, bytes) else open(source, "rb") as file:
            return _decode(file)
    except (ImageError, MissingExtraError):
        raise
    except Exception as error:  # whatever a broken file makes a decoder raise, it is about this one image
        status, reason = _reason(error)
        raise ImageError(f"{name}: {reason}", status) from error


def _decode(file: BinaryIO) -> Image.Image:
    head = file.read(132)
    if not head:
        raise EOFError
    file.seek(0)
    if head[_DICOM_PREFIX] == b"DICM":
        from mt.datasets.decoding.dicom import read_dicom

        return Image.fromarray(read_dicom(file))
    image = Image.open(file, formats=FORMATS)
    if Image.MAX_IMAGE_PIXELS and image.width * image.height > Image.MAX_IMAGE_PIXELS:
        raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels")
    image.load()
    return to_rgb(_upright(image))


def _upright(image: Image.Image) -> Image.Image:
    """Return the image turned as its EXIF orientation says; a broken EXIF block says nothing."""
    try:
        ImageOps.exif_transpose(image, in_place=True)
    except (SyntaxError, ValueError, TypeError, KeyError, OSError, struct.error):
        return image
    return image


def to_rgb(image: Image.Image) -> Image.Image:
    """Return 8-bit RGB pixels of an image of any mode with a known range.

    Raises:
        ValueError: 32-bit integers or floats, whose black and white nobody knows.
    """
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        wide = np.asarray(image, dtype=np.uint32)
        return Image.fromarray(((wide + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError(f"32-bit pixels (mode {image.mode}) have no known black and white; save as 8 or 16 bits")
    if image.mode == "P" and "transparency" in image.info:
        return image.convert("RGBA").convert("RGB")
    return image.convert("RGB")


def _reason(error: Exception) -> tuple[Status, str]:
    """Return the status and the words for what a decoder raised."""
    text = " ".join(str(error).split())
    if isinstance(error, FileNotFoundError):
        return Status.ABSENT, "no such file"
    if isinstance(error, EOFError) and not text:
        return Status.EMPTY, "the file is empty (0 bytes)"
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning | MemoryError):
        return Status.TOO_LARGE, f"more than {Image.MAX_IMAGE_PIXELS:,} pixels, taken for a decompression bomb ({text})"
    if isinstance(error, UnidentifiedImageError):
        return Status.UNREADABLE, "not an image in a known format (PNG, JPEG, TIFF, DICOM, ...)"
    if "truncated" in text.lower() or isinstance(error, EOFError | struct.error):
        return Status.TRUNCATED, f"the file is cut short ({text})"
    return Status.UNREADABLE, text or type(error).__name__


@dataclass(frozen=True)
class ImageFiles:
    """A source of one file an image; `absent` are the rows whose file was known to be missing at the start."""

    paths: Sequence[str]
    absent: frozenset[int] = frozenset()

    def __len__(self) -> int:
        return len(self.paths)

    def only(self, places: Sequence[int]) -> ImageFiles:
        """Return the files at these places, so that `--limit` neither reads nor hashes the others."""
        absent = frozenset(row for row, place in enumerate(places) if place in self.absent)
        return ImageFiles([self.paths[place] for place in places], absent)

    def load(self, start: int, stop: int) -> list[Loaded]:
        return [self._load(row) for row in range(start, min(stop, len(self)))]

    def _load(self, row: int) -> Loaded:
        if row in self.absent:
            return ImageError(f"{self.paths[row]}: no such file", Status.ABSENT)
        try:
            return decode(self.paths[row])
        except ImageError as error:
            return error

    def content(self, index: ContentIndex) -> Json:
        """Return one hash over the content hashes of all files; an absent file counts as such."""
        present = [Path(path) for row, path in enumerate(self.paths) if row not in self.absent]
        hashes = iter(index.sha256_many(present, label="hashing images"))
        return {"files": digest([None if row in self.absent else next(hashes) for row in range(len(self))])}
