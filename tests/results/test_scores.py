"""The score database: rows survive, are never doubled, and errors say what to do."""

from __future__ import annotations

import dataclasses
import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from mt.cache.names import digest_of_cases
from mt.errors import CacheError, LockedError, NoSpaceError
from mt.results import store as database
from mt.results.store import Fit, Score, ScoreStore
from mt.types import LabelledRows, Texts
from tests.open_stores import open_store

WRITER = """
import sys
from pathlib import Path
from tests.results.test_scores import a_fit, a_score
from mt.results.store import ScoreStore
store = ScoreStore(Path(sys.argv[1]))
sys.stdin.readline()
for number in range(40):
    store.add_fit(a_fit(str(number)))
    store.add_scores([a_score(str(number))])
"""


def a_fit(name: str = "fit") -> Fit:
    return Fit(name, "pool", "cases", np.array([3, 1, 2]), np.array([0.25, 0.75], dtype=np.float32), {"task": "binary"})


def a_score(name: str = "score") -> Score:
    texts = {f.name: "x" for f in dataclasses.fields(Score) if f.type == "str"}
    return Score(
        **{**texts, "identity": name, "fit": name},
        fraction=0.1,
        shots=None,
        seed=0,
        value=0.8,
        low=0.7,
        high=0.9,
        n_labels=3,
        n_test=2,
        n_units=2,
        by=None,
        subgroup=None,
        flags=("fixed_C",),
        settings={"C": 1.0},
        realised={"rows": [1, 2]},
        fingerprints={},
        versions={},
    )


@pytest.fixture
def store(tmp_path: Path) -> ScoreStore:
    return open_store(tmp_path / "scores.sqlite")


def test_an_absent_database_answers_nothing_and_is_not_made(store: ScoreStore) -> None:
    assert store.scores() == []
    assert store.has_fits(["a"]) == set()
    assert store.recall("a") is None
    assert not store.path.exists()


@pytest.mark.parametrize("outputs", [None, 3])
def test_a_fit_comes_back_bit_for_bit(store: ScoreStore, outputs: int | None) -> None:
    rng = np.random.default_rng(0)
    p = rng.random(7 if outputs is None else (7, outputs)).astype(np.float32)
    fit = dataclasses.replace(a_fit(), probabilities=p)
    assert store.add_fit(fit)
    again = open_store(store.path).fit("fit")
    assert again.probabilities.tobytes() == p.tobytes()
    assert again.probabilities.shape == p.shape
    assert again.rows.tolist() == [3, 1, 2]
    assert again.outcome == {"task": "binary"}


def test_a_score_comes_back(store: ScoreStore) -> None:
    store.add_scores([a_score()])
    (score,) = open_store(store.path).scores()
    assert score == a_score()
    assert store.scores_of(["score"]) == [score]
    assert store.scores_of(["other"]) == []


def test_an_undefined_score_is_null_in_json(store: ScoreStore) -> None:
    store.add_scores([dataclasses.replace(a_score(), value=float("nan"), low=None, high=None)])
    (score,) = store.scores()
    assert np.isnan(score.value)
    assert json.loads(json.dumps(score.row()))["value"] is None


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (
            LabelledRows(
                None, np.array([0, 1]), ["p", "q"], ["a", "b"], {"age": [40.0, float("nan")], "sex": ["F", "M"]}
            ),
            "a612395093fa1544fc0b339e7aa428853b160296a1b352964a7e2ba52b2dab47",
        ),
        (
            LabelledRows(None, np.array([[0, 1], [1, 1]], dtype=np.int8), ids=["a", "b"]),
            "7f96ea4d990cfedbce14d5eaa0886600fadc2c4a7396f58868e065cf3db93e6e",
        ),
    ],
    ids=["groups and columns", "multilabel"],
)
def test_the_digest_of_rows_never_changes(rows: LabelledRows[None], expected: str) -> None:
    """Written by mt 0.1: databases of all releases name rows by it, whatever holds groups in memory."""
    assert digest_of_cases(rows) == expected
    assert digest_of_cases(dataclasses.replace(rows, ids=Texts.of(rows.ids))) == expected
    if rows.groups is not None:
        assert digest_of_cases(dataclasses.replace(rows, groups=Texts.of(rows.groups))) == expected
        assert digest_of_cases(dataclasses.replace(rows, groups=np.array(rows.groups))) == expected


def test_ids_are_stored_once_however_many_fits_use_them(store: ScoreStore) -> None:
    cases = LabelledRows(
        None, np.array([0, 1]), ["p", "q"], ["a", "b"], {"age": [40.0, float("nan")], "sex": ["F", "M"]}
    )
    keys = {store.add_cases(cases) for _ in range(3)}
    assert len(keys) == 1
    with closing(sqlite3.connect(store.path)) as sql:
        (count,) = sql.execute("SELECT count(*) FROM cases").fetchone()
    again = store.cases(keys.pop())
    assert count == 1
    assert again.ids == ["a", "b"]
    assert again.groups == ["p", "q"]
    assert again.y.tolist() == [0, 1]
    assert again.columns == {"age": [40.0, None], "sex": ["F", "M"]}


