"""Small datasets and a tiny network, for tests of the extraction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

# A ResNet of 0.5 million weights that ships with timm for tests: 96-wide features.
TINY = "timm:test_resnet"
OTHER = "timm:test_efficientnet"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Write 50 training and 14 test images of two classes and return their folder."""
    folder = tmp_path / "photos"
    rng = np.random.default_rng(0)
    for split, count in (("train", 50), ("test", 14)):
        for number in range(count):
            path = folder / split / ("benign", "tumour")[number % 2] / f"{number:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (40, 48, 3), dtype=np.uint8)).save(path)
    return folder


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use blocks of 8 rows, so that a small split has many."""
    from mt.featurize import run as run_module

    monkeypatch.setattr(run_module, "BLOCK_ROWS", 8)
