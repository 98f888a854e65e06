"""Hashing many small files, against a bare loop that only reads them: what Python adds to the disk.

`python -m benchmarks.hashing [COUNT [FOLDER]]`: COUNT files (200,000) of 3 to 4 kB, one round each of: reading every
file by open, read and close; the same with sha256; a first `ContentIndex`, which also remembers; a second one, which
opens nothing; and one after the folder was renamed.  The files are in the system's cache: no disk is faster.  Then,
where the caches can be dropped (Linux, as root), a cold disk: the bare reader, in one thread and in eight, and a first
`ContentIndex`.  The processor's time is stated beside the clock's, since other work on the cores moves the clock only.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mt.cache import ContentIndex

FILES, FOLDERS = 200_000, 200
_CACHES = "/proc/sys/vm/drop_caches"


def main(count: int = FILES, place: str | None = None) -> None:
    """Print files per second of each way, and the ratios to the bare reader."""
    with tempfile.TemporaryDirectory(prefix="mt-hashing-", dir=place) as folder:
        paths = _written(Path(folder) / "images", count)
        _warm(paths, Path(folder))
        os.rename(Path(folder) / "others", Path(folder) / "images")
        if os.access(_CACHES, os.W_OK):
            _cold(paths, Path(folder))


def _warm(paths: Sequence[str], folder: Path) -> None:
    bare = _rate("bare reader", paths, lambda: [_read(path) for path in paths])
    _rate("the same with sha256", paths, lambda: [hashlib.sha256(_read(path)).digest() for path in paths], bare)
    index = folder / "index.sqlite"
    _rate("first hashing", paths, lambda: ContentIndex(index).sha256_many(paths), bare)
    _rate("known files", paths, lambda: ContentIndex(index).sha256_many(paths), bare)
    os.rename(folder / "images", folder / "others")
    renamed = [path.replace("/images/", "/others/") for path in paths]
    _rate("renamed folder", renamed, lambda: ContentIndex(index).sha256_many(renamed), bare)


def _cold(paths: Sequence[str], folder: Path) -> None:
    _drop_caches()
    bare = _rate("cold disk: bare reader", paths, lambda: [_read(path) for path in paths])
    _drop_caches()
    with ThreadPoolExecutor(8) as pool:
        _rate("cold disk: bare reader, 8 threads", paths, lambda: list(pool.map(_read, paths, chunksize=64)), bare)
    _drop_caches()
    _rate("cold disk: first hashing", paths, lambda: ContentIndex(folder / "cold.sqlite").sha256_many(paths), bare)


def _drop_caches() -> None:
    """Forget what the system holds of files in memory."""
    os.sync()
    Path(_CACHES).write_text("3")


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


def _rate(name: str, paths: Sequence[str], run: Callable[[], object], bare: float | None = None) -> float:
    began, busy = time.perf_counter(), time.process_time()
    run()
    rate = len(paths) / (time.perf_counter() - began)
    ratio = f", / bare reader {rate / bare:.2f}" if bare else ""
    used = 1e6 * (time.process_time() - busy) / len(paths)
    print(f"{name}: {rate:,.0f} files/s{ratio}; {used:.1f} us of processor per file", flush=True)
    return rate


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else FILES, *sys.argv[2:3])
