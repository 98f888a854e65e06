"""One image file of any kind, decoded to 8-bit RGB: any depth, palette, CMYK, rotated, several pages, DICOM."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, replace
from io import BytesIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from mt.cache.feature_file.format import Status
from mt.datasets.base import ImageError, Pixels
from mt.datasets.decoding import jpeg, netpbm, pillow, png, tiff
from mt.datasets.decoding.kinds import is_dicom
from mt.datasets.decoding.notes import Notes
from mt.datasets.decoding.rules import Decoding, frame_number
from mt.datasets.decoding.samples import Samples
from mt.datasets.decoding.turning import turned
from mt.errors import MissingExtraError

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


def frame_count(path: str) -> int:
    """Return how many frames a file holds, 1 of an unreadable one."""
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
