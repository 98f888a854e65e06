"""`mt cache merge` after it was killed, with files that are made again, and with shards that do not fit."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mt import open_features
from mt.cli import group
from mt.errors import CacheError
from mt.featurize.request import Compute
from tests.featurize.extracting import CPU, featurize
from tests.featurize.test_shards import contents

pytestmark = pytest.mark.usefixtures("small_blocks")

AGAIN = replace(CPU, overwrite=True)


def make(photos: Path, cache: Path, *numbers: int, of: int = 2, compute: Compute = CPU) -> None:
    from mt.cache.feature_file.shards import Shard

    for number in numbers:
        featurize(photos, cache, splits=["train"], shard=Shard(number, of), compute=compute)


def merge(cache: Path) -> Result:
    return CliRunner().invoke(group, ["cache", "merge", "--cache-dir", str(cache)])


def shards(cache: Path) -> list[Path]:
    return sorted(cache.rglob("*.shard"))


def test_shards_that_are_made_again_leave_the_complete_file_until_they_are_merged(photos: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    featurize(photos, cache, splits=["train"])
    before = contents(cache)
    make(photos, cache, 1, compute=AGAIN)
    assert contents(cache) == before
    ran = merge(cache)
    assert (ran.exit_code, len(shards(cache))) == (1, 1)
    assert "--overwrite" in ran.stderr
    make(photos, cache, 2, compute=AGAIN)
    (whole,) = cache.rglob("*.h5")
    inode = whole.stat().st_ino
    assert merge(cache).exit_code == 0
    assert contents(cache) == before
    assert (whole.stat().st_ino != inode, shards(cache)) == (True, [])


def test_a_merge_that_was_killed_while_it_removed_shards_is_finished(photos: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    make(photos, cache, 1, 2)
    kept = shards(cache)[1]
    content, stat = kept.read_bytes(), kept.stat()
    assert merge(cache).exit_code == 0
    kept.write_bytes(content)
    os.utime(kept, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (merge(cache).exit_code, shards(cache)) == (0, [])


def test_parts_of_two_cuts(photos: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    make(photos, cache, 1, 2)
    make(photos, cache, 1, of=3)
    assert merge(cache).exit_code == 0
    assert (len(contents(cache)), shards(cache)) == (1, [])


def test_a_damaged_shard_is_named(photos: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    make(photos, cache, 1, 2)
    damaged = shards(cache)[1]
    content = bytearray(damaged.read_bytes())
    content[20] ^= 1
    damaged.write_bytes(content)
    ran = merge(cache)
    assert ran.exit_code == 1
    assert f"{damaged} is damaged" in ran.stderr


def test_the_command_of_a_lacking_shard_makes_one_that_fits(photos: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    make(photos, cache, 1)
    said = merge(cache).stderr
    assert f"--batch-size 4 --cache-dir {cache} --shard 2/2" in said


def test_a_complete_shard_is_no_feature_file(photos: Path, tmp_path: Path) -> None:
    make(photos, tmp_path / "cache", 1)
    with pytest.raises(CacheError, match=r"is part 1 of 2 of a feature file\. Join the parts: mt cache merge"):
        open_features(shards(tmp_path / "cache")[0])


def test_shards_that_copy_from_other_files_fit_once_one_is_removed_and_made_again(photos: Path, tmp_path: Path) -> None:
    cache, apart, other = tmp_path / "cache", tmp_path / "apart", tmp_path / "other"
    make(photos, cache, 1)
    shutil.copytree(photos, other)
    (other / "train" / "benign" / "000.png").unlink()
    featurize(other, apart, splits=["train"])
    make(photos, apart, 2)  # in a cache without the first shard, so it copies what that cache holds
    for shard in shards(apart):
        shutil.copy(shard, cache / shard.relative_to(apart))
    refused = merge(cache).exception
    assert "copied" in str(refused)
    assert "mt cache remove" in str(refused)
    removed = shards(cache)[1]
    assert CliRunner().invoke(group, ["cache", "remove", str(removed), "--yes"]).exit_code == 0
    make(photos, cache, 2)
    assert merge(cache).exit_code == 0
