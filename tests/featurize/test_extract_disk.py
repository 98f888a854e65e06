"""A disk that is too small gives one line before anything is computed; nothing is lost or left behind."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mt import open_features
from tests.cache.test_full_disk import file_names, mount
from tests.featurize.conftest import TINY
from tests.featurize.extracting import featurize

DISK = 1 << 20  # bytes
# Free: enough for the file of the train split (0.42 MB while it is laid out, 0.25 MB then), not for both splits.
FREE = 480_000


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    mount(folder, f"size={DISK}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_shows_before_anything_is_computed(photos: Path, small_disk: Path) -> None:
    finished = featurize(photos, small_disk, splits=["test"])[0].path
    kept = finished.read_bytes()
    used = sum(file.stat().st_blocks * 512 for file in small_disk.rglob("*"))
    filler = small_disk / "filler"
    filler.write_bytes(bytes(DISK - used - FREE))
    before = file_names(small_disk)

    def run() -> subprocess.CompletedProcess[str]:
        command = [
            "featurize",
            "--model",
            TINY,
            "--weights",
            "random",
            "--image-size",
            "32",
            "--dataset",
            "synthetic@600",
            "--cache-dir",
            str(small_disk),
        ]
        return subprocess.run([sys.executable, "-m", "mt", *command], capture_output=True, text=True, check=False)

    stopped = run()
    assert (stopped.returncode, stopped.stdout) == (1, "")
    (line,) = stopped.stderr.splitlines()
    assert "needs" in line
    assert "kB free. Free some space or choose another --cache-dir. Then run the same command again." in line
    assert file_names(small_disk) == before
    assert finished.read_bytes() == kept
    filler.unlink()
    resumed = run()
    assert resumed.returncode == 0, resumed.stderr
    paths = [Path(line.strip()) for line in resumed.stdout.splitlines() if line.startswith("  ")]
    assert [open_features(path, verify=True).n_ok for path in paths] == [600, 300]
