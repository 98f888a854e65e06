"""TIFF files: depth, polarity and pages as their tags say, where Pillow's modes do not hold them (TIFF 6.0)."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from mt.datasets.decoding.pillow import load, opened
from mt.datasets.decoding.rules import frame_number
from mt.datasets.decoding.samples import Samples

MARKS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB = 0, 1, 2
_UNSIGNED, _SIGNED = 1, 2
_REDUCED_OR_MASK = 1 | 4  # bits of NewSubfileType: a smaller copy of another page, a transparency mask
_ALPHA = (1, 2)  # ExtraSamples: associated and unassociated alpha
_ORIENTATION, _LONG = 274, 4


@dataclass(frozen=True)
class Page:
    """The page that was chosen: its place in the file, and its channel where channels are frames."""

    place: int
    page: Any
    channel: int | None

    @property
    def bits(self) -> int:
        bits = self.page.bitspersample
        return int(max(bits) if isinstance(bits, tuple) else bits)

    @property
    def width_and_height(self) -> tuple[int, int]:
        return int(self.page.imagewidth), int(self.page.imagelength)

    @property
    def format(self) -> int:
        kinds = self.page.sampleformat or _UNSIGNED
        return int(max(kinds) if isinstance(kinds, tuple) else kinds)

    @property
    def photometric(self) -> int:
        return int(self.page.photometric)

    @property
    def orientation(self) -> int:
        tag = self.page.tags.get(_ORIENTATION)
        return int(tag.value) if tag is not None and isinstance(tag.value, int) else 1

    @property
    def ordinary(self) -> bool:
        """Whether Pillow reads it as the tags say."""
        return self.channel is None and (
            (self.bits in (1, 2, 4, 8) and self.format == _UNSIGNED)
            or self.photometric not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB)
        )

    @property
    def as_before(self) -> bool:
        """Whether its pixels are what the first release made of them: all ordinary pages, and 16-bit grey ones."""
        grey = self.bits == 16 and self.format == _UNSIGNED and self.photometric == _BLACK_IS_ZERO
        return self.ordinary or (grey and int(self.page.samplesperpixel) == 1)


def pages_of(file: BinaryIO) -> tuple[Any, list[Page]]:
    """Return the open file and its pages, smaller copies and masks omitted; channels that make no colour are pages.

    Raises:
        Exception: whatever tifffile raises for a file that it cannot read.
    """
    import tifffile

    file.seek(0)
    tiff = tifffile.TiffFile(file)
    found = []
    for place, page in enumerate(tiff.pages):
        if int(getattr(page, "subfiletype", 0)) & _REDUCED_OR_MASK and place:
            continue
        channels = _channels(page)
        found += [Page(place, page, channel if channels > 1 else None) for channel in range(channels)]
    return tiff, found


def chosen_page(found: tuple[Any, list[Page]], frame: str | None) -> Page:
    """Return the page that `--frame` means.

    Raises:
        ValueError: several pages or channels and no choice, or no such page.
    """
    tiff, pages = found
    if not pages:
        raise ValueError("the TIFF file holds no page")
    count = len(pages)
    if tiff.is_imagej and len(tiff.pages) == 1:  # one directory for a whole stack
        count = max(count, int((tiff.imagej_metadata or {}).get("images", 1)))
    place = frame_number(count, frame)
    if place >= len(pages):
        raise ValueError(f"frame {place + 1} of an ImageJ stack without page directories is not read; save as pages")
    return pages[place]


def read_page(file: BinaryIO, chosen: Page) -> Samples:
    """Return the samples of a page that is not ordinary.

    Raises:
        EOFError: the file is cut short.
        ValueError: a compression that is not read at this depth.
    """
    page = chosen.page
    size = file.seek(0, 2)
    if any(place + count > size for place, count in zip(page.dataoffsets, page.databytecounts, strict=False)):
        raise EOFError("strips lie beyond the end of the file")
    try:
        values = np.asarray(page.asarray())
    except (ValueError, NotImplementedError) as error:
        if "requires the 'imagecodecs'" not in str(error):
            raise
        values = _packed(file, chosen) if 8 < chosen.bits < 16 else _by_pillow(file, chosen)
    if page.planarconfig == 2 and int(page.samplesperpixel) > 1:
        values = np.moveaxis(values, 0, -1)
    if values.ndim == 3:
        values = _without_extra(values, chosen)
    if values.shape[:2] != chosen.width_and_height[::-1]:
        raise ValueError(f"a TIFF of shape {values.shape} is not read; save single images")
    return _declared(values, chosen)


def _declared(values: np.ndarray, chosen: Page) -> Samples:
    bits, inverted = chosen.bits, chosen.photometric == _WHITE_IS_ZERO
    if chosen.format == _UNSIGNED:
        top = float(2**bits - 1)
        known = bits <= 16
        return Samples(values, 0 if known else None, top if known else None, full=(0, top), inverted=inverted)
    full = (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1) if chosen.format == _SIGNED else None
    return Samples(values, None, None, full=full, inverted=inverted)


def _channels(page: Any) -> int:
    """Return how many channels are images of their own: those beside grey and colour that are not alpha."""
    samples = int(page.samplesperpixel)
    extra = [int(kind) for kind in page.extrasamples or ()]
    photometric = int(page.photometric)
    if photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO) and samples > 1:
        return 1 if samples == 2 and extra and extra[0] in _ALPHA else samples
    return samples if photometric == _RGB and samples > 4 else 1


def _without_extra(values: np.ndarray, chosen: Page) -> np.ndarray:
    """Return the chosen channel, or grey or colour without alpha."""
    if chosen.channel is not None:
        return values[..., chosen.channel]
    return values[..., :3] if chosen.photometric == _RGB and values.shape[-1] >= 3 else values[..., 0]


def _packed(file: BinaryIO, chosen: Page) -> np.ndarray:
    """Return (H, W) or (H, W, C) of 9 to 15 bits per sample, packed most significant bit first.

    libtiff decompresses a copy of the file whose directory declares each row as bytes.
    """
    page, bits, channels = chosen.page, chosen.bits, int(chosen.page.samplesperpixel)
    width, height = chosen.width_and_height
    if page.is_tiled or page.planarconfig == 2 or page.predictor > 1:
        raise _unread(chosen)
    row = (width * channels * bits + 7) // 8
    image = _by_libtiff(file, chosen, {256: row, 258: 8, 262: _BLACK_IS_ZERO, 277: 1})
    each = np.unpackbits(np.asarray(image), axis=1)[:, : width * channels * bits].reshape(height, -1, bits)
    values = np.zeros(each.shape[:2], dtype=np.uint16)
    for place in range(bits):
        values = values << 1 | each[..., place]
    return np.asarray(values.reshape(height, width, channels) if channels > 1 else values)


def _by_pillow(file: BinaryIO, chosen: Page) -> np.ndarray:
    """Return the values decoded by libtiff, which reads more compressions, if Pillow has a mode that holds them."""
    image = _by_libtiff(file, chosen, {})
    if not (image.mode in ("I", "F") or image.mode.startswith("I;16")) or chosen.channel is not None:
        raise _unread(chosen)
    values = np.asarray(image)
    return values.view(np.uint32) if values.dtype == np.int32 and chosen.format == _UNSIGNED else values


def _by_libtiff(file: BinaryIO, chosen: Page, changes: dict[int, int]) -> Image.Image:
    """Return the page of a copy with other entries in its directory, as it lies in the file: not turned."""
    page = chosen.page
    order, big = page.parent.byteorder, page.parent.is_bigtiff
    file.seek(0)
    copy = bytearray(file.read())
    for code, value in {**changes, _ORIENTATION: 1}.items():
        if code in page.tags:
            struct.pack_into(
                f"{order}HHQQ" if big else f"{order}HHII", copy, page.tags[code].offset, code, _LONG, 1, value
            )
    image = opened(io.BytesIO(bytes(copy)))
    image.seek(chosen.place)
    load(image)
    return image


def _unread(chosen: Page) -> ValueError:
    name = getattr(chosen.page.compression, "name", chosen.page.compression)
    return ValueError(f"{chosen.bits}-bit TIFF with {name} compression needs imagecodecs: pip install imagecodecs")
