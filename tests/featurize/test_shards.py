"""`mt featurize --shard I/N`: parts computed apart, by any processes, are the file of one run."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from mt import open_features
from mt.cache import Catalog
from mt.cache.feature_file.read import peek
from mt.cache.feature_file.shards import Shard
from mt.cache.merging import merge, shard_sets
from mt.cli import group
from mt.errors import CacheError
from mt.featurize.embed import versions
from mt.types import MISSING
from tests.featurize.conftest import OTHER, TINY
from tests.featurize.extracting import CPU, counted, featurize

pytestmark = pytest.mark.usefixtures("small_blocks")


def contents(cache: Path) -> dict[str, bytes]:
    """Return the bytes of every complete feature file, by its place in the cache."""
    return {str(path.relative_to(cache)): path.read_bytes() for path in cache.rglob("*.h5")}


def merged(cache: Path) -> dict[str, bytes]:
    for found in shard_sets(Catalog(cache).paths()):
        assert not found.lacking()
        merge(found)
    return contents(cache)


@pytest.mark.parametrize("of", [2, 3, 20])
def test_shards_of_all_models_and_splits_are_merged_to_the_same_bytes(photos: Path, tmp_path: Path, of: int) -> None:
    plain, parts = tmp_path / "plain", tmp_path / "parts"
    featurize(photos, plain, [TINY, OTHER])
    for number in range(1, of + 1):
        results = featurize(photos, parts, [TINY, OTHER], shard=Shard(number, of))
        assert all(result.computed == result.rows for result in results)
    assert merged(parts) == contents(plain)
    again = featurize(photos, parts, [TINY, OTHER], shard=Shard(1, of))
    assert all(result.cached for result in again), "the whole file answers for its shard"


@pytest.mark.parametrize(
    "asked",
    [
        {"limit": 20},
        {"compute": replace(CPU, dtype="float16")},
        {"views": "flips"},
        {"limit": 13, "compute": replace(CPU, dtype="float16"), "views": "flips"},
    ],
    ids=["limit", "float16", "views", "all three"],
)
def test_every_choice_of_a_run_holds_for_its_shards(photos: Path, tmp_path: Path, asked: dict[str, Any]) -> None:
    plain, parts = tmp_path / "plain", tmp_path / "parts"
    featurize(photos, plain, **asked)
    for number in (3, 1, 2):
        featurize(photos, parts, shard=Shard(number, 3), **asked)
    assert merge_by_command(parts) == contents(plain)
    rows = [open_features(path, verify=True).n_rows for path in sorted(parts.rglob("*.h5"))]
    assert rows == [min(split, asked.get("limit", split)) for split in (14, 50)]


def test_rows_without_a_label_keep_their_place(photos: Path, tmp_path: Path) -> None:
    lines = [
        f"{path.relative_to(photos)},{path.parts[-3]},{'' if number % 7 == 3 else path.parts[-2]}"
        for number, path in enumerate(sorted(photos.rglob("*.png")))
    ]
    table = photos / "all.csv"
    table.write_text("\n".join(["image,split,label", *lines]))
    plain, parts = tmp_path / "plain", tmp_path / "parts"
    featurize(f"table:{table}", plain)
    for number in (2, 1):
        featurize(f"table:{table}", parts, shard=Shard(number, 2))
    assert merge_by_command(parts) == contents(plain)
    labels = [open_features(path, verify=True).labels for path in parts.rglob("*.h5")]
    assert sum(int((one == MISSING).sum()) for one in labels) == 9


def merge_by_command(cache: Path) -> dict[str, bytes]:
    ran = CliRunner().invoke(group, ["cache", "merge", "--cache-dir", str(cache)], catch_exceptions=False)
    assert ran.exit_code == 0, ran.output
    return contents(cache)


def test_a_shard_reads_its_own_images_only_and_holds_its_own_space(photos: Path, tmp_path: Path) -> None:
    dataset, source = counted(photos)
    (result, _) = featurize(dataset, tmp_path / "cache", shard=Shard(2, 3))
    assert sorted(set(source.read)) == list(range(16, 32))
    assert (result.rows, result.computed) == (16, 16)


def test_an_interrupted_shard_resumes(photos: Path, tmp_path: Path) -> None:
    plain, parts = tmp_path / "plain", tmp_path / "parts"
    featurize(photos, plain)
    dataset, _ = counted(photos, interrupt_at=40)
    with pytest.raises(KeyboardInterrupt):
        featurize(dataset, parts, shard=Shard(2, 2))
    found = next(one for one in shard_sets(Catalog(parts).paths()) if one.whole.parent.name == "train")
    first, second = found.lacking()
    assert first.startswith("shard 1/2 is not there. Make it: mt featurize ")
    assert re.match(r"shard 2/2 has \d+ of 26 rows\. Finish it: mt featurize ", second)
    for number in (2, 1):
        featurize(photos, parts, shard=Shard(number, 2))
    assert merged(parts) == contents(plain)


def test_a_whole_run_says_that_it_does_not_use_shards(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    featurize(photos, tmp_path / "cache", splits=["test"], shard=Shard(1, 2))
    (whole,) = featurize(photos, tmp_path / "cache", splits=["test"])
    said = capsys.readouterr().err
    assert f"Shards of {whole.path.name} exist (1) and are not used. To join them: mt cache merge" in said
    assert whole.computed == 14


def test_skipped_rows_and_copied_rows(photos: Path, tmp_path: Path) -> None:
    skipping = replace(CPU, on_error="skip")
    (photos / "train" / "benign" / "020.png").write_bytes(b"\x89PNG broken")
    begun = tmp_path / "begun"
    featurize(photos, begun, compute=skipping)
    rng = np.random.default_rng(5)
    for number in range(50, 60):
        pixels = rng.integers(0, 255, (40, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(photos / "train" / "benign" / f"{number:03}.png")
    plain, parts = tmp_path / "plain", tmp_path / "parts"
    for cache in (plain, parts):
        shutil.copytree(begun, cache)
    before = contents(begun)
    featurize(photos, plain, compute=skipping)
    results = [
        one for number in (1, 2, 3) for one in featurize(photos, parts, compute=skipping, shard=Shard(number, 3))
    ]
    assert merged(parts) == contents(plain) != before
    trained = [one for one in results if one.split == "train"]
    assert sum(one.rows for one in trained) == 60
    assert sum(one.copied for one in trained) == 49
    (new,) = [
        path
        for path in parts.rglob("*.h5")
        if path.parent.name == "train" and str(path.relative_to(parts)) not in before
    ]
    assert open_features(new, verify=True).n_skipped == 1


def test_a_shard_takes_batch_and_threads_from_those_that_exist(photos: Path, tmp_path: Path) -> None:
    parts, plain = tmp_path / "parts", tmp_path / "plain"
    featurize(photos, parts, compute=replace(CPU, batch_size=8), shard=Shard(2, 3))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)  # as on a machine with one core more
        for number in (1, 3):
            featurize(photos, parts, compute=replace(CPU, batch_size=None), shard=Shard(number, 3))
    finally:
        torch.set_num_threads(threads)
    featurize(photos, plain, compute=replace(CPU, batch_size=8))
    assert merged(parts) == contents(plain)


@pytest.mark.parametrize("begun", [False, True], ids=["new", "begun"])
def test_a_shard_that_could_not_be_merged_is_refused_before_work(
    begun: bool, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    featurize(photos, cache, shard=Shard(1, 2))
    if begun:
        apart = tmp_path / "apart"
        dataset, _ = counted(photos, interrupt_at=40)
        with pytest.raises(KeyboardInterrupt):
            featurize(dataset, apart, compute=replace(CPU, batch_size=12), shard=Shard(2, 2))
        for path in apart.rglob("*.partial"):
            shutil.copy(path, cache / path.relative_to(apart))
    dataset, source = counted(photos)
    with pytest.raises(CacheError) as refused:
        featurize(dataset, cache, compute=replace(CPU, batch_size=12), shard=Shard(2, 2))
    said = str(refused.value)
    assert re.match(
        r"\S+\.2of2\.(shard|partial) would differ from \S+\.1of2\.shard \(batch: 4 in the file, 12 here\)", said
    )
    assert "mt cache merge would refuse them" in said
    assert not source.read, "before work"
    monkeypatch.setattr("mt.featurize.embed.versions", lambda: {**versions(), "torch": "1.0"})
    if not begun:
        with pytest.raises(CacheError, match=r"torch: \S+ in the file, 1\.0 here"):
            featurize(photos, cache, shard=Shard(2, 2))
        featurize(photos, cache, compute=replace(CPU, allow_mixed=True), shard=Shard(2, 2))


def test_all_shards_may_be_made_again_on_another_device(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = tmp_path / "parts"
    for number in (1, 2):
        featurize(photos, parts, shard=Shard(number, 2))
    monkeypatch.setattr("mt.featurize.embed.versions", lambda: {**versions(), "torch": "1.0"})
    for number in (1, 2):
        featurize(photos, parts, compute=replace(CPU, overwrite=True), shard=Shard(number, 2))
    assert len(merged(parts)) == 2


def test_a_shard_copies_only_what_the_first_one_copied(photos: Path, tmp_path: Path) -> None:
    plain, parts = tmp_path / "plain", tmp_path / "parts"
    featurize(photos, plain)
    featurize(photos, parts, shard=Shard(1, 2))
    for path in plain.rglob("*.h5"):  # another run has made all embeddings meanwhile
        shutil.copy(path, (parts / path.relative_to(plain)).with_name(f"{path.stem}-other.h5"))
    results = featurize(photos, parts, shard=Shard(2, 2))
    assert all(result.copied == 0 < result.computed for result in results)
    assert contents(plain).items() <= merged(parts).items()


@pytest.mark.slow
def test_real_processes_with_other_threads_that_begin_together(photos: Path, tmp_path: Path) -> None:
    plain, parts = tmp_path / "plain", tmp_path / "parts"
    words = [sys.executable, "-m", "mt", "featurize", "--model", TINY, "--dataset", f"folder:{photos}"]
    words += ["--weights", "random", "--image-size", "32", "--device", "cpu"]
    jobs = [
        subprocess.Popen(
            [*words, "--cache-dir", str(parts), "--shard", f"{number}/3"],
            stdout=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": str(number)},
        )
        for number in (1, 2, 3)
    ]
    assert [job.wait() for job in jobs] == [0, 0, 0]
    threads = {peek(path).manifest["compute"]["threads"] for path in parts.rglob("*.shard")}
    assert len(threads) == 1
    subprocess.run(
        [*words, "--cache-dir", str(plain)],
        check=True,
        capture_output=True,
        env={**os.environ, "OMP_NUM_THREADS": str(threads.pop())},
    )
    assert merged(parts) == contents(plain)


@pytest.mark.slow
def test_real_processes_side_by_side_and_one_killed(photos: Path, tmp_path: Path) -> None:
    plain, parts = tmp_path / "plain", tmp_path / "parts"
    words = [sys.executable, "-m", "mt", "featurize", "--model", TINY, "--dataset", f"folder:{photos}"]
    words += ["--weights", "random", "--image-size", "32", "--device", "cpu", "--batch-size", "4"]
    subprocess.run([*words, "--cache-dir", str(plain)], check=True, capture_output=True)
    jobs = [
        subprocess.Popen([*words, "--cache-dir", str(parts), "--shard", f"{number}/2"], stdout=subprocess.DEVNULL)
        for number in (1, 2)
    ]
    deadline = time.monotonic() + 60
    while not list(parts.rglob("*2of2*")) and jobs[1].poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    jobs[1].send_signal(signal.SIGKILL)
    assert jobs[0].wait() == 0
    jobs[1].wait()
    subprocess.run([*words, "--cache-dir", str(parts), "--shard", "2/2"], check=True, capture_output=True)
    assert merged(parts) == contents(plain)


@pytest.mark.parametrize("as_json", [False, True])
def test_a_dry_run_hashes_and_computes_nothing(photos: Path, tmp_path: Path, home: Path, as_json: bool) -> None:
    words = ["featurize", "--model", TINY, "--dataset", f"folder:{photos}", "--weights", "random", "--image-size", "32"]
    words += ["--split", "test", "--cache-dir", str(tmp_path / "cache"), *(["--json"] if as_json else [])]
    for shard, state in (("1/2", "to compute"), (None, "to compute"), (None, "in the cache")):
        asked = [*words, *(["--shard", shard] if shard else [])]
        ran = CliRunner().invoke(group, [*asked, "--dry-run"], catch_exceptions=False)
        assert ran.exit_code == 0
        if as_json:
            fact = json.loads(ran.stdout)
            assert (fact["rows"], fact["cached"]) == (14, state == "in the cache")
        else:
            assert f"14 rows x 96 (5.4 kB){', shard 1/2 of them' if shard else ''}, {state}" in ran.stdout
        if state == "to compute" and not shard:
            assert not list(tmp_path.rglob("*.h5"))
            CliRunner().invoke(group, words, catch_exceptions=False)
    with closing(sqlite3.connect(next(home.rglob("index.sqlite")))) as index:
        assert index.execute("select count(*) from files").fetchone()[0] >= 14
