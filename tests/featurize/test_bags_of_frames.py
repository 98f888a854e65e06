"""Slices of a volume (`--frame all`) are one case when probing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from mt.datasets.settings import DatasetSettings
from mt.featurize import FeaturizeRequest, extract
from tests.probe.features import probed


def test_slices_of_a_volume_are_one_case(tmp_path: Path) -> None:
    rng, lines = np.random.default_rng(0), ["image,label,split"]
    for number in range(16):
        pages = [
            Image.fromarray(rng.integers(0, 100, (24, 24), dtype=np.uint8) + np.uint8(100 * (number % 2)))
            for _ in range(2 + number % 2)
        ]
        pages[0].save(tmp_path / f"v{number}.tiff", save_all=True, append_images=pages[1:])
        lines.append(f"v{number}.tiff,{'ab'[number % 2]},{'train' if number < 10 else 'test'}")
    (tmp_path / "volumes.csv").write_text("\n".join(lines))
    extract(
        FeaturizeRequest(
            [f"table:{tmp_path / 'volumes.csv'}"],
            ["efficientnet-lite0"],
            cache_dir=tmp_path / "cache",
            weights=["random"],
            image_size=32,
            settings=DatasetSettings(frame="all"),
        )
    )
    asked = {"everything": True, "fractions": [1.0], "protocol": "clip"}
    (slices,), (volumes,) = (probed(tmp_path / "cache", **asked, **bag).scores for bag in ({}, {"bag": "group"}))
    assert (slices.n_labels, slices.n_test, slices.n_units) == (25, 15, 6)
    assert (volumes.n_labels, volumes.n_test) == (10, 6)
    assert volumes.model.endswith(", mean per group")
