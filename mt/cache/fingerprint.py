"""Fingerprints of what determines an embedding, and file names made from names that people choose."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any, TypeAlias

JSON: TypeAlias = Any  # None, bool, int, float, str, and lists and string-keyed dicts of these

READABLE = 40  # characters of a chosen name that are kept in a file name
_PLAIN = re.compile(rf"[a-z0-9][a-z0-9_.-]{{0,{READABLE - 1}}}")
_HASHED = re.compile(r".*-[0-9a-f]{8}")


def canonical(value: JSON) -> bytes:
    """Return the one JSON text of a value: keys sorted, no spaces, ASCII only.

    Raises ValueError for NaN and infinities, which JSON does not have.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def digest(value: JSON) -> str:
    """Return the sha256 of a value's canonical JSON, in hexadecimal."""
    return hashlib.sha256(canonical(value)).hexdigest()


def slug(name: str) -> str:
    """Return a file name for a name: itself where that is safe, else `readable-hash8`.

    Safe means: lower-case ASCII (file systems may not tell cases apart), no separator, no leading dot, and not of
    the form that this function itself makes, so that two names never share a slug by their spelling.
    """
    if _PLAIN.fullmatch(name) and not _HASHED.fullmatch(name) and ".." not in name:
        return name
    readable = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:READABLE].strip("-")
    encoded = name.encode("utf-8", "surrogatepass")
    return f"{readable or 'x'}-{hashlib.sha256(encoded).hexdigest()[:8]}"
