"""Many writers of one score database where files cannot be locked: each writes a file of its own, readers unite them.

SQLite relies on locks, which network file systems refuse (Lustre without `flock`, NFS without its lock service) or
grant to two machines at once (`nolock`).  There each process appends to a file that nobody else writes, in the folder
`scores.sqlite.writers` beside the database, and readers take the database and all of these files together.

A file is lines of UTF-8.  The first is a JSON object: format, version, and the names of a score's columns.  Each other
line is one transaction: 16 hexadecimal digits of the sha256 of the rest, a blank, and JSON: when it was made, and its
rows as [table, values, replace]; bytes are {"base64": ...}.  A line is synced before a transaction counts as kept.  A
line that is cut off, by a kill or because it is still being written, is not read.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import socket
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from mt.errors import CacheError
from mt.system import files

FORMAT, FORMAT_VERSION = "mt-scores-writer", 1
SUFFIX, FOLDER = ".jsonl", ".writers"
KEYS = {"cases": "digest", "fits": "identity", "scores": "identity", "answers": "key"}
STAYING = ("report:", "declared: ", "decided: ")  # answers that are not derived from scores
LATER = 1 << 40  # above the row numbers of a database
KEPT = "kept"  # the database itself, beside the rows of the writers' files


@dataclass(frozen=True)
class Row:
    """A row that a transaction adds to a table.  replace: a row of the same key is replaced; else it stays."""

    table: str
    values: Sequence[Any]
    replace: bool = False


Inserting = Callable[[sqlite3.Connection, Row, Sequence[str]], bool]


def folder_of(path: Path) -> Path:
    """Return the folder of the writers' files of a score database."""
    return path.with_name(path.name + FOLDER)


class WriterFile:
    """The file that this process alone appends to; made with its first transaction."""

    def __init__(self, folder: Path, columns: Sequence[str]) -> None:
        name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}{SUFFIX}"
        self.path, self.columns = folder / name, columns
        self.size = 0

    def append(self, rows: Sequence[Row]) -> None:
        """Keep one transaction: all of it is on disk when this returns.  Raises CacheError, NoSpaceError."""
        added = b""
        if not self.path.exists():  # the first one, or the rest of this file was forgotten meanwhile
            files.make_folder(self.path.parent)
            self.size = 0
            added = _first_line(self.columns)
        added += _line({"at": time.time(), "rows": [(row.table, row.values, row.replace) for row in rows]})
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
            try:
                # The rest of a failed append is overwritten.  A file that was rewritten without some rows is shorter.
                start = min(self.size, os.fstat(descriptor).st_size)
                files.write(descriptor, added, start)
                files.truncate(descriptor, start + len(added))
                files.sync(descriptor)
                self.size = start + len(added)
            finally:
                os.close(descriptor)
            files.sync_folder(self.path.parent)
        except OSError as error:
            raise files.explained(error, self.path) from error


