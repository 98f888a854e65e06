"""A second run recognises complete files and resumes unfinished ones, whatever interrupted the first run."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from click.testing import CliRunner

from mt import FeaturizeRequest, extract, open_features
from mt.cli import group
from mt.errors import CacheError, LockedError
from mt.featurize.embed import Embedder
from tests.featurize.conftest import TINY
from tests.featurize.extracting import CPU, counted, featurize
from tests.noting import noted

pytestmark = pytest.mark.usefixtures("small_blocks")


def test_a_complete_cache_reads_no_image(photos: Path, tmp_path: Path) -> None:
    first = featurize(photos, tmp_path / "cache")
    dataset, source = counted(photos)
    again = featurize(dataset, tmp_path / "cache")
    assert source.read == []
    assert all(result.cached for result in again)
    assert [r.path for r in again] == [r.path for r in first]


def test_a_complete_cache_imports_no_torch(photos: Path, tmp_path: Path) -> None:
    featurize(photos, tmp_path / "cache")
    code = f"""
import sys
def refuse(event, arguments):
    if event == 'open' and str(arguments[0]).endswith('.png'):
        raise AssertionError(f'{{arguments[0]}} was opened')
sys.addaudithook(refuse)
from mt.cli import main
try:
    main(['featurize', '--model', '{TINY}', '--dataset', 'folder:{photos}', '--weights', 'random',
          '--image-size', '32', '--cache-dir', '{tmp_path / "cache"}'])
except SystemExit as end:
    assert end.code == 0, end.code
assert not {{'torch', 'timm', 'sklearn'}} & set(sys.modules), sorted(sys.modules)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("in the cache") == 2


@pytest.mark.parametrize("at", [0, 9, 33, 49])
def test_an_interrupted_run_resumes_to_the_same_bytes(at: int, photos: Path, tmp_path: Path) -> None:
    whole = featurize(photos, tmp_path / "whole", splits=["train"])[0]
    dataset, _ = counted(photos, interrupt_at=at)
    with pytest.raises(KeyboardInterrupt, match="Run the same command again"):
        featurize(dataset, tmp_path / "cut", splits=["train"])
    assert not list((tmp_path / "cut").rglob("*.h5"))
    dataset, source = counted(photos)
    resumed = featurize(dataset, tmp_path / "cut", splits=["train"])[0]
    assert resumed.path.read_bytes() == whole.path.read_bytes()
    # Whole blocks of eight before the interruption were kept, but for those still being gathered.
    assert len(source.read) < 50 if at >= 33 else len(source.read) <= 50


