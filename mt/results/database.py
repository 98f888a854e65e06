"""The SQLite file of the scores: whose it is, its tables, and its errors as ours.

Processes share it, on network file systems too: rollback journal, a busy timeout, short transactions.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mt.errors import CacheError, LockedError, NoSpaceError

FORMAT_VERSION = 1
APPLICATION_ID = 0x6D742D73  # "mt-s"
BUSY_SECONDS = 60.0


class Database:
    """The database at `path`; made with its tables on the first write, so asking an absent one finds nothing.

    Raises CacheError where the file is someone else's, newer, or cannot be written; LockedError and NoSpaceError.
    """

    def __init__(self, path: Path, tables: str) -> None:
        self.path, self.tables = path, tables
        self.connection: sqlite3.Connection | None = None

    def close(self) -> None:
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def rows(self, query: str, values: list[str]) -> list[Any]:
        """Return the rows that a query finds."""
        if self.connection is None and not self.path.exists():
            return []
        with _translated(self.path):
            return self.connect().execute(query, values).fetchall()

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Hold the write lock for one transaction; what fails within is undone."""
        with _translated(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            sql = self.connect()
            sql.execute("BEGIN IMMEDIATE")
            try:
                make_tables(sql, self.path, self.tables)
                yield sql
                sql.execute("COMMIT")
            except BaseException:
                if sql.in_transaction:
                    sql.execute("ROLLBACK")
                raise

    def connect(self) -> sqlite3.Connection:
        """Return the connection, opened now if it is not."""
        if self.connection is None:
            self.connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)
            self.connection.execute("PRAGMA synchronous = FULL")
            if is_ours(self.connection, self.path):
                return self.connection
            with self.writing():  # an empty file: the tables are made under the write lock
                pass
        return self.connection


def is_ours(sql: sqlite3.Connection, path: Path) -> bool:
    """Tell whether the tables are there; raises when the file is someone else's or newer."""
    own = not sql.in_transaction
    if own:
        sql.execute("BEGIN")  # all of it in one look: another process may be making the tables
    try:
        (application,) = sql.execute("PRAGMA application_id").fetchone()
        (version,) = sql.execute("PRAGMA user_version").fetchone()
        (n_tables,) = sql.execute("SELECT count(*) FROM sqlite_master").fetchone()
        size = path.stat().st_size if path.exists() else 0
    finally:
        if own and sql.in_transaction:
            sql.execute("ROLLBACK")
    # SQLite takes a few bytes of something else for an empty database, and would write over them.
    if n_tables == 0 and size == 0:
        return False
    if application != APPLICATION_ID:
        raise CacheError(f"{path} is not a score database of mt. Name another file with --scores FILE.")
    if version > FORMAT_VERSION:
        raise CacheError(
            f"{path} has format {version}, this mt reads up to {FORMAT_VERSION}. "
            "Install a newer mt, or name another file with --scores FILE."
        )
    return True


def make_tables(sql: sqlite3.Connection, path: Path, tables: str) -> None:
    """Make the tables inside the open write transaction unless another process just did."""
    if is_ours(sql, path):
        return
    for statement in tables.strip().split(";\n"):
        sql.execute(statement.rstrip(";"))
    sql.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    sql.execute(f"PRAGMA user_version = {FORMAT_VERSION}")


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into ours: what happened to which file, and what to do."""
    try:
        yield
    except sqlite3.Error as error:
        text = str(error)
        other = "name a file on a local disk with --scores FILE or MT_SCORES"
        if "locked" in text:
            raise LockedError(f"{path} stayed locked by another process for {BUSY_SECONDS:.0f} s; {other}.") from error
        if "full" in text:
            raise NoSpaceError(f"No space left for {path}. Free some and run the same command again.") from error
        if "not a database" in text:
            raise CacheError(f"{path} is not a score database of mt; {other}.") from error
        raise CacheError(f"{path} cannot be used ({text}); {other}.") from error
