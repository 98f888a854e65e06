"""Hashes of files' content, computed once and remembered with the file's size and times: a rerun opens no image.

A hash is trusted in two cases, in which nothing can have written to the file since.  The file at the same path has the
same size and the same two times: `mtime`, and `ctime`, which no program can set.  Or a file that had another path has
the same size, times, inode and device.  So a folder that is moved or renamed keeps its hashes.  A file that was copied,
moved by itself or had its permissions changed is hashed again.  The second case needs a file system that keeps
fractions of seconds.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import struct
import threading
import time
import weakref
from array import array
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mt.cache.names import JSON, canonical
from mt.errors import InputError
from mt.system import files
from mt.system.device import cores
from mt.terminal import progress

_SCHEMA = """
CREATE TABLE IF NOT EXISTS content (
    path TEXT PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, sha256 TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS files (
    path TEXT PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, ctime_ns INTEGER NOT NULL,
    inode INTEGER NOT NULL, device INTEGER NOT NULL, sha256 TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS files_by_inode ON files (inode, ctime_ns);
CREATE TABLE IF NOT EXISTS memory (
    kind TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (kind, key)
) WITHOUT ROWID;
"""
_TASK_FILES = 64  # that are hashed at a time
_THREADS = 8  # at least, for files on a disk: while some threads wait for it, others hash
_SLOW = 0.2e-3  # seconds per file from which files come from a disk, not from the system's cache
_FRESH = 32  # tasks for which one measurement holds
_KEPT_FILES = 1 << 16  # hashed between two commits: what a killed run loses
_PAGES = 1 << 16  # KiB of the database that are held in memory
_AT_ONCE = 400  # paths in one question to the database
_WHOLE = 1 << 20  # bytes up to which a file is read in one call
_SECOND = 10**9
_PART = 1 << 13  # files whose states are in memory at a time
_SHA256 = 32  # bytes
_NOT_KNOWN = "00" * _SHA256
_STATE = struct.Struct("<4q")
_READ = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0)
StrPath = str | os.PathLike[str]
_Name = str | bytes  # bytes where a file's name is not UTF-8, which SQLite's text must be


class _FileState(NamedTuple):
    """What the system says of a file; equal only while nobody writes to it."""

    path: _Name
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    device: int

    @classmethod
    def of(cls, path: _Name, stat: os.stat_result) -> _FileState:
        inode, device = stat.st_ino, stat.st_dev
        return cls(
            path,
            stat.st_size,
            stat.st_mtime_ns,
            stat.st_ctime_ns,
            inode - (1 << 64) if inode >> 63 else inode,  # SQLite's integers have a sign
            device - (1 << 64) if device >> 63 else device,
        )

    @property
    def anywhere(self) -> tuple[int, int, int, int, int]:
        return self.inode, self.ctime_ns, self.device, self.size, self.mtime_ns


_Hashed = tuple[_FileState, str, bool]  # a file, its hash, and whether it stayed as it was seen


def _advancing(hashed: Iterator[list[_Hashed]], advance: Callable[[int], object]) -> Iterator[list[_Hashed]]:
    for part in hashed:
        advance(len(part))
        yield part


def _as_bytes(hashes: Sequence[str]) -> np.ndarray:
    return np.frombuffer(bytes.fromhex("".join(hashes)), dtype=np.uint8).reshape(len(hashes), _SHA256)


class ContentIndex:
    """Remembers the sha256 of files in SQLite.

    path: the database, by default in the user's folder.  If it cannot be written, hashes are remembered only as long
    as the object lives.  rehash: hash every file again, whatever is remembered.
    """

    def __init__(self, path: Path | None = None, *, rehash: bool = False) -> None:
        self.rehash = rehash
        self._lock = threading.Lock()
        self._database = _connect(path or files.index_path())
        weakref.finalize(self, self._database.close)

    def sha256(self, path: StrPath) -> str:
        """Return the sha256 of a file's content, in hexadecimal."""
        return self.sha256_many([path])[0]

    def sha256_many(self, paths: Sequence[StrPath], *, label: str = "hashing") -> list[str]:
        """Return the sha256 of each file, in hexadecimal; of a known file only size and times are read.

        Raises InputError naming a file that cannot be read.
        """
        every = list(dict.fromkeys(os.fspath(path) for path in paths))
        hashes = self.hashes(every, label=label)
        found = {path: one.tobytes().hex() for path, one in zip(every, hashes, strict=True)}
        return [found[os.fspath(path)] for path in paths]

    def hashes(self, paths: Sequence[StrPath], *, label: str = "hashing") -> np.ndarray:
        """Return the sha256 of each file, (n, 32) uint8; a path that is listed twice may be read twice.

        Raises InputError naming a file that cannot be read.
        """
        found = np.zeros((len(paths), _SHA256), dtype=np.uint8)
        unknown = array("q")
        for start in range(0, len(paths), _PART):
            seen = [_seen(path) for path in paths[start : start + _PART]]
            known = {} if self.rehash else self._known(seen)
            unknown.extend(start + place for place, one in enumerate(seen) if one.path not in known)
            found[start : start + len(seen)] = _as_bytes([known.get(one.path, _NOT_KNOWN) for one in seen])
        if unknown:
            with progress.bar(label, len(unknown), unit="files") as advance:
                for start in range(0, len(unknown), _PART):
                    rows = unknown[start : start + _PART]
                    hashed = self._hash([_seen(paths[row]) for row in rows])
                    some = [sha256 for part in _advancing(hashed, advance) for _, sha256, _ in part]
                    found[rows] = _as_bytes(some)
        return found

    def states(self, paths: Sequence[StrPath]) -> str:
        """Return one hash of the names, sizes and times of files: while it is the same, so is their content.

        Raises InputError naming a file that cannot be read.
        """
        hashed = hashlib.sha256()
        for path in paths:
            stat, stored = _stat(path), _stored_name(path)
            name = stored if isinstance(stored, bytes) else stored.encode()
            hashed.update(name + _STATE.pack(len(name), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns))
        return hashed.hexdigest()

    def recall(self, kind: str, key: JSON) -> JSON | None:
        """Return the value that was remembered under a kind and a key, or None."""
        with self._lock:
            row = self._database.execute(
                "SELECT value FROM memory WHERE kind = ? AND key = ?", (kind, canonical(key).decode())
            ).fetchone()
        return None if row is None else json.loads(row[0])

    def remember(self, kind: str, key: JSON, value: JSON) -> None:
        """Keep a small value under a kind and a key."""
        with self._lock, self._database:
            self._database.execute(
                "INSERT OR REPLACE INTO memory VALUES (?, ?, ?)",
                (kind, canonical(key).decode(), canonical(value).decode()),
            )

    def forget(self, *, prefixes: Sequence[str], paths: Sequence[StrPath]) -> None:
        """Forget files by the first hexadecimal digits of their hash, and by path; and all DICOM headers."""
        with self._lock, self._database:
            self._database.execute("PRAGMA secure_delete = ON")
            for table in ("files", "content"):
                self._database.executemany(
                    f"DELETE FROM {table} WHERE sha256 >= ? AND sha256 < ?", [(one, f"{one}g") for one in prefixes]
                )
                self._database.executemany(
                    f"DELETE FROM {table} WHERE path = ?", [(_stored_name(one),) for one in paths]
                )
            self._database.execute("DELETE FROM memory WHERE kind IN ('dicom headers', 'files')")

    def _known(self, seen: Sequence[_FileState]) -> dict[_Name, str]:
        """Return the hashes that can be trusted, by path; a moved file is remembered at its new path."""
        found: dict[_Name, str] = {}
        moved: list[tuple[_FileState, str]] = []
        for start in range(0, len(seen), _AT_ONCE):
            some = seen[start : start + _AT_ONCE]
            here = self._at_their_paths(some)
            found.update((one.path, here[one[:4]]) for one in some if one[:4] in here)
            rest = [one for one in some if one.path not in found]
            if rest:
                new = self._elsewhere(rest)
                found.update((one.path, sha256) for one, sha256 in new)
                moved += new
        self._keep(moved)
        return found

    def _at_their_paths(self, seen: Sequence[_FileState]) -> dict[tuple[_Name, int, int, int], str]:
        marks = ",".join("?" * len(seen))
        query = f"SELECT path, size, mtime_ns, ctime_ns, sha256 FROM files WHERE path IN ({marks})"
        with self._lock:
            return {row[:4]: row[4] for row in self._database.execute(query, [one.path for one in seen])}

    def _elsewhere(self, seen: Sequence[_FileState]) -> list[tuple[_FileState, str]]:
        """Return the files that had another path, or that the table `content` of earlier releases remembers."""
        marks = ",".join("?" * len(seen))
        moved = f"SELECT inode, ctime_ns, device, size, mtime_ns, sha256 FROM files WHERE inode IN ({marks})"
        older = (
            f"SELECT path, size, mtime_ns, sha256 FROM content WHERE path IN ({marks}) "
            "AND path NOT IN (SELECT path FROM files WHERE files.path = content.path)"
        )
        with self._lock:
            known = {row[:5]: row[5] for row in self._database.execute(moved, [one.inode for one in seen])}
            before = {row[:3]: row[3] for row in self._database.execute(older, [one.path for one in seen])}
        found = []
        for one in seen:
            sha256 = known.get(one.anywhere) if one.ctime_ns % _SECOND else None
            sha256 = sha256 or before.get(one[:3])
            if sha256:
                found.append((one, str(sha256)))
        return found

    def _hash(self, seen: Sequence[_FileState]) -> Iterator[list[_Hashed]]:
        """Hash files, many at a time, and remember each, unless it changed meanwhile."""
        tasks = [seen[start : start + _TASK_FILES] for start in range(0, len(seen), _TASK_FILES)]
        waiting: list[tuple[_FileState, str]] = []
        try:
            for hashed in _in_turn_or_together(tasks):
                waiting += [(one, sha256) for one, sha256, same in hashed if same]
                if len(waiting) >= _KEPT_FILES:
                    self._keep(waiting)
                    waiting = []
                yield hashed
        finally:
            self._keep(waiting)

    def _keep(self, known: Sequence[tuple[_FileState, str]]) -> None:
        if known:
            with self._lock, self._database:
                self._database.executemany(
                    "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?)",
                    [(*one, sha256) for one, sha256 in known],
                )


def _seen(path: StrPath) -> _FileState:
    return _FileState.of(_stored_name(path), _stat(path))


def _stat(path: StrPath) -> os.stat_result:
    """Return a file's size and times; raise InputError if it cannot be read."""
    try:
        return os.stat(path)
    except OSError as error:
        raise _unreadable(path, error) from error


def _stored_name(path: StrPath) -> _Name:
    """Return the absolute path as SQLite can keep it."""
    name = os.fspath(path)
    if not name.startswith("/") or "/." in name or "//" in name or name.endswith("/"):  # else it is absolute already
        name = os.path.abspath(name)
    return name if _is_text(name) else os.fsencode(name)


def _is_text(name: str) -> bool:
    """Say whether a file's name is UTF-8; other bytes of it are surrogates in Python."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _in_turn_or_together(tasks: Sequence[Sequence[_FileState]]) -> Iterator[list[_Hashed]]:
    """Yield each task's hashes, in order; threads help while files come from a disk, since they wait for it together.

    For files in memory one thread is as fast: a file takes few calls, so threads mostly wait for Python's lock.
    """
    with ThreadPoolExecutor(max(_THREADS, cores())) as pool:
        try:
            for start in range(0, len(tasks), _FRESH):
                began = time.perf_counter()
                yield (first := _hashed(tasks[start]))
                slow = time.perf_counter() - began > _SLOW * len(first)
                yield from (pool.map if slow else map)(_hashed, tasks[start + 1 : start + _FRESH])
        finally:
            pool.shutdown(cancel_futures=True)


def _hashed(seen: Sequence[_FileState]) -> list[_Hashed]:
    """Return the hash of each file, and whether its size and times stayed the same while it was read."""
    return [(one, *_sha256(one)) for one in seen]


def _sha256(one: _FileState) -> tuple[str, bool]:
    try:
        descriptor = os.open(one.path, _READ)
        try:
            if one.size < _WHOLE:
                content = os.read(descriptor, one.size + 1)
                sha256 = hashlib.sha256(content)
                while len(content) > one.size and (content := os.read(descriptor, _WHOLE)):  # it grew meanwhile
                    sha256.update(content)
            else:
                with open(descriptor, "rb", closefd=False) as file:
                    sha256 = hashlib.file_digest(file, "sha256")
            return sha256.hexdigest(), _FileState.of(one.path, os.fstat(descriptor)) == one
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _unreadable(os.fsdecode(one.path), error) from error


def _unreadable(path: StrPath, error: OSError) -> InputError:
    shown = os.fsencode(path).decode("utf-8", "backslashreplace")
    return InputError(f"Cannot read {shown}: {error.strerror}.")


def _connect(path: Path) -> sqlite3.Connection:
    """Open the index; replace a file that is not a database, and use memory where the path cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return _open(path)
    except sqlite3.OperationalError:
        return _open(None)
    except sqlite3.DatabaseError:
        path.unlink()
        return _open(path)
    except OSError:
        return _open(None)


def _open(path: Path | None) -> sqlite3.Connection:
    database = sqlite3.connect(":memory:" if path is None else path, timeout=30, check_same_thread=False)
    try:
        database.execute(f"PRAGMA cache_size = -{_PAGES}")
        database.executescript(_SCHEMA)
        with database:
            database.execute("INSERT OR REPLACE INTO memory VALUES ('index', 'version', '1')")
    except sqlite3.Error:
        database.close()
        raise
    return database
