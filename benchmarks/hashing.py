"""Hashing many small files, against a bare loop that only reads them: what Python adds to the disk.

`python -m benchmarks hashing`: 200,000 files of 3 to 4 kB in a temporary folder, one round each of: reading every file
by open, read and close; the same with sha256; a first `ContentIndex`, which also remembers; a second one, which opens
nothing; and one after the folder was renamed.  The files are in the system's cache: no disk is faster.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from mt.cache import ContentIndex

FILES, FOLDERS = 200_000, 200


def main(count: int = FILES) -> None:
    """Print files a second of each way, and the ratios to the bare reader."""
    with tempfile.TemporaryDirectory(prefix="mt-hashing-") as place:
        folder = Path(place) / "images"
        paths = _written(folder, count)
        bare = _rate("bare reader", paths, lambda: [_read(path) for path in paths])
        plain = _rate("the same with sha256", paths, lambda: [hashlib.sha256(_read(path)).digest() for path in paths])
        renamed = [path.replace("/images/", "/others/") for path in paths]
        ways = {"first hashing": paths, "known files": paths, "renamed folder": renamed}
        for name, where in ways.items():
            if name == "renamed folder":
                folder.rename(folder.with_name("others"))
            index = ContentIndex(Path(place) / "index.sqlite")
            rate = _rate(name, where, lambda index=index, where=where: index.sha256_many(where))  # type: ignore[misc]
            print(f"  / bare reader {rate / bare:.2f}, / the same with sha256 {rate / plain:.2f}", flush=True)


def _written(folder: Path, count: int) -> list[str]:
    noise, paths = os.urandom(4096), []
    for number in range(count):
        place = folder / f"{number % FOLDERS:03}"
        if number < FOLDERS:
            place.mkdir(parents=True)
        paths.append(f"{place}/{number:07}.png")
        with open(paths[-1], "wb") as file:
            file.write(number.to_bytes(8, "little") + noise[: 3000 + number % 1000])
    return sorted(paths)


def _read(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.read(descriptor, 8192)
    finally:
        os.close(descriptor)


def _rate(name: str, paths: Sequence[str], run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    rate = len(paths) / (time.perf_counter() - began)
    print(f"{name}: {rate:,.0f} files/s", flush=True)
    return rate


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
