"""What kind of file something is, by its content; and which readers' pixels changed since the first release."""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path
from typing import BinaryIO

from mt.datasets.decoding import netpbm, png, tiff

# Raised whenever `revised_readers` answers differently for some file.
KINDS_REVISION = 1
# Readers by name: the revision enters the fingerprint of datasets that hold such files, and of no others.
REVISIONS = {"dicom": 2, "deep png": 2, "deep pnm": 2, "deep tiff": 2, "frames": 2}

_PREFIX = slice(128, 132)
_VRS = frozenset(
    b"AE AS AT CS DA DS DT FD FL IS LO LT OB OD OF OL OV OW PN SH SL SQ SS ST SV TM UC UI UL UN UR US UT UV".split()
)
_HEAD = 4096


def is_dicom(head: bytes) -> bool:
    """Return whether bytes begin as DICOM does: after a preamble, or with an element of the first groups."""
    return head[_PREFIX] == b"DICM" or _is_element(head)


def _is_element(head: bytes) -> bool:
    """Return whether bytes begin with a data element of group 2 or 8, as files without a preamble do.

    An implicit element is recognised by its length: even, and short for the first element of a group.
    """
    if len(head) < 16:
        return False
    for order in "<>":
        group, element = struct.unpack(f"{order}HH", head[:4])
        if group not in (0x0002, 0x0008) or element > 0x0070:
            continue
        if head[4:6] in _VRS:
            return True
        (length,) = struct.unpack(f"{order}I", head[4:8])
        return bool(length % 2 == 0 and length <= 128)
    return False


def looks_like_dicom(path: str | os.PathLike[str]) -> bool:
    """Return whether a file's content begins as DICOM does; an unreadable file does not."""
    if not os.path.isfile(path):  # a pipe would wait for ever
        return False
    try:
        with open(path, "rb") as file:
            return is_dicom(file.read(132))
    except OSError:
        return False


def revised_readers(path: Path) -> dict[str, int]:
    """Return the readers a file needs whose pixels changed since the first release, with their revisions."""
    try:
        with open(path, "rb") as file:
            name = _reader(file)
    except OSError:
        return {}
    return {} if name is None else {name: REVISIONS[name]}


def _reader(file: BinaryIO) -> str | None:
    head = file.read(_HEAD)
    if is_dicom(head):
        return "dicom"
    if head.startswith(png.SIGNATURE):
        if any(name == b"acTL" for name, _, _ in png.chunks_before_pixels(file)):
            return "frames"
        return "deep png" if head[24:25] == b"\x10" and png.narrower_bits(file) is not None else None
    if netpbm.deep_header(head) is not None:
        return "deep pnm"
    if head.startswith(tiff.MARKS):
        return _tiff_reader(file)
    if head.startswith((b"GIF8", b"RIFF")):
        return "frames" if _frames(file) > 1 else None
    return None


def _tiff_reader(file: BinaryIO) -> str | None:
    try:
        _, pages = tiff.pages_of(file)
    except Exception:  # left to Pillow, as ever
        return None
    if len(pages) > 1:
        return "frames"
    return None if not pages or pages[0].as_before else "deep tiff"


def _frames(file: BinaryIO) -> int:
    from PIL import Image

    try:
        file.seek(0)
        return int(getattr(Image.open(io.BytesIO(file.read()), formats=("GIF", "WEBP")), "n_frames", 1))
    except Exception:  # a broken file has no frames; decoding says what is wrong with it
        return 1
