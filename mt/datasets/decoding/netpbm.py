"""PGM and PPM files deeper than 8 bits: their white is the maxval in their header (netpbm.sourceforge.net/doc/pgm)."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from mt.datasets.decoding.samples import Samples

_CHANNELS = {b"P2": 1, b"P5": 1, b"P3": 3, b"P6": 3}
_TOKEN = re.compile(rb"(?:\s|#[^\r\n]*[\r\n])*(\d+)")


@dataclass(frozen=True)
class Header:
    """The header of one file; `start` is where its samples begin."""

    kind: bytes
    width: int
    height: int
    maxval: int
    start: int


def deep_header(data: bytes) -> Header | None:
    """Return the header of a PGM or PPM of more than 8 bits, or None for any other file."""
    if data[:2] not in _CHANNELS:
        return None
    place = 2
    numbers: list[int] = []
    while len(numbers) < 3:
        match = _TOKEN.match(data, place)
        if match is None:
            return None
        numbers.append(int(match[1]))
        place = match.end()
    width, height, maxval = numbers
    return Header(data[:2], width, height, maxval, place + 1) if 255 < maxval < 65536 else None


def read_netpbm(data: bytes, header: Header) -> Samples:
    """Return the samples of a file of more than 8 bits.

    Raises:
        EOFError: fewer samples than the header promises.
    """
    channels = _CHANNELS[header.kind]
    count = header.width * header.height * channels
    if header.kind in (b"P5", b"P6"):
        body = data[header.start : header.start + 2 * count]
        values = np.frombuffer(body[: len(body) // 2 * 2], dtype=">u2")
    else:
        plain = re.sub(rb"#[^\r\n]*", b"", data[header.start - 1 :])
        values = np.array(plain.split()[:count], dtype=np.uint16)
    if len(values) < count:
        raise EOFError(f"{len(values):,} of {count:,} samples")
    shape = (header.height, header.width, channels) if channels > 1 else (header.height, header.width)
    return Samples(values.astype(np.uint16).reshape(shape), 0, header.maxval)
