"""Image files written byte by byte, so that they are the same whatever library writes images."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np


def chunk(name: bytes, data: bytes, *, crc: int | None = None) -> bytes:
    """One PNG chunk, with a checksum of one's own where a wrong one is wanted."""
    checksum = zlib.crc32(name + data) if crc is None else crc
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", checksum)


def png(samples: np.ndarray, *, bits: int = 8, before: bytes = b"", after: bytes = b"") -> bytes:
    """A PNG of (H, W) or (H, W, 3) samples, stored uncompressed; `before` and `after` are chunks around the pixels."""
    height, width = samples.shape[:2]
    lines = b"".join(b"\0" + row.astype(">u2" if bits == 16 else "u1").tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", width, height, bits, 0 if samples.ndim == 2 else 2, 0, 0, 0)
    whole = (chunk(b"IHDR", header), before, chunk(b"IDAT", zlib.compress(lines, 0)), after, chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(whole)


def packed(values: np.ndarray, bits: int) -> bytes:
    """Rows of values of any number of bits, most significant first, each row on a byte of its own."""
    rows = [np.unpackbits(row.astype(">u4").view("u1")).reshape(-1, 32)[:, -bits:].ravel() for row in values]
    return b"".join(np.packbits(row).tobytes() for row in rows)


def tiff(*pages: np.ndarray, bits: int, photometric: int = 1, order: Literal["<", ">"] = "<", **tags: Any) -> bytes:
    """A TIFF of (H, W) or (H, W, C) pages in one uncompressed strip each; `tags` are `tag_NUMBER=value`."""
    out = bytearray((b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8))
    for number, page in enumerate(pages):
        data = page.astype(page.dtype.newbyteorder(order)).tobytes() if bits in (8, 16, 32) else packed(page, bits)
        out += _directory(
            page,
            data,
            len(out),
            order,
            last=number == len(pages) - 1,
            fields={
                258: (3, bits),
                259: (3, 1),
                262: (3, photometric),
                **{int(name.removeprefix("tag_")): (3, value) for name, value in tags.items()},
            },
        )
    return bytes(out)


def _directory(
    page: np.ndarray, data: bytes, start: int, order: str, *, last: bool, fields: dict[int, tuple[int, int]]
) -> bytes:
    """One directory and its strip behind it."""
    height, width = page.shape[:2]
    channels = page.shape[2] if page.ndim == 3 else 1
    sizes = {256: (4, width), 257: (4, height), 277: (3, channels), 278: (4, height), 279: (4, len(data)), 273: (4, 0)}
    every = {**sizes, **fields}
    size = 2 + 12 * len(every) + 4
    extra = b"" if channels == 1 else struct.pack(f"{order}{channels}H", *[fields[258][1]] * channels)
    every[273] = (4, start + size + len(extra))
    entries = b""
    for tag, (kind, value) in sorted(every.items()):
        if tag == 258 and channels > 2:
            entries += struct.pack(order + "HHII", tag, kind, channels, start + size)
        elif tag == 258 and channels == 2:
            entries += struct.pack(order + "HHIHH", tag, kind, 2, value, value)
        else:
            held = struct.pack(order + "HH", value, 0) if kind == 3 else struct.pack(order + "I", value)
            entries += struct.pack(order + "HHI", tag, kind, 1) + held
    following = 0 if last else start + size + len(extra) + len(data)
    return struct.pack(order + "H", len(every)) + entries + struct.pack(order + "I", following) + extra + data


def sound_folder(root: Path) -> Path:
    """Twelve 8-bit files of four kinds in two classes."""
    rng = np.random.default_rng(7)
    for number in range(12):
        grey = rng.integers(0, 256, (6, 8), dtype=np.uint8)
        kinds = {
            "png": png(grey),
            "tif": tiff(grey, bits=8, photometric=number % 2),
            "pgm": b"P5\n8 6\n255\n" + grey.tobytes(),
            "ppm": b"P6\n8 2\n255\n" + grey.tobytes(),
        }
        suffix = list(kinds)[number % 4]
        path = root / f"class{number % 2}" / f"patient{number // 2}_{number}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(kinds[suffix])
    return root