class United:
    """The rows of a database and of all its writers' files, as one private database to query.

    make: the statements that make the tables.  columns: the names of a score's columns.  insert: adds a row to a table.
    """

    def __init__(self, path: Path, make: Sequence[str], columns: Sequence[str], insert: Inserting) -> None:
        self.path, self.folder, self.columns, self.insert = path, folder_of(path), columns, insert
        self.own = WriterFile(self.folder, columns)
        self.sql = sqlite3.connect("", isolation_level=None, uri=True)
        self.read: dict[Path, tuple[int, int]] = {}  # inode, and how many bytes were taken in
        try:
            self.sql.execute("PRAGMA journal_mode = OFF")
            for statement in make:
                self.sql.execute(statement)
            self._attach()
            self.refresh()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self.sql.close()

    def rows(self, query: str, values: Sequence[str]) -> list[Any]:
        """Return the rows that a query finds."""
        return self.sql.execute(query, values).fetchall()

    def add(self, rows: Sequence[Row]) -> int:
        """Keep one transaction in this process's own file; return the number of rows that no file read so far holds."""
        fresh = [row for row in rows if row.replace or not self._has(row)]
        if fresh:
            self.own.append(fresh)
            self._insert(fresh, self.columns)
            self.read[self.own.path] = self.own.path.stat().st_ino, self.own.size
        return len(fresh)

    def _has(self, row: Row) -> bool:
        """Say whether there is a row of its key; every table's key is its first column."""
        return bool(
            self.sql.execute(f"SELECT 1 FROM {row.table} WHERE {KEYS[row.table]} = ?", [row.values[0]]).fetchone()
        )

    def refresh(self) -> None:
        """Read what was written since the last call: transactions in the order of their time."""
        fresh = []
        for path in sorted(self.folder.glob("*" + SUFFIX)) if self.folder.is_dir() else ():
            inode, (known, start) = path.stat().st_ino, self.read.get(path, (0, 0))
            columns, lines, end = _read(path, start if inode == known else 0)
            fresh += [(line["at"], path.name, number, line["rows"], columns) for number, line in enumerate(lines)]
            self.read[path] = inode, end
        for *_, rows, columns in sorted(fresh, key=lambda one: one[:3]):
            self._insert((Row(*row) for row in rows), columns)

    def _insert(self, rows: Iterable[Row], columns: Sequence[str]) -> None:
        self.sql.execute("BEGIN")
        for row in rows:
            self.insert(self.sql, row, columns)
        self.sql.execute("COMMIT")

    def _attach(self) -> None:
        """Show the rows of the database itself, if there is one, together with those of the writers."""
        if not self.path.exists() or not self.path.stat().st_size:
            return
        name = self.path.absolute().as_uri()
        try:
            self.sql.execute(f"ATTACH ? AS {KEPT}", [f"{name}?mode=ro"])
            self.sql.execute(f"SELECT 1 FROM {KEPT}.fits LIMIT 1").fetchall()
        except sqlite3.OperationalError:
            if any(schema == KEPT for _, schema, _ in self.sql.execute("PRAGMA database_list")):
                self.sql.execute(f"DETACH {KEPT}")
            # Its locks fail as well.  No process writes it: all writers see the same file system.
            self.sql.execute(f"ATTACH ? AS {KEPT}", [f"{name}?immutable=1"])
        scores = ", ".join(f'"{name}"' for name in self.columns)
        for table, key in KEYS.items():
            columns = f"rowid + {{}} AS rowid, {scores}" if table == "scores" else "*"
            # Of two answers with one key the later one is valid; of all other rows the first.
            first, second = ("main", KEPT) if table == "answers" else (KEPT, "main")
            self.sql.execute(
                f"CREATE TEMP VIEW {table} AS "
                f"SELECT {columns.format(0)} FROM {first}.{table} UNION ALL SELECT {columns.format(LATER)} "
                f"FROM {second}.{table} AS other WHERE NOT EXISTS "
                f"(SELECT 1 FROM {first}.{table} AS same WHERE same.{key} = other.{key})"
            )

    def forget(self, fits: Collection[str], cases: Collection[str]) -> set[str]:
        """Write the writers' files again without these fits and their scores, nor the cases that no other fit needs.

        Returns those cases.  Answers are removed as well, except reports and declarations.
        """
        gone, needed = set(fits), set()
        for identity, pool, tested in self.rows("SELECT identity, pool, cases FROM fits", []):
            needed |= set() if identity in gone else {pool, tested}
        unused = set(cases) - needed
        derived = bool(fits or cases)
        fit = self.columns.index("fit")

        def goes(row: Row) -> bool:
            if row.table == "answers":
                return derived and not str(row.values[0]).startswith(STAYING)
            if row.table == "scores":
                return row.values[fit] in gone
            return row.values[0] in (gone if row.table == "fits" else unused)

        for path in sorted(self.folder.glob("*" + SUFFIX)) if self.folder.is_dir() else ():
            _forget(path, goes)
        return unused


def locks_fail(error: sqlite3.OperationalError) -> bool:
    """Say whether a file system refuses locks; a lock that another process holds is a different error."""
    return any(words in str(error) for words in ("locking protocol", "disk I/O error"))


