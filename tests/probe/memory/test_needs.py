"""Fits that need more memory than there is are refused in one line, before anything is read."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mt.cache.feature_file.read import FeatureFile
from mt.cli import group
from mt.errors import InputError
from mt.probe.method_settings import Logistic
from mt.probe.protocols import PROTOCOLS
from tests.probe.features import write_features

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
