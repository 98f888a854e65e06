"""Hashes of content, computed once."""

from __future__ import annotations

import builtins
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mt.cache import ContentIndex
from mt.errors import InputError


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "images" / f"{number}.png" for number in range(300)]
    paths[0].parent.mkdir()
    for number, path in enumerate(paths):
        path.write_bytes(b"image %d" % number)
    return paths


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The files that are opened from here on."""
    names: list[str] = []
    real = builtins.open

    def noting(file: Any, *arguments: Any, **options: Any) -> Any:
        names.append(str(file))
        return real(file, *arguments, **options)

    monkeypatch.setattr(builtins, "open", noting)
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


def test_rehash_trusts_nothing(tmp_path: Path, images: list[Path]) -> None:
    path = images[0]
    ContentIndex(tmp_path / "index.sqlite").sha256(path)
    stat = path.stat()
    path.write_bytes(b"IMAGE 0")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    changed = hashlib.sha256(b"IMAGE 0").hexdigest()
    assert ContentIndex(tmp_path / "index.sqlite").sha256(path) != changed
    assert ContentIndex(tmp_path / "index.sqlite", rehash=True).sha256(path) == changed
    assert ContentIndex(tmp_path / "index.sqlite").sha256(path) == changed


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
    (tmp_path / "index.sqlite").write_bytes(b"this is no database, whatever its name says" * 100)
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
