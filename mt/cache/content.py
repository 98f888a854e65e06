"""Hashes of files' content, computed once: known by (path, size, mtime), so that a rerun opens no image."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mt.cache.names import JSON, canonical
from mt.errors import InputError
from mt.system import files
from mt.system.device import cores
from mt.terminal import progress

_SCHEMA = """
CREATE TABLE IF NOT EXISTS content (
    path TEXT PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, sha256 TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS memory (
    kind TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (kind, key)
) WITHOUT ROWID;
"""
_BATCH = 256  # files hashed between two commits: what an interrupted run keeps
StrPath = str | os.PathLike[str]
_Name = str | bytes  # bytes where a file's name is no UTF-8, which SQLite's text must be
_Key = tuple[_Name, int, int]
_Known = tuple[_Name, int, int, str]


class ContentIndex:
    """Remembers the sha256 of files in SQLite, trusting it while path, size and mtime_ns are equal.

    path: the database, by default in the user's folder.  Where it cannot be written the memory lasts as long as
    the object.  rehash: hash every file again, whatever is remembered.
    """

    def __init__(self, path: Path | None = None, *, rehash: bool = False) -> None:
        self.rehash = rehash
        self._lock = threading.Lock()
        self._database = _connect(path or files.index_path())

    def sha256(self, path: StrPath) -> str:
        """Return the sha256 of a file's content, in hexadecimal."""
        return self.sha256_many([path])[0]

    def sha256_many(self, paths: Sequence[StrPath], *, label: str = "hashing") -> list[str]:
        """Return the sha256 of each file; files that are known are only asked for their size and time.

        Raises InputError naming a file that cannot be read.
        """
        keys = [_key(path) for path in paths]
        found = {} if self.rehash else self._known(keys)
        unknown = [key for key in dict.fromkeys(keys) if key not in found]
        if unknown:
            with progress.bar(label, len(unknown), unit="files") as advance:
                for known in self._hash(unknown):
                    found[known[:3]] = known[3]
                    advance(1)
        return [found[key] for key in keys]

    def recall(self, kind: str, key: JSON) -> JSON | None:
        """Return what was remembered under a kind and a key, or None."""
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
        """Forget files by the first hexadecimal digits of their hash, and by path; and what DICOM headers said."""
        with self._lock, self._database:
            self._database.execute("PRAGMA secure_delete = ON")
            self._database.executemany(
                "DELETE FROM content WHERE sha256 >= ? AND sha256 < ?", [(one, f"{one}g") for one in prefixes]
            )
            self._database.executemany("DELETE FROM content WHERE path = ?", [(_stored_name(one),) for one in paths])
            self._database.execute("DELETE FROM memory WHERE kind = 'dicom headers'")

    def __del__(self) -> None:
        if hasattr(self, "_database"):
            self._database.close()

    def _known(self, keys: Sequence[_Key]) -> dict[_Key, str]:
        query = "SELECT sha256 FROM content WHERE path = ? AND size = ? AND mtime_ns = ?"
        found = {}
        with self._lock:
            for key in keys:
                if row := self._database.execute(query, key).fetchone():
                    found[key] = row[0]
        return found

    def _hash(self, keys: Sequence[_Key]) -> Iterator[_Known]:
        """Hash files on all processors and remember each, unless it changed meanwhile."""
        with ThreadPoolExecutor(cores()) as pool:
            for start in range(0, len(keys), _BATCH):
                batch = keys[start : start + _BATCH]
                hashes = pool.map(lambda key: _sha256(key[0]), batch)
                known = [(*key, sha256) for key, sha256 in zip(batch, hashes, strict=True)]
                with self._lock, self._database:
                    self._database.executemany(
                        "INSERT OR REPLACE INTO content VALUES (?, ?, ?, ?)",
                        [row for row in known if _key(os.fsdecode(row[0])) == row[:3]],
                    )
                yield from known


def _key(path: StrPath) -> _Key:
    """Return what a file is known by: its absolute path, its size and its time."""
    try:
        stat = os.stat(path)
    except OSError as error:
        raise _unreadable(path, error) from error
    return _stored_name(path), stat.st_size, stat.st_mtime_ns


def _stored_name(path: StrPath) -> _Name:
    """Return the absolute path as SQLite can keep it."""
    name = os.path.abspath(path)
    return name if _is_text(name) else os.fsencode(name)


def _is_text(name: str) -> bool:
    """Tell whether a file's name is UTF-8; other bytes of it are surrogates in Python."""
    return not any("\ud800" <= sign <= "\udfff" for sign in name)


def _sha256(path: _Name) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(os.fsdecode(path), error) from error


def _unreadable(path: StrPath, error: OSError) -> InputError:
    shown = os.fsencode(path).decode("utf-8", "backslashreplace")
    return InputError(f"Cannot read {shown}: {error.strerror}.")


def _connect(path: Path) -> sqlite3.Connection:
    """Open the index; a file that is no database is made anew, and a place that cannot be written is not used."""
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
        database.executescript(_SCHEMA)
        with database:
            database.execute("INSERT OR REPLACE INTO memory VALUES ('index', 'version', '1')")
    except sqlite3.Error:
        database.close()
        raise
    return database
