"""Files that Pillow reads: opened within a limit, one frame of several, turned upright, as 8-bit RGB."""

from __future__ import annotations

import struct
import threading
from io import BytesIO
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps, UnidentifiedImageError

from mt.datasets.decoding import png
from mt.datasets.decoding.rules import Decoding, frame_number
from mt.datasets.decoding.samples import Samples

# Pillow's other readers run programs (EPS) or read formats that hold no photographs.
FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "GIF", "WEBP", "PPM", "JPEG2000")
_RAISED = threading.Lock()
MPO = "MPO photographs of several images, of which the primary one is used"


def refuse_bomb(width: int, height: int, limit: int | None) -> None:
    """Raise where an image has more pixels than `limit`, or else than Pillow's own limit."""
    most = Image.MAX_IMAGE_PIXELS if limit is None else limit
    if most and width * height > most:
        raise Image.DecompressionBombError(f"{width} x {height} pixels, at most {most:,}; --max-pixels allows more")


def read(data: bytes, decoding: Decoding, *, place: int | None = None) -> tuple[Image.Image | Samples, bool]:
    """Return upright 8-bit RGB, or the samples of a deeper image; and whether it is an MPO photograph.

    `place` is the page, if the caller has chosen it.  If metadata stops a PNG (an oversized profile or text, a wrong
    checksum of a chunk that holds no pixels), the PNG is read again without its metadata.
    """
    try:
        return _read(BytesIO(data), decoding, place)
    except (ValueError, SyntaxError, OSError, struct.error) as error:
        if not data.startswith(png.SIGNATURE) or "frame" in str(error):
            raise
        whole = png.without_metadata(data)
        if whole == data:
            raise
        try:
            return _read(BytesIO(whole), decoding, place)
        except Exception:
            raise error from None


def _read(file: BinaryIO, decoding: Decoding, place: int | None) -> tuple[Image.Image | Samples, bool]:
    image = opened(file)
    refuse_bomb(image.width, image.height, decoding.max_pixels)
    image.seek(frame_number(frames_of(image), decoding.frame) if place is None else place)
    refuse_bomb(image.width, image.height, decoding.max_pixels)
    load(image)
    upright = turned_upright(image)
    return (_samples(upright) if _is_deep(upright) else to_rgb(upright)), image.format == "MPO"


def frames_of(image: ImageFile.ImageFile) -> int:
    """Return how many frames a file holds; an MPO photograph is its primary image."""
    return 1 if image.format == "MPO" else int(getattr(image, "n_frames", 1))


def opened(file: BinaryIO) -> ImageFile.ImageFile:
    """Return the image in a file, before its pixels are read and its size is checked.

    This is `Image.open` without its size limit, which is global to the process.
    """
    Image.init()
    prefix = file.read(16)
    for name in FORMATS:
        factory, accept = Image.OPEN[name]
        try:
            if accept is None or accept(prefix) is True:
                file.seek(0)
                return factory(file, "")
        except (SyntaxError, IndexError, TypeError, struct.error):
            continue
    raise UnidentifiedImageError("not an image in a known format")


def load(image: ImageFile.ImageFile) -> None:
    """Read the pixels of an image whose size has been checked.

    Pillow's TIFF reader checks the limit of the process again, so it is raised for as long as one image needs it.
    """
    most = Image.MAX_IMAGE_PIXELS
    if not most or image.width * image.height <= most:
        image.load()
        return
    with _RAISED:
        most, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, image.width * image.height
        try:
            image.load()
        finally:
            Image.MAX_IMAGE_PIXELS = most


def turned_upright(image: Image.Image) -> Image.Image:
    """Return the image turned as its EXIF orientation says; a broken EXIF block is ignored."""
    try:
        ImageOps.exif_transpose(image, in_place=True)
    except Exception:  # broken metadata does not make the pixels unusable
        return image
    return image


def orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 where none can be read."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:
        return 1


def to_rgb(image: Image.Image) -> Image.Image:
    """Return 8-bit RGB pixels of an image of any 8-bit mode."""
    if image.mode == "RGB":
        return image
    if image.mode == "P" and "transparency" in image.info:
        return image.convert("RGBA").convert("RGB")
    return image.convert("RGB")


def _is_deep(image: Image.Image) -> bool:
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def _samples(image: Image.Image) -> Samples:
    """Return the values of a deep image; 16 bits have a known white, 32 bits have none."""
    values = np.asarray(image)
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        return Samples(values.astype(np.uint16), 0, 65535)
    return Samples(values, None, None)