def test_the_same_row_again_changes_nothing(store: ScoreStore) -> None:
    assert store.add_fit(a_fit())
    assert not store.add_fit(dataclasses.replace(a_fit(), outcome={"task": "other"}))
    for value in (0.8, 0.1):
        store.add_scores([dataclasses.replace(a_score(), value=value)])
    assert store.fit("fit").outcome == {"task": "binary"}
    assert [s.value for s in store.scores()] == [0.8]


def test_real_processes_lose_and_double_no_row(tmp_path: Path) -> None:
    path = tmp_path / "scores.sqlite"
    command = [sys.executable, "-c", WRITER, str(path)]
    writers = [subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    failures = [writer.communicate("go\n")[1] for writer in writers]
    assert [writer.returncode for writer in writers] == [0] * 4, failures
    store = open_store(path)
    assert sorted(int(score.identity) for score in store.scores()) == list(range(40))
    assert store.has_fits(map(str, range(50))) == set(map(str, range(40)))


def test_a_killed_writer_leaves_what_it_had_committed(tmp_path: Path) -> None:
    path = tmp_path / "scores.sqlite"
    script = (
        WRITER
        + "\nsql = store._database.connection\nsql.execute('BEGIN IMMEDIATE')\nsql.execute('DELETE FROM scores')\n"
    )
    script += "print('ready', flush=True)\nsys.stdin.readline()\n"
    command = [sys.executable, "-c", script, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdin
        assert writer.stdout
        writer.stdin.write("go\n")
        writer.stdin.flush()
        assert writer.stdout.readline() == "ready\n"
        writer.kill()
    store = open_store(path)
    assert len(store.scores()) == 40
    store.add_scores([a_score("after")])
    assert len(store.scores()) == 41


def test_journal_suits_network_file_systems(store: ScoreStore) -> None:
    store.add_fit(a_fit())
    with closing(sqlite3.connect(store.path)) as sql:
        assert sql.execute("PRAGMA journal_mode").fetchone() == ("delete",)


def test_a_lock_that_stays_is_an_error_that_says_what_to_do(store: ScoreStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.add_fit(a_fit())
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.05)
    with closing(sqlite3.connect(store.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LockedError, match="--scores"):
            open_store(store.path).add_fit(a_fit("another"))


def test_other_files_and_newer_formats_are_refused(tmp_path: Path) -> None:
    text = tmp_path / "notes.sqlite"
    text.write_text("not a database, but long enough to look at" * 30)
    short = tmp_path / "short.sqlite"
    short.write_text("x")  # SQLite takes so short a file for an empty database
    foreign = tmp_path / "foreign.sqlite"
    with closing(sqlite3.connect(foreign)) as sql, sql:
        sql.execute("CREATE TABLE theirs (x)")
    newer = open_store(tmp_path / "newer.sqlite")
    newer.add_fit(a_fit())
    newer.close()
    with closing(sqlite3.connect(newer.path)) as sql, sql:
        sql.execute(f"PRAGMA user_version = {database.FORMAT_VERSION + 1}")
    for path in (text, short):
        with pytest.raises(CacheError, match="not a score database"):
            open_store(path).add_fit(a_fit())
    assert short.read_text() == "x"
    for path, message in ((text, "not a score database"), (foreign, "not a score database"), (newer.path, "newer mt")):
        with pytest.raises(CacheError, match=message):
            open_store(path).scores()


def test_a_full_disk_is_one_clear_line(store: ScoreStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.add_fit(a_fit())
    sql = store._database.connect()
    (pages,) = sql.execute("PRAGMA page_count").fetchone()
    sql.execute(f"PRAGMA max_page_count = {pages}")
    big = LabelledRows(None, np.arange(2000), ids=[f"{n}-{os.urandom(20).hex()}" for n in range(2000)])
    with pytest.raises(NoSpaceError, match="No space left"):
        store.add_cases(big)
    assert store.has_fits(["fit"]) == {"fit"}


class Raced:
    """A connection during whose look at the tables another process makes them."""

    def __init__(self, sql: sqlite3.Connection, path: Path) -> None:
        self.sql, self.path, self.made = sql, path, False

    @property
    def in_transaction(self) -> bool:
        return self.sql.in_transaction

    def execute(self, statement: str) -> sqlite3.Cursor:
        if "sqlite_master" in statement:
            with closing(sqlite3.connect(self.path, timeout=0, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                database.make_tables(other, self.path, "CREATE TABLE ours (x)")
                try:
                    other.execute("COMMIT")
                    self.made = True
                except sqlite3.OperationalError:
                    other.execute("ROLLBACK")
        return self.sql.execute(statement)


def test_a_database_that_is_being_made_is_no_stranger(tmp_path: Path) -> None:
    path = tmp_path / "scores.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as sql:
        raced = Raced(sql, path)
        assert database.is_ours(cast(sqlite3.Connection, raced), path) == raced.made
    open_store(path).add_cases(LabelledRows(None, np.zeros(1), ids=["a"]))
    with closing(sqlite3.connect(path, isolation_level=None)) as sql:
        assert database.is_ours(sql, path)
