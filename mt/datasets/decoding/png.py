"""PNG files by chunk: those that determine pixels, and metadata (PNG specification, third edition)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from PIL import ImageFile

from mt.datasets.decoding.samples import Samples

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunks(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Yield the name, the place of the data and its length of each chunk, as far as the file goes."""
    place = len(SIGNATURE)
    while True:
        file.seek(place)
        head = file.read(8)
        if len(head) < 8:
            return
        length, name = struct.unpack(">I4s", head)
        yield name, place + 8, length
        place += 12 + length


def without_metadata(data: bytes) -> bytes:
    """Return a PNG with the chunks that make its pixels, and its EXIF block where that is undamaged."""
    from io import BytesIO

    kept = [SIGNATURE]
    for name, place, length in chunks(BytesIO(data)):
        whole = data[place - 8 : place + length + 4]
        critical = not name[0] & 0x20
        if critical or (name in (b"acTL", b"fcTL", b"fdAT", b"eXIf") and _sound(whole)):
            kept.append(whole)
    return b"".join(kept)


def _sound(chunk: bytes) -> bool:
    return struct.pack(">I", zlib.crc32(chunk[4:-4])) == chunk[-4:]


def narrower_bits(file: BinaryIO) -> int | None:
    """Return how many of a 16-bit PNG's bits are significant by its sBIT chunk, or None where all are."""
    depth, bits = 0, None
    for name, place, length in chunks_before_pixels(file):
        file.seek(place)
        if name == b"IHDR":
            depth = file.read(13)[8]
        elif name == b"sBIT" and 1 <= length <= 4 and depth == 16:
            significant = file.read(length)
            bits = max(significant[:3] if length >= 3 else significant[:1])
    return bits if bits is not None and 1 <= bits < 16 else None


def is_deep(head: bytes) -> bool:
    """Return whether a PNG holds 16 bits per sample."""
    return head[24:25] == b"\x10"


def chunks_before_pixels(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Yield the chunks in front of the first pixels."""
    for chunk in chunks(file):
        if chunk[0] == b"IDAT":
            return
        yield chunk


def declared(values: np.ndarray, bits: int | None) -> Samples:
    """Return 16-bit samples with the white that their file declares; `bits` is what its sBIT says.

    By the specification samples of fewer bits are scaled up to 16, so that white stays 65535; writers that left them
    as they were are recognised by low bits that scaling up would not have made.
    """
    if bits is not None and int(values.max(initial=0)) < 2**bits and not _scaled_up(values, bits):
        return Samples(values, 0, 2**bits - 1)
    return Samples(values, 0, 65535)


def colour(image: ImageFile.ImageFile, again: ImageFile.ImageFile) -> np.ndarray:
    """Return (H, W, 3) of 16 bits without alpha from a PNG opened twice.

    Pillow keeps one of the two bytes of a sample: the first under raw mode `16B`, the second under `16L`.
    """
    again.tile = [tile._replace(args=str(tile.args).replace(";16B", ";16L")) for tile in again.tile]
    high, low = (np.asarray(one.convert("RGB"), dtype=np.uint16) for one in (image, again))
    return high * 256 + low


def _scaled_up(values: np.ndarray, bits: int) -> bool:
    """Return whether all low bits are zero, or repeat the high ones, as a conforming writer leaves them."""
    spare = 16 - bits
    if not (values & (2**spare - 1)).any():
        return True
    narrow = values.astype(np.uint32) >> spare
    repeated, filled = narrow << spare, spare
    while filled > 0:
        filled -= bits
        repeated |= narrow << filled if filled >= 0 else narrow >> -filled
    return bool((repeated == values).all())
