"""Many writers on a disk without locks: nothing is lost, even if a writer is killed or refused a lock."""

from __future__ import annotations

import errno
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mt.errors import CacheError, NoSpaceError
from mt.results.store import ScoreStore
from mt.results.writers import Row, WriterFile, folder_of
from mt.system import files
from mt.types import LabelledRows
from tests.open_stores import open_store
from tests.results.test_scores import a_fit, a_score

SHARED = "from mt.system import files\nfiles.is_shared = lambda folder: True\n"
WRITER = f"""
import sys
from pathlib import Path
from tests.results.test_scores import a_fit, a_score
from mt.results.store import ScoreStore
{SHARED}
store = ScoreStore(Path(sys.argv[1]))
sys.stdin.readline()
for number in range(int(sys.argv[2]), 1_000_000):
    store.add_fit(a_fit(str(number)))
    store.add_scores([a_score(str(number))])
    print(number, flush=True)
    if number == int(sys.argv[3]):
        break
"""


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the path of a score database on a folder that counts as a network file system."""
    monkeypatch.setattr(files, "is_shared", lambda folder: True)
    return tmp_path / "scores.sqlite"


def writer(path: Path, first: int, last: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(path), str(first), str(last)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def kept(path: Path) -> set[int]:
    with ScoreStore(path) as store:
        scores = [int(score.identity) for score in store.scores()]
        assert len(scores) == len(set(scores))
        assert store.has_fits(map(str, scores)) == set(map(str, scores))
        return set(scores)


def test_real_processes_lose_and_double_no_row(path: Path) -> None:
    writers = [writer(path, 10 * number, 10 * number + 14) for number in range(4)]  # five of each are two processes'
    failures = [one.communicate("go\n")[1] for one in writers]
    assert [one.returncode for one in writers] == [0] * 4, failures
    assert kept(path) == set(range(45))
    assert len(list(folder_of(path).iterdir())) == 4
    assert not path.exists()


def test_a_killed_writer_leaves_what_it_had_kept(path: Path) -> None:
    with writer(path, 0, -1) as one:
        assert one.stdin
        assert one.stdout
        one.stdin.write("go\n")
        one.stdin.flush()
        said = [int(one.stdout.readline()) for _ in range(20)]
        one.kill()
    assert set(said) <= kept(path)
    with ScoreStore(path) as store:
        store.add_scores([a_score("1000000")])
    assert 1_000_000 in {int(score.identity) for score in open_store(path).scores()}


def test_a_line_that_is_cut_off_anywhere_takes_nothing_else_along(path: Path) -> None:
    for number in range(2):
        with ScoreStore(path) as store:
            store.add_scores([a_score(f"{number}0"), a_score(f"{number}1")])
            store.add_scores([a_score(f"{number}2")])
    one = min(folder_of(path).iterdir())
    whole = one.read_bytes()
    last = len(whole[: whole[:-1].rindex(b"\n")])
    for end in (0, 10, last // 2, last + 2, (last + len(whole)) // 2, len(whole) - 1):
        one.write_bytes(whole[:end])
        found = {score.identity for score in open_store(path).scores()}
        assert len(found) == (5 if end > last else 3)


def test_what_was_written_by_others_meanwhile_is_read_by_the_next_to_open(path: Path) -> None:
    first = open_store(path)
    first.add_fit(a_fit("1"))
    with ScoreStore(path) as second:
        assert second.has_fits("1") == {"1"}
        second.add_fit(a_fit("2"))
    assert first.has_fits("12") == {"1", "2"}
    assert not first.add_fit(a_fit("2"))


def test_an_older_database_stays_readable_and_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "scores.sqlite"
    with ScoreStore(path) as before:
        cases = before.add_cases(LabelledRows(None, np.array([0, 1]), ids=["a", "b"]))
        before.add_fit(a_fit("1"))
        before.add_scores([a_score("1"), a_score("2")])
        before.remember("mean", 1)
    content = path.read_bytes()
    monkeypatch.setattr(files, "is_shared", lambda folder: True)
    with ScoreStore(path) as store:
        assert store.add_cases(LabelledRows(None, np.array([0, 1]), ids=["a", "b"])) == cases
        assert not store.add_fit(a_fit("1"))
        assert store.add_fit(a_fit("3"))
        store.add_scores([a_score("2"), a_score("3")])
        store.remember("mean", 2)
    with ScoreStore(path) as store:
        assert [score.identity for score in store.scores()] == ["1", "2", "3"]
        assert store.cases(cases).ids == ["a", "b"]
        assert store.has_fits("123") == {"1", "3"}
        assert store.recall("mean") == 2
        np.testing.assert_array_equal(store.fit("3").probabilities, a_fit().probabilities)
    assert path.read_bytes() == content


class Refusing(sqlite3.Connection):
    """A connection to a file whose locks fail, as SQLite reports it, at some of its statements."""

    words, at = "", ()

    def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        if statement.startswith(self.at):
            raise sqlite3.OperationalError(self.words)
        return super().execute(statement, *values)


@pytest.mark.parametrize("words", ["locking protocol", "disk I/O error"])
@pytest.mark.parametrize("at", [("BEGIN IMMEDIATE",), ("BEGIN",), ("COMMIT",), ("BEGIN", "SELECT", "PRAGMA user")])
def test_what_a_failing_lock_refuses_goes_to_a_file_of_its_own(
    words: str, at: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "scores.sqlite"
    with ScoreStore(path) as before:
        before.add_fit(a_fit("1"))
        before.add_scores([a_score("1")])
    refusing = type("Refused", (Refusing,), {"words": words, "at": at})
    plain = sqlite3.connect

    def connect(place: Any, **options: Any) -> sqlite3.Connection:
        found: sqlite3.Connection = plain(place, **(options | ({"factory": refusing} if place == path else {})))
        return found

    monkeypatch.setattr("mt.results.store.sqlite3.connect", connect)
    for number in range(2, 4):
        with ScoreStore(path) as store:
            assert store.add_fit(a_fit(str(number)))
            store.add_scores([a_score(str(number))])
            assert store.has_fits("123") == set("123"[:number])
    monkeypatch.undo()
    assert kept(path) == {1, 2, 3}


def test_a_failed_append_leaves_no_half_line_before_the_next(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(path)
    store.add_fit(a_fit("1"))

    def full(descriptor: int, data: bytes, offset: int) -> None:
        os.pwrite(descriptor, data[: len(data) // 2], offset)
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files, "write", full)
        with pytest.raises(NoSpaceError, match="writers"):
            store.add_fit(a_fit("2"))
    assert store.add_fit(a_fit("3"))
    with ScoreStore(path) as again:
        assert again.has_fits("123") == {"1", "3"}


def test_what_is_forgotten_leaves_every_file(path: Path) -> None:
    rows = {name: LabelledRows(None, np.array([0]), ids=[name]) for name in ("Alice", "Bob")}
    for number, name in enumerate(("Alice", "Bob")):
        with ScoreStore(path) as store:
            key = store.add_cases(rows[name])
            fit = a_fit(str(number))
            store.add_fit(type(fit)(**{**vars(fit), "pool": key, "cases": key}))
            store.add_scores([a_score(str(number))])
            store.remember("mean", number)
    alive = open_store(path)
    assert alive.has_fits("01") == {"0", "1"}
    with ScoreStore(path) as store:
        gone = store.cases_where(lambda some: "Alice" in some.ids)
        store.forget(store.fits_on(gone), gone)
        assert store.has_fits("01") == {"1"}
    with ScoreStore(path) as store:
        assert [score.identity for score in store.scores()] == ["1"]
        assert store.cases_where(lambda some: True) == {store.fit("1").cases}
        assert store.recall("mean") is None
    alive.add_fit(a_fit("2"))
    assert open_store(path).has_fits("012") == {"1", "2"}


@pytest.mark.parametrize(
    ("first", "message"),
    [(b"notes\n", "not a file of scores"), (b'{"format": "mt-scores-writer", "version": 99}\n', "Install a newer mt")],
)
def test_other_files_and_newer_formats_are_refused(first: bytes, message: str, path: Path) -> None:
    folder_of(path).mkdir()
    (folder_of(path) / "a.jsonl").write_bytes(first)
    with pytest.raises(CacheError, match=message):
        open_store(path).scores()


@pytest.mark.parametrize(
    ("columns", "table"),
    [(['identity") SELECT 1 --'], "fits"), (["identity"], "fits (identity) SELECT 1 --"), (["identity"], "pragma_x")],
)
def test_names_in_a_file_never_become_statements(columns: list[str], table: str, path: Path) -> None:
    WriterFile(folder_of(path), columns).append([Row(table, ["x"])])
    with pytest.raises(CacheError, match=r"is not a file of scores of mt\. Move it out of"):
        kept(path)


@pytest.mark.parametrize(
    ("kind", "shared"),
    [("ext4", False), ("nfs4", True), ("lustre", True), ("fuse.gvfsd-fuse", False), ("fuse.glusterfs", True)],
)
def test_the_file_system_says_whether_it_is_shared(
    kind: str, shared: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "a folder"
    place.mkdir()
    mounts = tmp_path / "mounts"
    escaped = str(place).replace(" ", "\\040")
    mounts.write_text(f"root / btrfs rw 0 0\nhost:/x {escaped} {kind} rw 0 0\nhost:/y {escaped}er nfs rw 0 0\n")
    monkeypatch.setattr(files, "MOUNTS", mounts)
    assert files.is_shared(place / "not" / "yet") is shared
    assert not files.is_shared(tmp_path)
    monkeypatch.setattr(files, "MOUNTS", tmp_path / "none")
    assert not files.is_shared(place)
