"""`kill -9` while training, again and again: the run that continues ends with the weights of an uninterrupted one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mt.fuse.end_to_end import loop
from mt.fuse.end_to_end.checkpoint import Checkpoints
from mt.fuse.end_to_end.loop import Kept, Run
from mt.fuse.end_to_end.request import Settings
from mt.fuse.end_to_end.warm_start import cached_stage, network_from
from mt.fuse.end_to_end.work import Part
from mt.results.store import ScoreStore
from tests.fuse.end_to_end.resume_driver import KILLS
from tests.fuse.end_to_end.small import RESNET, VIT, Bench


@pytest.mark.slow
def test_killed_and_resumed_ends_with_the_same_weights(cache: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.fuse.end_to_end.resume_driver", str(cache), str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=Path(__file__).parents[3])
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) == len(KILLS)
    weights, fits = [], []
    for way in ("whole", "killed"):
        (tensors,) = (tmp_path / way / "model").glob("*.safetensors")
        weights.append(tensors.read_bytes())
        about = json.loads(tensors.with_suffix(".json").read_text())
        with ScoreStore(tmp_path / way / "scores.sqlite") as store:
            fits.append(store.fit(about["fit"]))
        assert about["settings"]["epochs"] > 0  # else the weights would be the start's
        assert about["settings"]["trained"] == about["trained"] == 2
        assert about["settings"]["trials"] == len(about["trials"]) == 8
        assert not list((tmp_path / way / "checkpoints").glob("*/*"))
    assert weights[0] == weights[1]
    np.testing.assert_array_equal(fits[0].probabilities, fits[1].probabilities)
    assert fits[0].outcome["selection"] == fits[1].outcome["selection"]


@pytest.mark.parametrize(
    ("model", "changes"),
    [
        (VIT, {"lora": 2}),
        (VIT, {"lora": 2, "last": 1}),
        (RESNET, {"last": 2}),
        (RESNET, {"train_batch_norm": True}),
        (RESNET, {"train_batch_norm": True, "last": 2}),
    ],
)
def test_what_trains_in_part_resumes_to_the_same_weights(
    cache: Path, tmp_path: Path, model: str, changes: dict[str, Any]
) -> None:
    settings = Settings(batch=8, dropout=0.3, **changes)

    def begun() -> tuple[Run, Kept]:
        bench = Bench(cache, model, settings=settings)
        fitted = cached_stage(bench.budget, "binary", 2, seed=0, device="cpu")
        network, work = network_from(fitted, bench.networks, settings), bench.work(augment="mild")
        network.begin([1.0])
        run = Run(network, work, Part(np.arange(40), bench.budget.y), bench.candidate(1e-2), epochs=3)
        return run, Kept(Checkpoints(tmp_path), work)

    whole, kept = begun()
    for epoch in range(3):
        whole.train_epoch(kept)
        if epoch == 0:
            kept.write(whole)
    resumed, kept = begun()
    found = kept.files.read()
    assert found is not None
    resumed.restore(found.tensors, found.facts["position"])
    assert resumed.epoch == 1
    for _ in range(2):
        resumed.train_epoch(kept)
    ends = [run.finished().state_dict() for run in (whole, resumed)]
    assert ends[0].keys() == ends[1].keys()
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    start = begun()[0].state()
    assert any(not torch.equal(start[name], found.tensors[name]) for name in start if "backbones" in name)


def test_checkpoints_at_the_ends_of_epochs_take_a_small_share_of_the_time(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, written = 0.0, list[float]()
    kept = Kept(Checkpoints(tmp_path), Bench(cache, RESNET).work())

    def write(_: object) -> None:
        nonlocal now
        now += 0.5
        written.append(now)

    monkeypatch.setattr("mt.fuse.end_to_end.loop.time.monotonic", lambda: now)
    monkeypatch.setattr(kept.files, "write", write)
    for _ in range(200):
        now += 0.7  # of training
        kept.end_epoch(SomeRun())  # type: ignore[arg-type]
    writing = 0.5 * len(written)
    assert written[0] == 1.2, "the first epoch's is written"
    assert 0.9 * loop.WRITING < writing / now < 1.1 * loop.WRITING
    monkeypatch.setattr(loop, "WRITING", float("inf"))
    kept.write(SomeRun())  # type: ignore[arg-type]
    n = len(written)
    kept.end_epoch(SomeRun())  # type: ignore[arg-type]
    assert len(written) == n + 1


class SomeRun:
    def state(self) -> dict[str, torch.Tensor]:
        return {}

    def position(self) -> dict[str, Any]:
        return {}
