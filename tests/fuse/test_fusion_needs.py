"""A study with a fit that needs more memory than there is is refused in one line, before anything is fitted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mt.cache.feature_file.read import FeatureFile
from mt.cli import group
from mt.errors import InputError
from mt.fuse.fusion_needs import FusedSize
from mt.fuse.rivals import ROWS
from mt.probe.memory.needs import Size
from mt.probe.protocols import Fitting, get_protocol
from tests.probe.features import write_features


def features(cache: Path, n: int = 2000) -> None:
    for model, dim in (("m1", 128), ("m2", 64)):
        for split, rows in (("train", n), ("test", 60)):
            write_features(cache, model=model, split=split, n=rows, dim=dim, task="multiclass", n_classes=3)


def fuse(cache: Path, *arguments: str) -> Result:
    return CliRunner().invoke(group, ["fuse", "--cache-dir", str(cache), "--seeds", "1", *arguments])


def refusal(result: Result) -> str:
    assert isinstance(result.exception, InputError), (result.output, result.exception)
    return str(result.exception)


NAMED = {
    "average": "A probe on 2,000 rows x 128 of 'toy' (m1, 100 %)",
    "concat": "Method 'concat' on 2,000 rows x 192 of 'toy' (m1 + m2, 100 %)",
    "blend": "Method 'blend' on 2,000 rows x 192 of 'toy' (m1 + m2, 100 %)",
    "dvme": "Method 'dvme' on 2,000 rows x 192 of 'toy' (m1 + m2, 100 %)",
}


@pytest.mark.parametrize("method", ROWS)
def test_a_study_that_needs_more_than_memory_allows_is_refused(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features(tmp_path)
    monkeypatch.delattr(FeatureFile, "embeddings")
    said = refusal(fuse(tmp_path, "--method", method, "--fraction", "0.01", "--fraction", "1", "--memory", "1MB"))
    assert said.splitlines() == [said]
    if method != "average":  # the probes and their mean need the same
        assert said.startswith(NAMED[method] + " needs about ")
    assert "1 MB is what --memory allows. Use fewer labels (--fraction, --shots)" in said
    assert said.endswith("or set another limit: --memory AMOUNT")


def test_without_a_limit_it_is_compared_with_what_is_available(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features(tmp_path)
    monkeypatch.setattr("mt.system.memory.available_memory", lambda: 8 << 20)
    said = refusal(fuse(tmp_path, "--fraction", "1"))
    assert said.startswith(NAMED["dvme"])
    assert "8 MB is available." in said
    assert fuse(tmp_path, "--fraction", "1", "--memory", "8GB", "--method", "concat").exit_code == 0
    assert fuse(tmp_path, "--fraction", "1", "--method", "concat").exit_code == 0, "what is stored needs no memory"
    assert fuse(tmp_path, "--fraction", "0.02", "--method", "concat").exit_code == 0


def test_joined_splits_are_counted(tmp_path: Path) -> None:
    features(tmp_path, n=400)
    arguments = ["--method", "concat", "--fraction", "0.1", "--memory", "2MB"]
    assert fuse(tmp_path, *arguments).exit_code == 0
    assert "2 MB is what --memory allows" in refusal(fuse(tmp_path, *arguments, "--test-folds", "2"))


def test_with_unfreeze_memory_still_is_that_of_images(tmp_path: Path) -> None:
    assert "No dataset 'nothing'" in refusal(fuse(tmp_path, "--unfreeze", "--memory", "1MB", "--dataset", "nothing"))


PEAKS = [("concat", 2000, [256, 128], 3), ("blend", 2000, [256, 128], 3), ("dvme", 200, [768, 384], 3)]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks are measured on Linux")
def test_fusions_take_about_what_is_estimated() -> None:
    command = [sys.executable, "-m", "tests.fuse.measured_fusions", json.dumps(PEAKS)]
    peaks = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    for (method, rows, dims, classes), peak in zip(PEAKS, peaks, strict=True):
        size = FusedSize(method, tuple(Size(rows, rows, rows, 0, dim, 4, 0, classes) for dim in dims))
        fitting = Fitting(get_protocol("default")).on("multiclass", classes)
        estimate = rows * sum(dims) * 4 + size.of_method(fitting)
        assert 0.6 * peak < estimate < 4 * peak, f"{method}: {estimate:,} estimated, {peak:,} measured"
