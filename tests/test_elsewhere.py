"""Every command computes on a device that refuses tensors of the CPU, and gives the CPU's numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner

from mt.cache import open_features
from mt.cli import group
from mt.fuse.end_to_end.loop import Run
from mt.probe.protocols import PROTOCOLS
from tests.fuse.end_to_end.small import DATASET, make_cache
from tests.probe.features import embeddings_and_labels, write_features, write_pair

TASKS = {"binary": 2, "multiclass": 3, "multilabel": 3}


def run(*words: Any) -> list[dict[str, Any]]:
    """Run a command with --json and return the objects that it printed."""
    done = CliRunner().invoke(group, [*map(str, words), "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def check_equal(folder: Path, *words: Any, tolerance: float = 1e-5) -> None:
    """Run a command on the CPU and on the pretend device, each with scores of its own, and compare the values."""
    here, there = (
        run(*words, "--scores", folder / f"{device}.sqlite", "--device", device) for device in ("cpu", "pretend")
    )
    assert here
    assert len(here) == len(there)
    for one, other in zip(here, there, strict=True):
        if "value" in one:
            np.testing.assert_allclose(other["value"], one["value"], atol=tolerance, equal_nan=True)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("features")
    for task, classes in TASKS.items():
        for model in ("m1", "m2"):
            write_pair(folder, task, model, task=task, n_classes=classes)
    return folder


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_probe(cache: Path, tmp_path: Path, pretend: torch.device, protocol: str, task: str) -> None:
    if task not in PROTOCOLS[protocol].tasks:
        pytest.skip(f"{protocol} is not for {task}")
    check_equal(
        tmp_path,
        "probe",
        "--cache-dir",
        cache,
        "--dataset",
        task,
        "--model",
        "m1",
        "--protocol",
        protocol,
        "--fraction",
        0.5,
        "--seeds",
        1,
    )


@pytest.mark.parametrize(
    ("task", "also"), [("binary", ("--ablations",)), ("multiclass", ()), ("multilabel", ("--ablations",))]
)
def test_fuse(cache: Path, tmp_path: Path, pretend: torch.device, task: str, also: tuple[str, ...]) -> None:
    words = ("fuse", "--cache-dir", cache, "--dataset", task, "--fraction", 0.5, "--seeds", 1, *also)
    check_equal(tmp_path, *words, tolerance=1e-3)


def test_thresholds_and_scaling(cache: Path, tmp_path: Path, pretend: torch.device) -> None:
    words = ("fuse", "--cache-dir", cache, "--dataset", "binary", "--fraction", 0.5, "--seeds", 1)
    check_equal(tmp_path, *words, "--threshold", "youden", "--calibrate", "platt", tolerance=1e-3)


def test_attention_over_the_rows_of_a_case(tmp_path: Path, pretend: torch.device) -> None:
    for split, n in (("train", 200), ("test", 100)):
        X, y = embeddings_and_labels("bags", "m1", split, n=n // 5, dim=8, task="binary", n_classes=2, signal=1.0)
        write_features(
            tmp_path,
            "bags",
            split=split,
            n=n,
            embeddings=X.repeat(5, axis=0),
            labels=y.repeat(5),
            columns={"slide": [f"{split}-{row // 5}" for row in range(n)]},
        )
    words = ("probe", "--cache-dir", tmp_path, "--bag", "slide", "--pool", "attention", "--fraction", 1)
    check_equal(tmp_path, *words, tolerance=1e-3)


@pytest.mark.parametrize("small", [True, False])
@pytest.mark.parametrize(
    "words",
    [
        ("probe", "--protocol", "default"),
        ("probe", "--protocol", "dino-knn"),
        ("probe", "--protocol", "thunder"),
        ("fuse", "--method", "dvme"),
        ("fuse", "--method", "concat"),
    ],
    ids=" ".join,
)
def test_work_too_small_for_a_gpu_stays_on_the_cpu_under_auto(
    cache: Path, tmp_path: Path, words: tuple[str, ...], small: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If torch claims to have a GPU, only work above the limit asks for it, and then finds none."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    if not small:
        monkeypatch.setattr("mt.system.device.WORTH_A_GPU", 1)
    rest = ("--cache-dir", cache, "--dataset", "multiclass", "--fraction", 0.5, "--seeds", 1, "--device", "auto")
    words = (*words, *map(str, rest), "--scores", str(tmp_path / "scores.sqlite"))
    if small:
        assert run(*words)
        return
    with pytest.raises((AssertionError, RuntimeError), match=r"CUDA|NVIDIA"):
        run(*words)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_cache(tmp_path_factory.mktemp("images"))


TUNED = ("--epochs", 1, "--lr", 1e-3, "--fixed", "--batch-size", 8, "--workers", 1, "--augment", "none")


@pytest.mark.parametrize(
    "words",
    [
        ("--unfreeze", "--model", "timm:test_resnet"),
        ("--unfreeze", "--method", "dvme", "--precision", "bfloat16"),
        ("--unfreeze", "--method", "dvme", "--precision", "float16"),
        ("--unfreeze-last", 1, "--method", "dvme", "--checkpoint-grad", "--accumulate", 2),
        ("--unfreeze", "--lora", 2, "--model", "timm:test_vit"),
    ],
    ids=["one model", "bfloat16", "float16", "last block", "adapters"],
)
def test_end_to_end(images: Path, tmp_path: Path, pretend: torch.device, words: tuple[Any, ...]) -> None:
    check_equal(
        tmp_path,
        "fuse",
        *words,
        "--cache-dir",
        images,
        "--everything",
        "--fraction",
        1,
        *TUNED,
        "--checkpoints",
        tmp_path / "checkpoints",
        # Half precision, and a last layer that starts at zero: other rounding changes the order of the 20 test images.
        tolerance=0.15 if "--precision" in words else 0.05,
    )


def test_end_to_end_resumes(
    images: Path, tmp_path: Path, pretend: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["fuse", "--unfreeze", "--model", "timm:test_resnet", "--cache-dir", images, "--everything"]
    words += ["--fraction", 1, *TUNED, "--epochs", 3, "--device", "pretend"]
    whole = run(*words, "--scores", tmp_path / "whole.sqlite", "--checkpoints", tmp_path / "whole")
    real, steps = Run._finish_step, []

    def interrupted(self: Run, *arguments: Any) -> None:
        real(self, *arguments)
        steps.append(self.epoch)
        if len(steps) == 8:  # in the second epoch
            raise KeyboardInterrupt

    monkeypatch.setattr(Run, "_finish_step", interrupted)
    again = [*words, "--scores", tmp_path / "again.sqlite", "--checkpoints", tmp_path / "again"]
    assert CliRunner().invoke(group, [*map(str, again), "--json"]).exit_code != 0
    assert list((tmp_path / "again").rglob("*.safetensors"))
    resumed = run(*again)
    assert len(steps) < 8 + 15  # three epochs of five steps, minus those in the checkpoint
    assert [one.get("value") for one in resumed] == [one.get("value") for one in whole]


def test_predict_end_to_end(images: Path, tmp_path: Path, pretend: torch.device) -> None:
    words = ("--model", "timm:test_resnet", "--cache-dir", images, "--everything", "--fraction", 1, *TUNED)
    kept = ("--save", tmp_path / "saved", "--scores", tmp_path / "s.sqlite", "--device", "cpu")
    run("fuse", "--unfreeze", *words, *kept)
    found = {}
    for device in ("cpu", "pretend"):
        out = tmp_path / f"{device}.csv"
        arguments = ["predict", tmp_path / "saved", "--dataset", DATASET, "--device", device, "--out", out]
        done = CliRunner().invoke(group, list(map(str, arguments)), catch_exceptions=False)
        assert done.exit_code == 0, done.output
        found[device] = pd.read_csv(out).select_dtypes("number")
    assert found["cpu"].size
    np.testing.assert_allclose(found["pretend"], found["cpu"], atol=1e-5)


def test_featurize(tmp_path: Path, pretend: torch.device) -> None:
    made = {}
    for device in ("cpu", "pretend"):
        cache = tmp_path / device
        run(
            "featurize",
            "--dataset",
            "synthetic@20",
            "--model",
            "timm:test_vit",
            "--weights",
            "random",
            "--image-size",
            32,
            "--cache-dir",
            cache,
            "--device",
            device,
        )
        made[device] = [open_features(path).embeddings for path in sorted(cache.rglob("*.h5"))]
    assert len(made["cpu"]) == 2
    for here, there in zip(made["cpu"], made["pretend"], strict=True):
        np.testing.assert_allclose(there, here, atol=1e-5)
