"""JPEG files decoded by torchvision, without the interpreter lock, where that gives Pillow's pixels bit for bit.

Both use libjpeg-turbo, but each brings a build of its own.  So on first use both decode a built-in sample of each kind;
Pillow then decodes all files of a kind that differs.  Pillow also decodes what torchvision cannot do in the same way:
four components (CMYK), files that are cut short, and files that an EXIF entry turns.  torchvision has deprecated its
decoders since 0.29: without them, Pillow decodes every file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]
START, END = b"\xff\xd8", b"\xff\xd9"
_FRAMES = {0xC0: "baseline", 0xC1: "extended", 0xC2: "progressive"}
_EXIF = b"Exif\0\0"
_ORIENTATION = 0x0112


@dataclass(frozen=True)
class JpegHeader:
    """The description of the pixels in a JPEG file's markers, before its first scan.

    sampling: horizontal and vertical factors of each component; adobe: the colour transform that Adobe's marker names;
    exif: the EXIF block, empty without one.
    """

    width: int
    height: int
    frame: str
    sampling: tuple[tuple[int, int], ...]
    adobe: int | None
    exif: bytes

    @property
    def kind(self) -> tuple[object, ...]:
        """What decides how the file is decoded, so that files of one kind are decoded alike."""
        return self.frame, self.sampling, self.adobe


def decode(data: bytes, max_pixels: int | None = None) -> Pixels | None:
    """Return the RGB pixels (height, width, 3) that Pillow gives for a JPEG file's bytes; None to leave it to Pillow.

    max_pixels: a larger picture is left to Pillow, which refuses it.
    """
    header = read_header(data)
    if header is None or not is_plain(header, data) or (max_pixels and header.width * header.height > max_pixels):
        return None
    if not _same_as_pillow(header.kind):
        return None
    try:
        return _by_torchvision(data)
    except RuntimeError:  # damaged or cut short: Pillow reports it, or still decodes it
        return None


def read_header(data: bytes) -> JpegHeader | None:
    """Return what a JPEG file's markers say up to its first scan; None for what is not one plain JPEG."""
    if data[:2] != START:
        return None
    at, adobe, exif, frame = 2, None, b"", None
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        size = int.from_bytes(data[at + 2 : at + 4], "big")
        body = data[at + 4 : at + 2 + size]
        if marker == 0xDA:
            break
        if marker in _FRAMES and len(body) >= 6:
            frame = (marker, body)
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return None  # lossless, hierarchical or arithmetic
        elif marker == 0xEE and body[:5] == b"Adobe" and len(body) >= 12:
            adobe = body[11]
        elif marker == 0xE2 and body[:4] == b"MPF\0":
            return None  # several photographs in one file
        elif marker == 0xE1 and body[:6] == _EXIF and not exif:
            exif = body
        at += 2 + size
    if frame is None:
        return None
    marker, body = frame
    components = body[6:]
    if body[0] != 8 or len(components) < 3 * body[5]:
        return None
    sampling = tuple((components[3 * c + 1] >> 4, components[3 * c + 1] & 15) for c in range(body[5]))
    height, width = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
    return JpegHeader(width, height, _FRAMES[marker], sampling, adobe, exif)


def is_plain(header: JpegHeader, data: bytes) -> bool:
    """Return whether a file has one or three components, is not turned, and is whole."""
    whole = data.rstrip(b"\0").endswith(END) and header.width > 0 and header.height > 0
    return whole and len(header.sampling) in (1, 3) and not _is_turned(header.exif)


def _is_turned(exif: bytes) -> bool:
    """Return whether an EXIF block may turn the picture; a block that cannot be read leaves that to Pillow."""
    if not exif:
        return False
    try:
        entries = Image.Exif()
        entries.load(exif)
        return bool(entries.get(_ORIENTATION, 1) != 1)
    except Exception:  # Pillow raises many kinds for broken blocks
        return True


@cache
def _same_as_pillow(kind: tuple[object, ...]) -> bool:
    """Return whether the installed builds decode a sample of this kind to the same pixels; False without a sample."""
    sample = samples().get(kind)
    if sample is None:
        return False
    try:
        found = _by_torchvision(sample)
    except (ImportError, RuntimeError):
        return False
    return bool(np.array_equal(found, np.asarray(Image.open(BytesIO(sample)).convert("RGB"))))


@cache
def samples() -> dict[tuple[object, ...], bytes]:
    """Return a small file of each kind that Pillow writes, by its kind: rough in light and colour, of odd size."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (12, 14, 3)).repeat(9, 0).repeat(9, 1)[:101, :119]
    picture = Image.fromarray(np.clip(coarse + rng.normal(0, 20, coarse.shape), 0, 255).astype(np.uint8))
    found = {}
    for progressive in (False, True):
        options: dict[str, object] = {"quality": 90, "progressive": progressive}
        written = [_written(picture.convert("L"), options)]
        names = ("4:4:4", "4:2:2", "4:2:0", "4:1:1")
        written += [_written(picture, {**options, "subsampling": name}) for name in names]
        written.append(_written(picture, {**options, "keep_rgb": True}))
        for data in written:
            header = read_header(data)
            if header is not None:
                found[header.kind] = data
    return found


def _written(picture: Image.Image, options: Mapping[str, Any]) -> bytes:
    file = BytesIO()
    picture.save(file, "JPEG", **options)
    return file.getvalue()


def _by_torchvision(data: bytes) -> Pixels:
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg

    encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    pixels: Pixels = decode_jpeg(encoded, mode=ImageReadMode.RGB).permute(1, 2, 0).contiguous().numpy()
    return pixels
