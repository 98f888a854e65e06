"""`kill -9` at any moment: a real process, killed before each change that it makes to the disk."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mt.cache import is_complete, open_features
from mt.errors import IncompleteError
from tests.cache import samples


@pytest.mark.slow
@pytest.mark.parametrize("sync_every", ["0", "inf"])
@pytest.mark.parametrize("mode", ["whole", "torn"])
def test_a_killed_run_leaves_nothing_unreadable_and_resumes_to_the_same_bytes(
    tmp_path: Path, reference: bytes, mode: str, sync_every: str
) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "tests.cache.kill_driver", str(tmp_path), mode, sync_every],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    kills = int(ran.stdout)
    assert kills >= 20
    resumed = sum(_check(tmp_path / str(k) / "moles" / "dino-ffffffffffff.h5", reference) for k in range(1, kills + 1))
    assert 10 <= resumed < kills  # some kills fall into the creation, some after it


def _check(path: Path, reference: bytes) -> bool:
    """Check what a kill left, finish it and compare; return whether there was something to resume."""
    partial = path.with_suffix(".partial")
    if path.exists():
        assert open_features(path, verify=True).n_rows == samples.N
        assert path.read_bytes() == reference
        return False
    assert not is_complete(path)
    if resumable := partial.exists():
        with pytest.raises(IncompleteError, match="mt featurize --model dino"):
            open_features(path)
    samples.write(path)
    assert path.read_bytes() == reference
    assert sorted(one.name for one in path.parent.iterdir()) == [path.name, f"{path.name}.lock"]
    return resumable