def remove(sql: sqlite3.Connection, fits: Collection[str], cases: Collection[str]) -> None:
    """Delete fits with their scores, the cases that no other fit needs, and what was derived, inside a transaction."""
    sql.execute("PRAGMA secure_delete = ON")
    for fit in fits:
        sql.execute("DELETE FROM scores WHERE fit = ?", [fit])
        sql.execute("DELETE FROM fits WHERE identity = ?", [fit])
    for key in cases:
        unused = "NOT EXISTS (SELECT 1 FROM fits WHERE cases.digest IN (fits.pool, fits.cases))"
        sql.execute(f"DELETE FROM cases WHERE digest = ? AND {unused}", [key])
    if fits or cases:
        staying = " AND ".join(f"key NOT LIKE '{start}%'" for start in STAYING)
        sql.execute(f"DELETE FROM answers WHERE {staying}")


def _read(path: Path, start: int) -> tuple[list[str], list[dict[str, Any]], int]:
    """Return the columns of a score, the whole transactions of a writer's file from byte `start` on, and their end."""
    found: list[dict[str, Any]] = []
    with path.open("rb") as file:
        columns = _header(file.readline(), path)
        if columns is None:
            return [], [], 0
        end = max(start, file.tell())
        file.seek(end)
        for line in file:
            content = _content(line)
            if content is None:
                break
            found.append(_checked(json.loads(content, object_hook=_bytes), path))
            end += len(line)
    return columns, found, end


def _checked(transaction: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return a transaction; raise CacheError for a table that is not mt's, since its name enters a statement."""
    if any(table not in KEYS for table, _, _ in transaction["rows"]):
        raise _not_ours(path)
    return transaction


def _not_ours(path: Path) -> CacheError:
    return CacheError(f"{path} is not a file of scores of mt. Move it out of {path.parent}.")


def _content(line: bytes) -> bytes | None:
    """Return the JSON of a line; None of one that is not whole."""
    mark, _, content = line.rstrip(b"\n").partition(b" ")
    whole = line.endswith(b"\n") and mark == sha256(content).hexdigest()[:16].encode()
    return content if whole else None


def _header(line: bytes, path: Path) -> list[str] | None:
    """Return the columns of a score; None for a file that is still being made.  Raises CacheError for other formats."""
    if not line.endswith(b"\n"):
        return None
    try:
        about = json.loads(line)
        known = about["format"] == FORMAT
    except (ValueError, KeyError, TypeError):
        known = False
    if not known:
        raise _not_ours(path)
    if about["version"] > FORMAT_VERSION:
        raise CacheError(
            f"{path} has format {about['version']}, this mt reads up to {FORMAT_VERSION}. Install a newer mt."
        )
    if not all(isinstance(name, str) and name.isidentifier() for name in about["columns"]):  # parts of statements
        raise _not_ours(path)
    return list(about["columns"])


def _forget(path: Path, goes: Callable[[Row], bool]) -> None:
    """Write a writer's file again without the rows that `goes` names, if it has any."""
    columns, transactions, _ = _read(path, 0)
    kept = [{**one, "rows": [row for row in one["rows"] if not goes(Row(*row))]} for one in transactions]
    if kept == transactions:
        return
    content = _first_line(columns) + b"".join(_line(one) for one in kept if one["rows"])
    files.write_whole(path, content)


def _first_line(columns: Sequence[str]) -> bytes:
    return json.dumps({"format": FORMAT, "version": FORMAT_VERSION, "columns": list(columns)}).encode() + b"\n"


def _line(transaction: dict[str, Any]) -> bytes:
    rows = [[table, _plain(values), replace] for table, values, replace in transaction["rows"]]
    content = json.dumps({"at": transaction["at"], "rows": rows}).encode()
    return sha256(content).hexdigest()[:16].encode() + b" " + content + b"\n"


def _plain(values: Sequence[Any]) -> list[Any]:
    return [{"base64": base64.b64encode(value).decode()} if isinstance(value, bytes) else value for value in values]


def _bytes(found: dict[str, Any]) -> Any:
    return base64.b64decode(found["base64"]) if found.keys() == {"base64"} else found
