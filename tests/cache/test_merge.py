"""`mt cache merge` makes of shards the file of one run, even if it is killed, and refuses shards that do not fit."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mt.cache import Catalog, Existing, is_complete, open_features
from mt.cache.cleaning import prunable
from mt.cache.feature_file.shards import Shard
from mt.cache.merging import merge, shard_sets
from mt.cli import group
from mt.errors import CacheError, DamagedError, IncompleteError, InputError
from mt.system import files
from mt.types import LabelledRows
from tests.cache import samples
from tests.cache.operations import Killer

N_BLOCKS = 3


def write_shard(
    whole: Path,
    number: int,
    of: int,
    *,
    rows: LabelledRows[None] | None = None,
    blocks: Sequence[int] | None = None,
    overwrite: bool = False,
    **changes: Any,
) -> Path | None:
    """Write a shard of the sample file, or some of its blocks, and return its path; None where it has no rows."""
    shard = Shard(number, of)
    writer = shard.open(
        shard.path(whole),
        rows or samples.rows(),
        samples.manifest(**changes),
        dim=samples.DIM,
        dtype="float32",
        block_rows=samples.BLOCK,
        existing=Existing(overwrite),
    )
    if writer is None:
        return None
    values, states = samples.embeddings(), samples.statuses()
    for block in writer.missing if blocks is None else blocks:
        part = slice(block * samples.BLOCK, (block + 1) * samples.BLOCK)
        writer.write_block(block, values[part], states[part])
    if blocks is None:
        writer.finish()
    writer.close()
    return writer.path


def merged(whole: Path, **options: Any) -> Path:
    (found,) = shard_sets(Catalog(whole.parents[2]).paths())
    return merge(found, **options)


def mt(whole: Path, *words: str) -> Result:
    return CliRunner().invoke(group, ["cache", "merge", "--cache-dir", str(whole.parents[2]), *words])


@pytest.mark.parametrize("of", [1, 2, 3, 5])
def test_shards_become_the_file_of_one_run(path: Path, reference: bytes, of: int) -> None:
    written = [write_shard(path, number, of) for number in range(1, of + 1)]
    assert sum(one is not None for one in written) == min(of, N_BLOCKS)
    assert not is_complete(path)
    assert merged(path) == path
    assert path.read_bytes() == reference
    assert sorted(one.name for one in path.parent.iterdir()) == [path.name, f"{path.name}.lock"]


def test_a_shard_is_no_feature_file_for_readers(path: Path) -> None:
    write_shard(path, 1, 2)
    write_shard(path, 2, 2, blocks=[1])
    entries = Catalog(path.parents[2]).entries()
    assert [(entry.flags, entry.complete, entry.n_rows) for entry in entries] == [
        (("shard 1/2",), False, 4),
        (("shard 2/2", "incomplete"), False, 7),
    ]
    with pytest.raises(IncompleteError, match=r"4 of 7 rows. Finish it with: .* --dataset folder:moles --shard 2/2"):
        open_features(Shard(2, 2).path(path))
    assert not prunable(Catalog(path.parents[2]))


@pytest.mark.parametrize("changed", ["names", "numbers"])
def test_columns_of_one_kind_in_some_rows_only(path: Path, changed: str) -> None:
    values: dict[str, list[Any]] = {"names": [None] * 4 + ["PA"] * 7, "numbers": [1] * 8 + [None] * 3}
    rows = replace(samples.rows(), columns={"site": values[changed]})
    whole = samples.write(path, rows=rows).read_bytes()
    path.unlink()
    for number in (1, 2, 3):
        write_shard(path, number, 3, rows=rows)
    merged(path)
    assert path.read_bytes() == whole


def test_rows_without_a_label_in_one_shard(path: Path) -> None:
    labels = samples.rows().y.copy()
    labels[9] = -1
    rows = replace(samples.rows(), y=labels)
    whole = samples.write(path, rows=rows).read_bytes()
    path.unlink()
    for number in (1, 2):
        write_shard(path, number, 2, rows=rows)
    merged(path)
    assert path.read_bytes() == whole


def test_what_is_lacking_is_said_with_its_command(path: Path, reference: bytes) -> None:
    write_shard(path, 2, 3)
    write_shard(path, 3, 3, blocks=[])
    ran = mt(path)
    assert ran.exit_code == 1
    command = f"mt featurize --model dino --dataset folder:moles --batch-size 4 --cache-dir {path.parents[2]}"
    assert f"{path.name}: shard 1/3 is not there. Make it: {command} --shard 1/3" in ran.stderr
    assert f"{path.name}: shard 3/3 has 0 of 3 rows. Finish it: {command} --shard 3/3" in ran.stderr
    assert Shard(2, 3).path(path).exists()
    for number in (1, 3):
        write_shard(path, number, 3)
    ran = mt(path)
    assert (ran.exit_code, ran.stdout) == (0, f"{path}  (3 shards)\n")
    assert path.read_bytes() == reference


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"compute": {**samples.manifest()["compute"], "batch_size": 2}}, "compute batch_size: 4 in the file, 2 here"),
        ({"compute": {**samples.manifest()["compute"], "device": "cuda"}}, "compute device: cpu in the file, cuda"),
        ({"licence": "MIT"}, "licence: CC0 in the file, MIT here"),
    ],
)
def test_shards_that_differ_are_refused(path: Path, changes: dict[str, Any], words: str) -> None:
    write_shard(path, 1, 2)
    other = write_shard(path, 2, 2, **changes)
    with pytest.raises(CacheError, match=words) as caught:
        merged(path)
    assert "\n" not in str(caught.value)
    assert other
    assert other.exists()
    if "compute" in changes:
        manifest = open_features(merged(path, allow_mixed=True)).manifest
        assert manifest["mixed_compute"] == [changes["compute"]]
        assert manifest["warnings"]


def test_shards_of_other_rows_are_refused(path: Path) -> None:
    write_shard(path, 1, 2)
    rows = replace(samples.rows(), y=1 - samples.rows().y)
    write_shard(path, 2, 2, rows=rows)
    with pytest.raises(CacheError, match="rows: "):
        merged(path)


def test_a_damaged_shard_is_named_and_nothing_is_lost(path: Path) -> None:
    write_shard(path, 1, 2)
    damaged = write_shard(path, 2, 2)
    assert damaged
    content = bytearray(damaged.read_bytes())
    place = content.find(samples.embeddings()[8].tobytes())
    content[place] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(DamagedError, match=damaged.name):
        merged(path)
    assert not path.exists()
    assert Shard(1, 2).path(path).exists()


def test_killed_at_any_moment_all_shards_or_the_whole_file_are_there(path: Path, reference: bytes) -> None:
    for number in (1, 2):
        write_shard(path, number, 2)
    shards = {Shard(number, 2).path(path): Shard(number, 2).path(path).read_bytes() for number in (1, 2)}
    k, kills = 0, {"shards": 0, "whole": 0}
    while _killed(path, k := k + 1):
        if path.exists():
            assert path.read_bytes() == reference
            kills["whole"] += 1
        else:
            assert all(one.read_bytes() == content for one, content in shards.items())
            kills["shards"] += 1
        sets = shard_sets(Catalog(path.parents[2]).paths())
        if sets:
            assert not path.exists() or len(sets) == 1
            merge(sets[0])
        assert path.read_bytes() == reference
        assert not shard_sets(Catalog(path.parents[2]).paths())
        path.unlink()
        for one, content in shards.items():
            one.write_bytes(content)
    assert min(kills.values()) >= 2


def _killed(path: Path, k: int) -> bool:
    """Merge in a process that is killed before its k-th change of the disk; return whether it was killed."""
    child = os.fork()
    if child == 0:
        setattr(files, "os", Killer(k, torn=True))  # noqa: B010
        merged(path)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or status == 0
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


@pytest.mark.parametrize("text", ["0/8", "9/8", "8", "a/b", "1/0", "-1/8"])
def test_a_part_that_is_not_one_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="--shard"):
        Shard.parse(text)


def test_every_block_is_in_one_part() -> None:
    for n_blocks in (1, 2, 7, 100):
        for of in (1, 2, 3, 8, 150):
            parts = [list(Shard(number, of).blocks(n_blocks)) for number in range(1, of + 1)]
            assert [block for part in parts for block in part] == list(range(n_blocks))
            assert max(map(len, parts)) - min(map(len, parts)) <= 1