@pytest.mark.parametrize(("begun", "resumed_with"), [(4, 16), (16, 4)])
def test_a_resume_uses_the_recorded_batch_size(
    begun: int, resumed_with: int, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute = replace(CPU, batch_size=begun)
    whole = featurize(photos, tmp_path / "whole", splits=["train"], compute=compute)[0]
    dataset, _ = counted(photos, interrupt_at=40)
    with pytest.raises(KeyboardInterrupt):
        featurize(dataset, tmp_path / "cut", splits=["train"], compute=compute)
    seen: set[int] = set()
    watched = noted(Embedder._computed, lambda self, pixels: seen.add(len(pixels)))
    monkeypatch.setattr(Embedder, "_computed", watched)
    other = replace(CPU, batch_size=resumed_with)
    resumed = featurize(photos, tmp_path / "cut", splits=["train"], compute=other)[0]
    assert resumed.path.read_bytes() == whole.path.read_bytes()
    assert seen == {begun}


@pytest.mark.parametrize("weights", ["random", "file"])
def test_an_unfinished_file_names_the_command_that_finishes_it(weights: str, photos: Path, tmp_path: Path) -> None:
    """Whatever was asked for: options of the dataset, weights, stored numbers, limit and cache folder."""
    cache = tmp_path / "my cache"
    if weights == "file":
        weights = str(tmp_path / "my weights.pth")
        torch.save(timm.create_model(TINY.removeprefix("timm:")).state_dict(), weights)
    dataset, _ = counted(photos / "train", interrupt_at=28, seed=3, group_regex=r"(\d\d)\d\.png")
    half = replace(CPU, dtype="float16")
    with pytest.raises(KeyboardInterrupt):
        extract(
            FeaturizeRequest(
                [dataset],
                [TINY],
                splits=["train"],
                limit=30,
                cache_dir=cache,
                weights=[weights],
                image_size=32,
                compute=half,
            )
        )
    (partial,) = cache.rglob("*.partial")
    with pytest.raises(CacheError) as found:
        open_features(partial.with_suffix(".h5"))
    command = str(found.value).partition("Finish it with: ")[2]
    ran = CliRunner().invoke(group, shlex.split(command)[1:], catch_exceptions=False)
    assert ran.exit_code == 0
    features = open_features(partial.with_suffix(".h5"))
    assert features.n_rows == 30
    assert features.embeddings.dtype == "float16"


HOLD = """
import sys
from pathlib import Path
from mt.cache.feature_file.lock import acquire
lock = acquire(Path(sys.argv[1]), 0.0)
print(flush=True)
sys.stdin.read()
"""


def test_a_second_run_fails_at_once_or_waits_as_asked(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = featurize(photos, tmp_path / "cache", splits=["test"])[0].path
    done.unlink()
    command = [
        "featurize",
        "--model",
        TINY,
        "--weights",
        "random",
        "--image-size",
        "32",
        "--dataset",
        f"folder:{photos}",
        "--split",
        "test",
        "--device",
        "cpu",
        "--cache-dir",
        str(tmp_path / "cache"),
    ]
    argv = [sys.executable, "-c", HOLD, str(done)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        refused = CliRunner().invoke(group, command)
        assert isinstance(refused.exception, LockedError)
        assert f"is being written by process {other.pid} on " in str(refused.exception)

        def let_go(seconds: float) -> None:  # the run was refused, and waits before it asks again
            assert other.stdin is not None
            other.stdin.close()
            other.wait()

        monkeypatch.setattr(time, "sleep", let_go)
        waited = CliRunner().invoke(group, [*command, "--wait", "60"], catch_exceptions=False)
    assert waited.exit_code == 0
    assert open_features(done).n_rows == 14


def test_resuming_with_other_versions_is_refused(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, _ = counted(photos, interrupt_at=40)
    with pytest.raises(KeyboardInterrupt):
        featurize(dataset, tmp_path / "cache", splits=["train"])
    monkeypatch.setattr("mt.featurize.embed.metadata.version", lambda package: "0.0.1")
    with pytest.raises(CacheError, match=r"versions.*--allow-mixed"):
        featurize(photos, tmp_path / "cache", splits=["train"])
    mixed = replace(CPU, allow_mixed=True)
    assert featurize(photos, tmp_path / "cache", splits=["train"], compute=mixed)[0].rows == 50


def test_overwrite_computes_again_to_the_same_bytes(photos: Path, tmp_path: Path) -> None:
    first = featurize(photos, tmp_path / "cache", splits=["train"])[0]
    before, inode = first.path.read_bytes(), first.path.stat().st_ino
    second = featurize(photos, tmp_path / "cache", splits=["train"], compute=replace(CPU, overwrite=True))[0]
    assert second.computed == 50
    assert second.path.read_bytes() == before
    assert second.path.stat().st_ino != inode


def test_changed_content_is_another_file(photos: Path, tmp_path: Path) -> None:
    first = featurize(photos, tmp_path / "cache", splits=["train"])[0]
    images = sorted(photos.rglob("train/*/*.png"))
    images[0].write_bytes(images[1].read_bytes())
    second = featurize(photos, tmp_path / "cache", splits=["train"])[0]
    assert second.path != first.path
    assert (second.computed, second.copied) == (0, 50)  # all embeddings were computed before


@pytest.mark.slow
def test_ctrl_c_stops_cleanly_and_the_next_run_goes_on(photos: Path, tmp_path: Path) -> None:
    command = [
        "featurize",
        "--model",
        TINY,
        "--weights",
        "random",
        "--image-size",
        "32",
        "--batch-size",
        "4",
        "--dataset",
        f"folder:{photos}",
        "--split",
        "train",
        "--cache-dir",
        str(tmp_path / "cache"),
    ]
    press = """
import os, signal, sys
import mt.featurize.run as run
from mt.featurize.embed import Embedder
run.BLOCK_ROWS, honest, calls = 8, Embedder.__call__, []
def press_ctrl_c(self, pixels):
    calls.append(1)
    if len(calls) == 7:
        os.kill(os.getpid(), signal.SIGINT)
    return honest(self, pixels)
if sys.argv[1] == "press":
    Embedder.__call__ = press_ctrl_c
from mt.cli import main
main(sys.argv[2:])
"""

    def run(how: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-c", press, how, *command]
        return subprocess.run(argv, capture_output=True, text=True, check=False)

    stopped = run("press")
    assert stopped.returncode == 130, stopped.stderr
    assert "Run the same command again" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert stopped.stdout == ""
    assert list((tmp_path / "cache").rglob("*.partial"))
    resumed = run("on")
    assert resumed.returncode == 0, resumed.stderr
    (file,) = (tmp_path / "cache").rglob("*.h5")
    whole = featurize(photos, tmp_path / "whole", splits=["train"])[0]
    assert file.read_bytes() == whole.path.read_bytes()


def test_a_read_only_cache_is_recognised(photos: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    featurize(photos, cache)
    if subprocess.run(["mount", "--bind", "-o", "ro", cache, cache], capture_output=True, check=False).returncode:
        for path in [cache, *cache.rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        if os.access(cache, os.W_OK):
            pytest.skip("neither a read-only mount nor permissions can stop this user")
    try:
        assert all(result.cached for result in featurize(photos, cache))
        with pytest.raises((CacheError, OSError)):
            featurize(photos, cache, limit=3)
    finally:
        subprocess.run(["umount", cache], capture_output=True, check=False)
