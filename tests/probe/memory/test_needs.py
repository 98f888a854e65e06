"""Fits that need more memory than there is are refused in one line, before anything is read."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from mt.cache.feature_file.read import FeatureFile
from mt.cli import group
from mt.errors import InputError
from mt.probe.bags import Bags
from mt.probe.memory.needs import Size
from mt.probe.method_settings import Logistic
from mt.probe.protocols import PROTOCOLS, Fitting, get_protocol
from mt.probe.scores import sample
from mt.probe.scores.comparisons import replicate_scores
from tests.probe.features import write_features
from tests.unmeasured import environment

WIDE = {"task": "multiclass", "n_classes": 3, "dim": 128}


def features(cache: Path, n: int = 2000) -> None:
    for split in ("train", "test"):
        write_features(cache, split=split, n=n if split == "train" else 60, **WIDE)  # type: ignore[arg-type]


def probe(cache: Path, *arguments: str) -> Result:
    return CliRunner().invoke(group, ["probe", "--cache-dir", str(cache), "--seeds", "1", *arguments])


def refusal(result: Result) -> str:
    assert isinstance(result.exception, InputError), (result.output, result.exception)
    return str(result.exception)


@pytest.mark.parametrize("name", [name for name, one in PROTOCOLS.items() if not isinstance(one.method, Logistic)])
def test_a_protocol_that_needs_more_than_memory_allows_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features(tmp_path)
    monkeypatch.delattr(FeatureFile, "embeddings")
    said = refusal(probe(tmp_path, "--protocol", name, "--fraction", "0.01", "--fraction", "1", "--memory", "1MB"))
    assert said.startswith(f"Protocol '{name}' on 2,000 rows x 128 of 'toy' (m1, 100 %) needs about ")
    assert "1 MB is what --memory allows. Use fewer labels (--fraction, --shots), or read the features" in said
    assert said.endswith("from disk in every step: --protocol default --memory 1MB")


def test_within_the_limit_such_a_protocol_is_fitted(tmp_path: Path) -> None:
    features(tmp_path, n=60)
    result = probe(tmp_path, "--protocol", "dino-knn", "--memory", "1GB")
    assert result.exit_code == 0, result.output


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("mt.system.memory", "mt.probe.memory.needs"):
        monkeypatch.setattr(f"{module}.available_memory", lambda: 2 << 20)


def test_features_that_memory_does_not_hold_are_refused_with_what_reads_them_from_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, little_memory: None
) -> None:
    features(tmp_path)
    monkeypatch.setattr("mt.probe.questions._SMALL", 1 << 20)
    said = refusal(probe(tmp_path))
    assert "2 MB is available." in said
    assert said.endswith("or read the features from disk in every step: --memory 1MB")
    assert probe(tmp_path, "--fraction", "0.1", "--memory", "1MB").exit_code == 0
    assert "--memory" not in refusal(probe(tmp_path, "--test-folds", "2"))
    assert probe(tmp_path, "--fraction", "0.1").exit_code == 0, "what is stored needs no memory"


def test_resampling_that_memory_does_not_hold_is_refused_and_the_scores_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, little_memory: None
) -> None:
    for model in ("m1", "m2"):
        for split in ("train", "test"):
            write_features(tmp_path, model=model, split=split, n=100)
    monkeypatch.setattr(sample, "_SMALL", 1 << 10)
    monkeypatch.setattr("mt.system.memory.available_memory", lambda: 1 << 10)
    said = refusal(probe(tmp_path, "--fraction", "1"))
    assert said.startswith("Resampling 100 test cases with 2 columns of scores needs about 1 MB of memory; ")
    assert said.endswith("Compare fewer models (--model) or draws (--seeds), or print scores alone: --json")
    assert len(probe(tmp_path, "--fraction", "1", "--json").stdout.splitlines()) == 2
    assert "Resampling" in refusal(probe(tmp_path, "--fraction", "1", "--metric", "sensitivity_at_95_specificity"))


@pytest.mark.parametrize("pool", ["mean", "mean+std", "attention"])
def test_cases_that_memory_does_not_hold_are_refused(
    pool: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for split in ("train", "test"):
        slide = np.arange(120) // 2
        write_features(tmp_path, split=split, labels=slide % 2, columns={"slide": slide.astype(str).tolist()})
    monkeypatch.setattr("mt.system.memory.available_memory", lambda: 1 << 10)
    said = refusal(probe(tmp_path, "--bag", "slide", "--pool", pool))
    assert "cases, " in said, said
    assert said.endswith("Use --pool mean, or a --bag COLUMN of fewer cases.")


@pytest.mark.parametrize(("metric", "classes"), [("roc_auc", 1), ("average_precision", 1), ("macro_auc", 4)])
def test_resampling_takes_about_what_is_estimated(metric: str, classes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng, n = np.random.default_rng(0), 30_000
    y = rng.integers(0, max(2, classes), n)
    p = rng.random(n) if classes == 1 else rng.dirichlet(np.ones(classes), n)
    estimates = []
    monkeypatch.setattr(sample, "_SMALL", 0)
    monkeypatch.setattr("mt.system.memory.check_memory", lambda what, needed, instead: estimates.append(needed))
    tracemalloc.start()
    try:
        replicate_scores(metric, y, {"a": [p, p], "b": [p, p]}, n_resamples=8)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert 0.5 * peak < estimates[0] < 4 * peak


@pytest.mark.parametrize("rule", ["mean", "mean+std", "mean+max"])
def test_pooling_takes_about_what_is_estimated(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    X = np.zeros((40_000, 64), dtype=np.float32)
    bags, estimates = Bags.of(X, np.arange(len(X)) // 2, 20_000), []
    monkeypatch.setattr("mt.probe.bags.check_memory", lambda what, needed, instead: estimates.append(needed))
    tracemalloc.start()
    try:
        bags.pooled(rule)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert 0.7 * peak < estimates[0] < 3 * peak


PEAKS = [
    ("dino-knn", 6000, 256, 3),
    ("clip", 12_000, 256, 3),
    ("default", 6000, 256, 3),
    ("default", 6000, 512, 3),  # five Hessians of 1,539 coefficients
    ("thunder", 6000, 256, 3),
]
BUFFERS = 8 << 20  # what threads and the allocator hold whatever the sizes: no part of an estimate


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks are measured on Linux")
def test_fits_take_about_what_is_estimated() -> None:
    command = [sys.executable, "-m", "tests.probe.memory.measured_peaks", json.dumps(PEAKS)]
    peaks = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, env=environment()).stdout)
    for (name, rows, dim, classes), peak in zip(PEAKS, peaks, strict=True):
        fitting = Fitting(get_protocol(name)).on("multiclass", classes)
        estimate = Size(rows, rows, rows, 0, dim, 4, 0, classes).of_method(fitting)
        assert 0.75 * (peak - BUFFERS) < estimate < 4 * peak, f"{name}: {estimate:,} estimated, {peak:,} measured"
