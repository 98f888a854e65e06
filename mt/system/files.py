"""Files: where `mt` keeps them, and the few functions through which every change on disk goes.

These functions call `os` and nothing else, so that a test can replace it: to kill the process before any operation, or
to record the operations and replay a power cut.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

from mt.errors import CacheError, NoSpaceError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

CHUNK = 1 << 26  # bytes per system call: macOS refuses 2 GiB
_FULL_SYNC = getattr(fcntl, "F_FULLFSYNC", None)  # macOS: fsync alone stops at the drive's own cache
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_FALLOCATE = {errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}


def user_dir() -> Path:
    """Return the user's own folder, which holds what must stay writable when a cache is not."""
    return Path(platformdirs.user_cache_dir("mt"))


def cache_dir(given: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder of feature files: as given, else `MT_CACHE_DIR`, else `features` in the user's folder."""
    return Path(given or os.environ.get("MT_CACHE_DIR") or user_dir() / "features").expanduser().absolute()


def data_dir(given: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder that holds a folder per dataset: as given, else `MT_DATA_DIR`, else `./data`."""
    return Path(given or os.environ.get("MT_DATA_DIR") or "data").expanduser().absolute()


def weights_dir() -> Path:
    """Return the folder of downloaded and hand-placed weights: `MT_WEIGHTS_DIR`, else in the user's folder."""
    return Path(os.environ.get("MT_WEIGHTS_DIR") or user_dir() / "weights").expanduser().absolute()


def index_path() -> Path:
    """Return the file that remembers content hashes."""
    return user_dir() / "index.sqlite"


def scores_path(given: str | os.PathLike[str] | None, cache: Path) -> Path:
    """Return the score database: as given, else `MT_SCORES`, else beside a writable cache, else the user's.

    A cache folder that cannot be written (a shared, read-only one) keeps its features; scores go to the user's.
    """
    chosen = given or os.environ.get("MT_SCORES")
    if chosen:
        return Path(chosen).expanduser().absolute()
    return (cache if os.access(cache, os.W_OK) or not cache.exists() else user_dir()) / "scores.sqlite"


# File systems that several machines share, where a lock may be refused, or granted to two of them.
_SHARED = ("nfs", "cifs", "smb", "lustre", "gpfs", "beegfs", "ceph", "gluster", "panfs", "afs", "pvfs", "wekafs")
MOUNTS = Path("/proc/self/mounts")


def is_shared(folder: Path) -> bool:
    """Say whether a folder, or the nearest above it that exists, is on a network file system; False if unknown."""
    if not MOUNTS.is_file():
        return False
    place, best, kind = os.path.realpath(folder) + "/", "", ""
    for line in MOUNTS.read_text(errors="surrogateescape").splitlines():
        _, point, found, *_ = line.split(" ")
        point = point.replace("\\040", " ").rstrip("/") + "/"
        if place.startswith(point) and len(point) >= len(best):
            best, kind = point, found
    return kind.removeprefix("fuse.").startswith(_SHARED)


# Writing and reading --------------------------------------------------------------------------------------------------


def create(path: Path) -> int:
    """Create a file that must not exist and return its descriptor, open for reading and writing."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o666)


def open_existing(path: Path, *, writable: bool = False) -> int:
    """Open a file and return its descriptor."""
    return os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | getattr(os, "O_CLOEXEC", 0))


def reserve(descriptor: int, size: int, path: Path) -> None:
    """Make a file `size` bytes long with its space allocated, so that a full disk is found before any work is done.

    If the file system cannot allocate (macOS has no `posix_fallocate`), the free space is compared instead.
    Raises NoSpaceError if the space is missing, and CacheError if the file cannot be written.
    """
    try:
        if hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(descriptor, 0, size)
                return
            except OSError as error:
                if error.errno not in _NO_FALLOCATE:
                    raise
        if shutil.disk_usage(path.parent).free < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.ftruncate(descriptor, size)
    except OSError as error:
        raise explained(error, path, needed=size) from error


def truncate(descriptor: int, size: int) -> None:
    """Cut a file to its size."""
    os.ftruncate(descriptor, size)


def write(descriptor: int, data: ReadableBuffer, offset: int) -> None:
    """Write all bytes at an offset of a file."""
    view = memoryview(data).cast("B")
    while view:
        written = os.pwrite(descriptor, view[:CHUNK], offset)
        view, offset = view[written:], offset + written


def read(descriptor: int, size: int, offset: int) -> bytes:
    """Read `size` bytes at an offset of a file; fewer where the file ends."""
    parts = []
    while size > 0 and (part := os.pread(descriptor, min(size, CHUNK), offset)):
        parts.append(part)
        size, offset = size - len(part), offset + len(part)
    return b"".join(parts)


def sync(descriptor: int) -> None:
    """Return once a file's bytes and its size are on the disk."""
    if _FULL_SYNC is not None:
        try:
            fcntl.fcntl(descriptor, _FULL_SYNC)
            return
        except OSError as error:
            if error.errno not in {errno.ENOTSUP, errno.EINVAL, errno.ENOTTY}:
                raise
    getattr(os, "fdatasync", os.fsync)(descriptor)


def sync_folder(folder: Path) -> None:
    """Return once a folder's names are on the disk.  Some network file systems cannot do so, and need not: EINVAL."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:
            raise
    finally:
        os.close(descriptor)


def rename(source: Path, target: Path) -> None:
    """Give a file another name, replacing a file that has it, and return once that is on the disk."""
    os.rename(source, target)
    sync_folder(target.parent)


def remove(path: Path) -> None:
    """Remove a file if it is there."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    sync_folder(path.parent)


def make_folder(folder: Path) -> None:
    """Create a folder and its parents, each name on the disk."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder)
    sync_folder(folder.parent)


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yield a path to write to; the file gets the name `path` once it is whole: write aside, sync, rename.

    Until then `path` is unchanged.  After an error or an interrupt the file aside is removed.
    """
    aside = path.with_name(f".{path.name[:50]}.{secrets.token_hex(4)}.tmp")
    try:
        yield aside
        descriptor = open_existing(aside, writable=True)
        try:
            sync(descriptor)
        finally:
            os.close(descriptor)
        rename(aside, path)
    except BaseException:
        remove(aside)
        raise


def write_whole(path: Path, content: ReadableBuffer) -> None:
    """Write a file that appears under its name only once it is whole and on the disk."""
    with whole(path) as aside:
        descriptor = create(aside)
        try:
            write(descriptor, content, 0)
        finally:
            os.close(descriptor)


def write_first(path: Path, content: ReadableBuffer) -> None:
    """Write a file that only its owner may read, unless it exists: of several processes the first one's file stays."""
    aside = path.with_name(f".{path.name[:50]}.{secrets.token_hex(4)}.tmp")
    descriptor = os.open(aside, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        write(descriptor, content, 0)
        sync(descriptor)
        with contextlib.suppress(FileExistsError):
            os.link(aside, path)
    finally:
        os.close(descriptor)
        aside.unlink()


def explained(error: OSError, path: Path, *, needed: int | None = None, option: str = "--cache-dir") -> CacheError:
    """Return the CacheError that says what a failed write means and what to do about it.

    option: the one that says where to write.
    """
    if error.errno in _NO_SPACE:
        return NoSpaceError(f"{_space(error, path, needed, option)} Then run the same command again.")
    if option != "--cache-dir":
        return CacheError(f"Cannot write {path}: {error.strerror or error}. Choose another folder: {option} DIR")
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return CacheError(
            f"Cannot write in {path.parent}: {error.strerror}. Reading from it works; to add features choose "
            "another --cache-dir (or MT_CACHE_DIR)."
        )
    return CacheError(f"Cannot write {path}: {error.strerror or error}.")


def _space(error: OSError, path: Path, needed: int | None, option: str) -> str:
    """Return in words the space that is needed, the space that is free, and what to do."""
    wants = f"{path.name} needs {megabytes(needed)}" if needed is not None else f"{path.name} cannot grow"
    if error.errno == errno.EFBIG:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
        most = "the file system's limit" if limit == resource.RLIM_INFINITY else megabytes(limit)
        return f"{wants} and a file may hold {most} here (ulimit -f). Raise the limit or choose another {option}."
    if error.errno == errno.EDQUOT:
        return f"{wants} and your disk quota in {path.parent} is used up. Free some space there."
    free = shutil.disk_usage(path.parent).free
    return f"{wants} and {path.parent} has {megabytes(free)} free. Free some space or choose another {option}."


def megabytes(size: int) -> str:
    """Return a number of bytes in words: `1.5 GB`, in powers of ten."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size} bytes"


def hash_of(path: Path, algorithm: str = "sha256") -> str:
    """Return the hash of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()
