"""Content hashes are computed once per file."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from mt.cache import ContentIndex, content
from mt.errors import InputError


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "images" / f"{number}.png" for number in range(300)]
    paths[0].parent.mkdir()
    for number, path in enumerate(paths):
        path.write_bytes(b"image %d" % number)
    return paths


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that grows with each file that is opened."""
    names: list[str] = []
    real = os.open

    def noting(file: Any, *arguments: Any, **options: Any) -> Any:
        names.append(str(file))
        return real(file, *arguments, **options)

    monkeypatch.setattr(os, "open", noting)
    return names


def test_a_second_look_opens_no_file(tmp_path: Path, images: list[Path], opened: list[str]) -> None:
    expected = [hashlib.sha256(b"image %d" % number).hexdigest() for number in range(len(images))]
    assert ContentIndex(tmp_path / "index.sqlite").sha256_many(images) == expected
    assert len(opened) == len(images)
    opened.clear()
    again = ContentIndex(tmp_path / "index.sqlite")
    assert again.sha256_many(images) == expected
    assert again.sha256(images[7]) == expected[7]
    assert opened == []


def test_another_time_or_size_is_hashed_again(tmp_path: Path, images: list[Path]) -> None:
    index = ContentIndex(tmp_path / "index.sqlite")
    before = index.sha256(images[0])
    stat = images[0].stat()
    images[0].write_bytes(b"image 0 and more")
    os.utime(images[0], ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert index.sha256(images[0]) != before  # another size
    images[1].write_bytes(b"IMAGE 1")
    os.utime(images[1], ns=(stat.st_atime_ns, stat.st_mtime_ns + 10**10))
    assert index.sha256(images[1]) == hashlib.sha256(b"IMAGE 1").hexdigest()


def test_other_bytes_of_the_same_size_and_time_are_hashed_again(tmp_path: Path, images: list[Path]) -> None:
    path = images[0]
    ContentIndex(tmp_path / "index.sqlite").sha256(path)
    stat = path.stat()
    path.write_bytes(b"IMAGE 0")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert ContentIndex(tmp_path / "index.sqlite").sha256(path) == hashlib.sha256(b"IMAGE 0").hexdigest()


def test_rehash_trusts_nothing(tmp_path: Path, images: list[Path], opened: list[str]) -> None:
    index = ContentIndex(tmp_path / "index.sqlite")
    before = index.sha256_many(images)
    opened.clear()
    assert ContentIndex(tmp_path / "index.sqlite", rehash=True).sha256_many(images) == before
    assert len(opened) == len(images)


def test_a_folder_that_is_moved_or_renamed_is_known(tmp_path: Path, images: list[Path], opened: list[str]) -> None:
    before = ContentIndex(tmp_path / "index.sqlite").sha256_many(images)
    (tmp_path / "away").mkdir()
    moved = images[0].parent.rename(tmp_path / "away" / "renamed")
    opened.clear()
    again = ContentIndex(tmp_path / "index.sqlite")
    assert again.sha256_many([moved / path.name for path in images]) == before
    assert opened == []


def test_a_copy_with_the_times_of_its_original_is_hashed(tmp_path: Path, images: list[Path], opened: list[str]) -> None:
    index = ContentIndex(tmp_path / "index.sqlite")
    before = index.sha256_many(images[:5])
    shutil.copytree(images[0].parent, tmp_path / "copy")
    opened.clear()
    assert index.sha256_many([tmp_path / "copy" / path.name for path in images[:5]]) == before
    assert len(opened) == 5


def test_files_that_changed_places_are_told_apart(tmp_path: Path, images: list[Path]) -> None:
    index = ContentIndex(tmp_path / "index.sqlite")
    one, other = index.sha256_many(images[:2])
    images[0].rename(tmp_path / "aside")
    images[1].rename(images[0])
    (tmp_path / "aside").rename(images[1])
    assert index.sha256_many(images[:2]) == [other, one]


def test_whole_seconds_do_not_name_a_file_at_another_path(
    tmp_path: Path, images: list[Path], opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = content._FileState.of
    monkeypatch.setattr(
        content._FileState, "of", lambda path, stat: real(path, stat)._replace(mtime_ns=10**9, ctime_ns=2 * 10**9)
    )
    ContentIndex(tmp_path / "index.sqlite").sha256_many(images)
    moved = images[0].parent.rename(tmp_path / "renamed")
    opened.clear()
    ContentIndex(tmp_path / "index.sqlite").sha256_many([moved / path.name for path in images])
    assert len(opened) == len(images)


def test_a_file_that_changes_while_it_is_read_is_not_remembered(
    tmp_path: Path, images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.read

    def growing(descriptor: int, size: int) -> bytes:
        found = real(descriptor, size)
        images[0].write_bytes(b"another image 0")
        return found

    index = ContentIndex(tmp_path / "index.sqlite")
    with monkeypatch.context() as patch:
        patch.setattr(os, "read", growing)
        index.sha256(images[0])
    assert index.sha256(images[0]) == hashlib.sha256(b"another image 0").hexdigest()


def test_what_an_older_release_remembers_is_trusted_once(tmp_path: Path, images: list[Path], opened: list[str]) -> None:
    ContentIndex(tmp_path / "index.sqlite")
    stat = images[0].stat()
    with closing(sqlite3.connect(tmp_path / "index.sqlite")) as database, database:
        row = str(images[0]), stat.st_size, stat.st_mtime_ns, "0" * 64
        database.execute("INSERT INTO content VALUES (?, ?, ?, ?)", row)
    assert ContentIndex(tmp_path / "index.sqlite").sha256(images[0]) == "0" * 64
    assert opened == []
    images[0].write_bytes(b"IMAGE 0")
    os.utime(images[0], ns=(stat.st_atime_ns, stat.st_mtime_ns))
    index = ContentIndex(tmp_path / "index.sqlite")
    assert index.sha256(images[0]) == hashlib.sha256(b"IMAGE 0").hexdigest()


@pytest.mark.parametrize("size", [0, 1, content._WHOLE - 1, content._WHOLE, content._WHOLE + 1])
def test_files_of_any_size(tmp_path: Path, size: int) -> None:
    path = tmp_path / "image"
    path.write_bytes(b"i" * size)
    assert ContentIndex(tmp_path / "index.sqlite").sha256(path) == hashlib.sha256(b"i" * size).hexdigest()


def test_the_same_file_twice_is_hashed_once(tmp_path: Path, images: list[Path], opened: list[str]) -> None:
    one, other = ContentIndex(tmp_path / "index.sqlite").sha256_many([images[0], images[0]])
    assert one == other
    assert len(opened) == 1


def test_small_values_are_remembered_by_kind_and_key(tmp_path: Path) -> None:
    index = ContentIndex(tmp_path / "index.sqlite")
    index.remember("backbone", {"name": "dino", "size": 224}, {"dim": 1536})
    again = ContentIndex(tmp_path / "index.sqlite")
    assert again.recall("backbone", {"size": 224, "name": "dino"}) == {"dim": 1536}
    assert again.recall("backbone", {"name": "dino"}) is None
    assert again.recall("weights", {"size": 224, "name": "dino"}) is None


@pytest.mark.parametrize("place", ["a file is in the way", "a folder is in the way"])
def test_an_index_that_cannot_be_written_lasts_as_long_as_the_object(
    tmp_path: Path, images: list[Path], place: str
) -> None:
    where = tmp_path / "index.sqlite"
    if place == "a file is in the way":
        where.write_bytes(b"")
        where = where / "index.sqlite"
    else:
        where.mkdir()
    index = ContentIndex(where)
    assert index.sha256(images[0]) == index.sha256(images[0])
    index.remember("backbone", "x", 1)
    assert index.recall("backbone", "x") == 1


def test_a_broken_index_is_made_anew(tmp_path: Path, images: list[Path]) -> None:
    (tmp_path / "index.sqlite").write_bytes(b"this is not a database, whatever its name says" * 100)
    ContentIndex(tmp_path / "index.sqlite").remember("backbone", "x", 1)
    assert ContentIndex(tmp_path / "index.sqlite").recall("backbone", "x") == 1


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Cannot read .*nothing\.png"):
        ContentIndex(tmp_path / "index.sqlite").sha256(tmp_path / "nothing.png")


def test_paths_may_be_strings_and_names_other_bytes_than_utf8(tmp_path: Path, opened: list[str]) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png")
    try:
        Path(path).write_bytes(b"an image")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    index = ContentIndex(tmp_path / "index.sqlite")
    assert index.sha256(path) == hashlib.sha256(b"an image").hexdigest()
    opened.clear()
    assert ContentIndex(tmp_path / "index.sqlite").sha256(Path(path)) == index.sha256(path)
    assert opened == []
    with pytest.raises(InputError, match=r"Cannot read .*na\\xefve\.png"):
        index.sha256(os.fsdecode(os.fsencode(tmp_path) + b"/na\xefve.png"))


@pytest.mark.parametrize("slow", [0.0, 1e9], ids=["from a disk, in threads", "from memory, in turn"])
def test_many_files_keep_their_order_however_they_are_read(
    tmp_path: Path, images: list[Path], slow: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content, "_SLOW", slow)
    monkeypatch.setattr(content, "_TASK_FILES", 7)
    monkeypatch.setattr(content, "_FRESH", 5)
    monkeypatch.setattr(content, "_KEPT_FILES", 50)
    expected = [hashlib.sha256(b"image %d" % number).hexdigest() for number in range(len(images))]
    assert ContentIndex(tmp_path / "index.sqlite").sha256_many(images) == expected
    images[150].unlink()
    with pytest.raises(InputError, match=r"Cannot read .*150\.png"):
        ContentIndex(tmp_path / "other.sqlite", rehash=True).sha256_many(images)


def test_what_was_hashed_before_a_file_could_not_be_read_is_kept(
    tmp_path: Path, images: list[Path], opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def failing(file: object, *arguments: object) -> object:
        if str(file) == str(images[200]):
            raise PermissionError(13, "Permission denied")
        return real(file, *arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", failing)
        with pytest.raises(InputError, match=r"Cannot read .*200\.png: Permission denied"):
            ContentIndex(tmp_path / "index.sqlite").sha256_many(images)
    opened.clear()
    ContentIndex(tmp_path / "index.sqlite").sha256_many(images[:128])
    assert opened == []
