"""The score database: every fit's predictions and every score made from them, in one SQLite file.

It lies beside the feature files and is shared by processes: rollback journal, a busy timeout, one short transaction per
fit, and unique keys with INSERT OR IGNORE, so that no row is lost or doubled.  On a network file system, and wherever
locks fail, each process appends to a file of its own and all are read together: mt.results.writers.
What it holds makes reports and comparisons possible without a feature file, and without fitting anything.

    cases       digest -> the ids, labels, groups and columns of a set of rows (once, however many fits use it)
    fits        identity -> the draw's rows, what was chosen and why, and the test probabilities (float32)
    scores      identity -> one number with everything that says what it is
    answers     key -> a small JSON value derived from the above (an interval of a mean, a comparison)
"""

from __future__ import annotations

import dataclasses
import json
import sqlite3
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from mt.cache.names import content_of_cases, digest, digest_of_cases, json_value
from mt.errors import CacheError, LockedError, NoSpaceError
from mt.results.writers import FOLDER, Row, United, locks_fail, remove
from mt.system import files
from mt.types import LabelledRows

FORMAT_VERSION = 1
APPLICATION_ID = 0x6D742D73  # "mt-s"
BUSY_SECONDS = 60.0
_TABLES = """
CREATE TABLE cases (digest TEXT PRIMARY KEY, content BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE fits (identity TEXT PRIMARY KEY, pool TEXT NOT NULL, cases TEXT NOT NULL, rows BLOB NOT NULL,
                   probabilities BLOB NOT NULL, outputs INTEGER, outcome TEXT NOT NULL);
CREATE TABLE scores ({columns}, PRIMARY KEY (identity));
CREATE INDEX scores_by_fit ON scores (fit);
CREATE TABLE answers (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Fit:
    """One fitted method: the rows it used, the settings it chose, and its predictions for the test cases.

    pool: digest of the rows that budgets are drawn from.  cases: digest of the test cases.
    rows: (n_draw,) row numbers of the pool, in draw order.
    probabilities: float32, (n,) for binary and (n, K) otherwise, in the order of the cases.
    outcome: JSON with the chosen settings, the fold scores, flags, the realised draw, versions and n_labels.
    """

    identity: str
    pool: str
    cases: str
    rows: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float32]
    outcome: Mapping[str, Any]


@dataclass(frozen=True)
class Score:
    """One number and everything that says what it is."""

    identity: str
    fit: str
    dataset: str
    model: str
    method: str
    protocol: str
    fraction: float | None
    shots: int | None
    seed: int
    metric: str
    value: float
    low: float | None
    high: float | None
    interval: str
    n_labels: int
    n_test: int
    n_units: int
    test_dataset: str
    solver: str
    select: str
    level: str
    by: str | None
    subgroup: str | None
    flags: tuple[str, ...]
    settings: Mapping[str, Any]
    realised: Mapping[str, Any]
    fingerprints: Mapping[str, Any]
    versions: Mapping[str, Any]

    @property
    def scaling(self) -> str:
        """How the probabilities were scaled (`--calibrate`), as its protocol says; empty if they were not."""
        return self.protocol.partition(", ")[2]

    def row(self) -> dict[str, Any]:
        """Return the score as one flat JSON object; a value that is undefined is null."""
        return {name: json_value(value) for name, value in vars(self).items()}


_FIELDS = tuple(f.name for f in dataclasses.fields(Score))
_JSON_FIELDS = frozenset({"flags", "settings", "realised", "fingerprints", "versions"})
_COLUMNS = ", ".join(f'"{name}"' for name in _FIELDS)


class ScoreStore:
    """The score database at `path`.  It is made on the first write; reading an absent one finds nothing.

    Every method raises CacheError if the file belongs to another program, is newer or cannot be used; LockedError if
    another process holds it for 60 s; NoSpaceError if the disk is full.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._database = Database(path, _TABLES.format(columns=_COLUMNS))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._database.close()

    def add_cases(self, rows: LabelledRows[None]) -> str:
        """Keep the ids, labels, groups and columns of a split once; returns their digest."""
        key = digest_of_cases(rows)
        if not self._database.rows("SELECT 1 FROM cases WHERE digest = ?", [key]):
            packed = zlib.compressobj(6)
            blob = b"".join([*map(packed.compress, content_of_cases(rows)), packed.flush()])
            self._database.add([Row("cases", [key, blob])])
        return key

    def cases(self, key: str) -> LabelledRows[None]:
        """Return the rows kept under a digest, without features.  Raises CacheError if there are none."""
        (blob,) = self._one("SELECT content FROM cases WHERE digest = ?", key)
        content = json.loads(zlib.decompress(blob))
        labels = np.array(content["labels"], dtype=content["dtype"])
        return LabelledRows(None, labels, content["groups"], content["ids"], content["columns"])

    def add_fit(self, fit: Fit) -> bool:
        """Keep a fit; returns False when another process was first."""
        probabilities = np.ascontiguousarray(fit.probabilities, dtype="<f4")
        row = [
            fit.identity,
            fit.pool,
            fit.cases,
            zlib.compress(np.ascontiguousarray(fit.rows, dtype="<i8").tobytes(), 6),
            zlib.compress(probabilities.tobytes(), 1),
            probabilities.shape[1] if probabilities.ndim == 2 else None,
            json.dumps(fit.outcome),
        ]
        return self._database.add([Row("fits", row)]) == 1

    def has_fits(self, identities: Iterable[str]) -> set[str]:
        """Return those of the identities that are kept, by other processes too."""
        if self._database.united:
            self._database.united.refresh()
        rows = self._in("SELECT identity FROM fits WHERE identity IN ({})", list(identities))
        return {identity for (identity,) in rows}

    def fit(self, identity: str) -> Fit:
        """Return one kept fit with its predictions.  Raises CacheError if there is none."""
        row = self._one("SELECT * FROM fits WHERE identity = ?", identity)
        _, pool, cases, rows, probabilities, outputs, outcome = row
        values: npt.NDArray[np.float32] = np.frombuffer(zlib.decompress(probabilities), "<f4")
        if outputs is not None:
            values = values.reshape(-1, outputs)
        drawn = np.frombuffer(zlib.decompress(rows), "<i8")
        return Fit(identity, pool, cases, drawn, values, json.loads(outcome))

    def origins(self, identities: Iterable[str]) -> dict[str, str]:
        """Return, for each kept fit, a digest of its pool, its draw's rows and its cases: equal ones can be paired."""
        rows = self._in("SELECT identity, pool, cases, rows FROM fits WHERE identity IN ({})", list(identities))
        return {identity: digest([pool, cases, sha256(drawn).hexdigest()]) for identity, pool, cases, drawn in rows}

    def splits(self, identities: Iterable[str]) -> dict[str, str]:
        """Return, for each kept fit, a digest of its pool and its cases, which all draws of an experiment share."""
        rows = self._in("SELECT identity, pool, cases FROM fits WHERE identity IN ({})", list(identities))
        return {identity: digest([pool, cases]) for identity, pool, cases in rows}

    def add_scores(self, scores: Sequence[Score]) -> None:
        """Keep scores in one transaction; one that is already there stays as it is."""
        self._database.add([Row("scores", _values(score)) for score in scores])

    def scores(self) -> list[Score]:
        """Return all kept scores, in the order they were made."""
        return list(map(_score, self._database.rows(f"SELECT {_COLUMNS} FROM scores ORDER BY rowid", [])))

    def scores_of(self, fits: Iterable[str]) -> list[Score]:
        """Return the kept scores of these fits: in every metric, level and subgroup, made by any revision."""
        query = f"SELECT {_COLUMNS} FROM scores WHERE fit IN ({{}}) ORDER BY rowid"
        return list(map(_score, self._in(query, list(fits))))

    def cases_where(self, holds: Callable[[LabelledRows[None]], bool]) -> set[str]:
        """Return the digests of the kept sets of rows of which `holds` is true."""
        digests = [key for (key,) in self._database.rows("SELECT digest FROM cases", [])]
        return {key for key in digests if holds(self.cases(key))}

    def fits_on(self, cases: Collection[str], datasets: Collection[str] = ()) -> set[str]:
        """Return the fits that were drawn from, or tested on, these sets of rows; of some datasets, or of all."""
        fits = self._database.rows("SELECT identity, pool, cases FROM fits", [])
        found = {identity for identity, pool, tested in fits if pool in cases or tested in cases}
        if not datasets:
            return found
        scores = self.scores_of(found)
        return {score.fit for score in scores if {score.dataset, score.test_dataset} & set(datasets)}

    def forget(self, fits: Collection[str], cases: Collection[str]) -> None:
        """Remove fits with their scores, and sets of rows that no other fit needs: in one step, and from the disk.

        All answers derived from scores are removed, and computed again when they are asked for; declarations and
        rules for thresholds stay.
        """
        self._database.forget(fits, cases)

    def recall(self, key: str) -> Any:
        """Return the answer kept under a key, or None."""
        rows = self._database.rows("SELECT value FROM answers WHERE key = ?", [key])
        return json.loads(rows[0][0]) if rows else None

    def remember(self, key: str, value: Any) -> None:
        """Keep a JSON value under a key; it must depend only on what the key is the digest of."""
        self._database.add([Row("answers", [key, json.dumps(value)], replace=True)])

    def recalled(self, kind: str) -> list[Any]:
        """Return the answers whose key begins with this kind."""
        rows = self._database.rows("SELECT value FROM answers WHERE instr(key, ?) = 1", [kind])
        return [json.loads(value) for (value,) in rows]

    def _in(self, query: str, values: list[str]) -> list[Any]:
        found: list[Any] = []
        for start in range(0, len(values), 500):
            part = values[start : start + 500]
            found += self._database.rows(query.format(",".join("?" * len(part))), part)
        return found

    def _one(self, query: str, key: str) -> Any:
        rows = self._database.rows(query, [key])
        if not rows:
            raise CacheError(f"{self.path}: nothing is kept under {key[:12]}. Run the same `mt probe` again.")
        return rows[0]


