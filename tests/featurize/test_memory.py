"""Memory does not grow with the number of images."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

SIDE, FEW, MANY = 256, 60, 600
PEAK = """
import resource, sys
from mt.cli import main
try:
    main(sys.argv[1:])
finally:
    print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
"""


def peak(folder: Path, count: int) -> int:
    """Return the most bytes that featurizing `count` different JPEG files took."""
    rng = np.random.default_rng(0)
    for split, number in (("train", count - 4), ("test", 4)):
        for i in range(number):
            path = folder / "photos" / split / ("benign", "tumour")[i % 2] / f"{i:04}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (SIDE, SIDE, 3), np.uint8)).save(path, quality=50)
    words = [
        "featurize",
        "--model",
        "timm:test_resnet",
        "--weights",
        "random",
        "--dataset",
        f"folder:{folder / 'photos'}",
    ]
    words += ["--image-size", "32", "--device", "cpu", "--batch-size", "8", "--cache-dir", str(folder / "cache")]
    done = subprocess.run([sys.executable, "-c", PEAK, *words], capture_output=True, text=True, check=True)
    return int(done.stdout.splitlines()[-1].removeprefix("peak "))


def test_ten_times_the_images_take_no_more_memory(tmp_path: Path) -> None:
    grown = peak(tmp_path / "many", MANY) - peak(tmp_path / "few", FEW)
    assert grown < (MANY - FEW) * SIDE * SIDE * 3 / 4, f"{grown / 2**20:.0f} MB more"  # a quarter of the pixels
