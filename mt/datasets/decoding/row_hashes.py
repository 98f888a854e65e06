"""The content hash of an image, independent of its path: 16 bytes, equal only if the decoded pixels are equal."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from mt.cache.names import canonical
from mt.system.device import cores

if TYPE_CHECKING:
    from mt.cache.content import ContentIndex

HASH_BYTES = 16
UNKNOWN = bytes(HASH_BYTES)  # of an image that is not there
_TASK_ROWS = 64  # images that a thread reads at a time


@runtime_checkable
class HashedImages(Protocol):
    """A source that knows the content of each of its images."""

    def row_hashes(self, index: ContentIndex, places: Sequence[int]) -> np.ndarray:
        """Return the hash of each image at these places, (n, 16) bytes; zeros where there is none.

        Settings that decode all images of a dataset are not part of it: a feature file states them once.
        """
        ...


def as_rows(hashes: Iterable[bytes]) -> np.ndarray:
    """Return hashes as an array, (n, 16) bytes."""
    return np.frombuffer(b"".join(hashes), dtype=np.uint8).reshape(-1, HASH_BYTES)


def of_file(sha256: str, how: Mapping[str, Any]) -> bytes:
    """Return the hash of an image file: its sha256 and `how` this image alone is decoded, truncated to 16 bytes."""
    if how:
        sha256 = hashlib.sha256(canonical({"file": sha256, **how})).hexdigest()
    return bytes.fromhex(sha256)[:HASH_BYTES]


def of_parameters(parameters: Mapping[str, Any]) -> bytes:
    """Return the hash of a generated image, by what determines it."""
    return hashlib.sha256(b"generated " + canonical(dict(parameters))).digest()[:HASH_BYTES]


def of_pixels(image: Any) -> bytes:
    """Return the hash of an image that lies in a packed file, by its pixels."""
    pixels = np.ascontiguousarray(image)
    hashed = hashlib.sha256(f"pixels {pixels.dtype.str} {pixels.shape} ".encode())
    hashed.update(pixels.data)
    return hashed.digest()[:HASH_BYTES]


def of_packed(load: Callable[[int, int], Sequence[Any]], places: Sequence[int]) -> np.ndarray:
    """Return the hashes of images that `load(start, stop)` reads, on all processors; `UNKNOWN` of unreadable ones."""

    def hashed(run: tuple[int, int]) -> list[bytes]:
        return [UNKNOWN if isinstance(image, Exception) else of_pixels(image) for image in load(*run)]

    with ThreadPoolExecutor(cores()) as pool:
        return as_rows(one for part in pool.map(hashed, runs(places, most=_TASK_ROWS)) for one in part)


def runs(places: Sequence[int], *, most: int) -> Iterator[tuple[int, int]]:
    """Yield the (start, stop) of neighbours among rising places, at most `most` at a time."""
    start = stop = None
    for place in places:
        if start is None or place != stop or place - start >= most:
            if start is not None and stop is not None:
                yield start, stop
            start = place
        stop = place + 1
    if start is not None and stop is not None:
        yield start, stop
