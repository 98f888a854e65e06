"""Two processes under torchrun do what one does with twice the batch, and share one validation."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mt.results.store import Fit, ScoreStore
from mt.system.ranks import Ranks
from tests.fuse.end_to_end.small import RESNET, VIT

COMMON = (
    "fuse",
    "--unfreeze",
    "--model",
    RESNET,
    "--model",
    VIT,
    "--fraction",
    "1",
    "--everything",
    "--lr",
    "1e-3",
    "--lr",
    "1e-4",
    "--epochs",
    "2",
    "--device",
    "cpu",
    "--workers",
    "1",
)
TWO = (
    "-m",
    "torch.distributed.run",
    "--nproc-per-node",
    "2",
    "--local-addr",
    "localhost",  # the host's own name may have no address
    "--master-port",
    "0",
    "--rdzv-backend",
    "c10d",
    "--rdzv-endpoint",
    "localhost:0",
)


def command(cache: Path, folder: Path, launcher: tuple[str, ...], batch: int) -> Any:
    """Return how to start the command in processes of its own."""
    words = [
        sys.executable,
        *launcher,
        "-m",
        "tests.fuse.end_to_end.trained_cli",
        *COMMON,
        "--batch-size",
        str(batch),
        "--cache-dir",
        str(cache),
        "--scores",
        str(folder / "scores.sqlite"),
        "--save",
        str(folder / "model"),
    ]
    return {"args": words, "env": {**os.environ, "OMP_NUM_THREADS": "1"}, "cwd": Path(__file__).parents[3]}


def killed(cache: Path, folder: Path, launcher: tuple[str, ...], batch: int) -> None:
    """Begin the command, and kill all of its processes after the first checkpoint."""
    asked = command(cache, folder, launcher, batch)
    running = subprocess.Popen(**asked, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list(folder.glob("checkpoints/*/kept.json")):
        assert running.poll() is None
        time.sleep(0.02)
    for place in Path("/proc").glob("[0-9]*/cmdline"):  # torchrun gives its processes groups of their own
        with suppress(OSError):
            if os.fsencode(folder) in place.read_bytes():
                os.kill(int(place.parent.name), signal.SIGKILL)
    running.wait()


def result(cache: Path, folder: Path, launcher: tuple[str, ...], batch: int) -> tuple[dict[str, Any], Fit, str]:
    """Run the command; returns the saved weights, the stored fit and what was printed."""
    done = subprocess.run(**command(cache, folder, launcher, batch), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert ("resumes from its last checkpoint" in done.stderr) == (folder.name == "begun")
    (tensors,) = (folder / "model").glob("*.safetensors")
    about = json.loads(tensors.with_suffix(".json").read_text())
    with ScoreStore(folder / "scores.sqlite") as store:
        return load_file(tensors), store.fit(about["fit"]), done.stdout


@pytest.mark.slow
def test_two_processes_are_one_with_twice_the_batch_which_resumes_what_they_began(cache: Path, tmp_path: Path) -> None:
    one, alone, shown = result(cache, tmp_path / "one", (), 8)
    two, together, both = result(cache, tmp_path / "two", TWO, 4)
    assert len(shown.splitlines()) == len(both.splitlines())  # the second process prints nothing
    killed(cache, tmp_path / "begun", TWO, 4)
    rest, resumed, _ = result(cache, tmp_path / "begun", (), 8)
    for weights, fit in ((two, together), (rest, resumed)):
        assert alone.identity == fit.identity  # 8 images per step either way
        np.testing.assert_allclose(fit.probabilities, alone.probabilities, atol=1e-3)
        for what in ("candidates", "shares"):
            ours, theirs = (found.outcome["selection"][what] for found in (fit, alone))
            assert ours == pytest.approx(theirs, abs=1e-3)
        assert alone.outcome["settings"]["share"] == fit.outcome["settings"]["share"] > 0
        # Adam turns rounding into steps where a gradient is nothing else: a few weights may differ by a step or two.
        differences = torch.cat([(one[name].double() - weights[name].double()).abs().flatten() for name in one])
        assert differences.quantile(0.99) < 1e-4


def test_shares_cover_a_batch_once_and_sums_of_one_process_are_itself() -> None:
    batch = np.arange(7)
    shares = [Ranks(rank, 3).share(batch) for rank in range(3)]
    assert sorted(np.concatenate(shares)) == list(batch)
    tensor = torch.ones(3)
    Ranks().sum_([tensor])
    assert torch.equal(tensor, torch.ones(3))
    assert Ranks().broadcast("x") == "x"


@pytest.mark.parametrize("large", [10, 1 << 24])
def test_buckets_hold_every_tensor_once(large: int) -> None:
    from mt.system.ranks import _buckets

    tensors = [torch.empty(size, device="meta") for size in (3, large, 5, large, 1)]
    found = [tensor for bucket in _buckets(tensors) for tensor in bucket]
    assert [id(tensor) for tensor in found] == [id(tensor) for tensor in tensors]
