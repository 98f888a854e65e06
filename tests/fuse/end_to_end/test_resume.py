"""`kill -9` while training, again and again: the run that continues ends with the weights of an uninterrupted one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mt.errors import InputError
from mt.fuse.end_to_end.checkpoint import Checkpoint, Checkpoints
from mt.fuse.end_to_end.loop import Kept
from mt.results.store import ScoreStore
from tests.fuse.end_to_end.resume_driver import KILLS
from tests.fuse.end_to_end.small import RESNET, Bench


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
        assert not list((tmp_path / way / "checkpoints").glob("*/*"))
    assert weights[0] == weights[1]
    np.testing.assert_array_equal(fits[0].probabilities, fits[1].probabilities)
    assert fits[0].outcome["selection"] == fits[1].outcome["selection"]


def test_another_number_of_processes_is_refused(cache: Path, tmp_path: Path) -> None:
    kept = Kept(Checkpoints(tmp_path), Bench(cache, RESNET).work())
    kept.files.write(Checkpoint({"weight": torch.zeros(1)}, {"world": 2}))
    with pytest.raises(InputError, match="begun by 2 processes, and there are 1"):
        kept.read()
