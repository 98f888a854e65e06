"""A file appears under its name complete and on the disk, or not at all; no temporary file remains."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from typing import Any

import pytest

import mt
from mt.system import files
from tests.cache.operations import Recorder


@pytest.fixture(params=["new", "old"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A file's name, free or taken; its folder holds nothing else."""
    path = tmp_path / f"{'näme' * 20}.json"
    if request.param == "old":
        path.write_bytes(b"old")
    return path


def content(path: Path) -> list[tuple[str, bytes]]:
    return [(one.name, one.read_bytes()) for one in path.parent.iterdir()]


def test_it_is_written_synced_and_renamed_in_this_order(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder()
    monkeypatch.setattr(files, "os", recorder)
    files.write_whole(path, b"whole")
    assert [one.kind for one in recorder.trace] == ["create", "write", "sync", "rename", "sync_folder"]
    assert content(path) == [(path.name, b"whole")]


def test_it_gets_the_usual_permissions(tmp_path: Path) -> None:
    files.write_whole(tmp_path / "ours", b"")
    (tmp_path / "pythons").touch()
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "pythons").stat().st_mode


@pytest.mark.parametrize("operation", ["create", "write", "sync", "rename"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), KeyboardInterrupt()])
def test_a_failure_leaves_neither_a_temporary_nor_half_a_file(
    path: Path, operation: str, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = content(path)

    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(files, operation, fail)
    with pytest.raises(type(error)):
        files.write_whole(path, b"whole")
    assert content(path) == before


def test_a_writer_that_stops_half_way_leaves_nothing(path: Path) -> None:
    before = content(path)

    def stop_half_way() -> None:
        with files.whole(path) as aside:
            aside.write_bytes(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        stop_half_way()
    assert content(path) == before


def test_two_writers_of_one_file_do_not_share_a_temporary(tmp_path: Path) -> None:
    with files.whole(tmp_path / "a") as one, files.whole(tmp_path / "a") as other:
        assert one != other
        one.write_bytes(b"one")
        other.write_bytes(b"other")
    assert content(tmp_path / "a") == [("a", b"one")]


BY_HAND = re.compile(r"os\.(replace|rename|fsync|fdatasync)\b|aside\.re|mkstemp|NamedTemporary|\.write_(text|bytes)\(")


def test_nobody_else_writes_aside() -> None:
    """Only `lock.py` writes directly: beside a lock, for people, who holds it."""
    package = Path(mt.__file__).parent
    found = [path.relative_to(package) for path in package.rglob("*.py") if BY_HAND.search(path.read_text())]
    assert sorted(found) == [Path("cache/feature_file/lock.py"), Path("system/files.py")]


def test_the_first_of_several_writers_stays_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    for content in (b"first", b"second"):
        files.write_first(tmp_path / "secret", content)
    assert (tmp_path / "secret").read_bytes() == b"first"
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]