def _values(score: Score) -> list[Any]:
    return [json.dumps(value) if name in _JSON_FIELDS else json_value(value) for name, value in vars(score).items()]


def _score(row: Sequence[Any]) -> Score:
    values = {
        name: json.loads(value) if name in _JSON_FIELDS else value for name, value in zip(_FIELDS, row, strict=True)
    }
    values["flags"] = tuple(values["flags"])
    if values["value"] is None:
        values["value"] = float("nan")
    return Score(**values)


# The file: whose it is, its tables, and SQLite's errors as ours -------------------------------------------------------


class Database:
    """The database at `path`.  It is made with its tables on the first write; reading an absent one finds nothing.

    united: the database together with the files of many writers, where locks cannot be relied on.
    Raises as `ScoreStore` does.
    """

    def __init__(self, path: Path, tables: str) -> None:
        self.path, self.tables = path, tables
        self.connection: sqlite3.Connection | None = None
        self._united: United | None = None
        self._alone = False

    def close(self) -> None:
        for opened in (self.connection, self._united):
            if opened is not None:
                opened.close()
        self.connection = self._united = None

    @property
    def united(self) -> United | None:
        """The rows of many writers: where there are such files, and on network file systems."""
        if self._united is None and not self._alone:
            writers = self.path.with_name(self.path.name + FOLDER)
            self._alone = not (writers.is_dir() or files.is_shared(self.path.parent))
            if not self._alone:
                self._unite()
        return self._united

    def _unite(self) -> United:
        """Write to a file of this process's own from now on."""
        self.close()
        with _translated(self.path):
            self._united = United(self.path, _statements(self.tables), _FIELDS, insert)
        return self._united

    def rows(self, query: str, values: list[str]) -> list[Any]:
        """Return the rows that a query finds."""
        if self.united is None and self.connection is None and not self.path.exists():
            return []
        with _translated(self.path):
            try:
                return (
                    self.united.rows(query, values) if self.united else self.connect().execute(query, values).fetchall()
                )
            except sqlite3.OperationalError as error:
                if self._united or not locks_fail(error):
                    raise
                return self._unite().rows(query, values)

    def add(self, rows: Sequence[Row]) -> int:
        """Keep rows in one transaction; returns how many are new.  Where locks fail, in this process's own file."""
        with _translated(self.path):
            if self.united:
                return self.united.add(rows)
            try:
                with self.writing() as sql:
                    return sum(insert(sql, row, _FIELDS) for row in rows)
            except sqlite3.OperationalError as error:
                if not locks_fail(error):
                    raise
                return self._unite().add(rows)

    def forget(self, fits: Collection[str], cases: Collection[str]) -> None:
        """Remove fits, and the cases that no other fit needs, from the database and from all writers' files."""
        if self.united:
            cases = self.united.forget(fits, cases)
            self.close()
        if self.path.exists():
            with _translated(self.path), self.writing() as sql:
                remove(sql, fits, cases)

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Hold the write lock for one transaction; what fails within is undone."""
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


def insert(sql: sqlite3.Connection, row: Row, columns: Sequence[str]) -> bool:
    """Insert a row into a table; returns whether it is new.  columns: the names of a score's columns."""
    named = "({})".format(", ".join(f'"{name}"' for name in columns)) if row.table == "scores" else ""
    how, marks = "REPLACE" if row.replace else "IGNORE", ", ".join("?" * len(row.values))
    added = sql.execute(f"INSERT OR {how} INTO main.{row.table} {named} VALUES ({marks})", row.values)
    return bool(added.rowcount)


def is_ours(sql: sqlite3.Connection, path: Path) -> bool:
    """Say whether the tables are there.  Raises CacheError if the file belongs to another program or is newer."""
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
    for statement in _statements(tables):
        sql.execute(statement)
    sql.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    sql.execute(f"PRAGMA user_version = {FORMAT_VERSION}")


def _statements(tables: str) -> list[str]:
    return [statement.rstrip(";") for statement in tables.strip().split(";\n")]


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
