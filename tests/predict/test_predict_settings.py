"""A saved model decodes new images with the settings of the images that it was fitted on."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mt import FeaturizeRequest, extract
from mt.datasets import DatasetSettings
from mt.predict.dataset import predict_dataset
from mt.predict.images import predict_images
from mt.predict.request import PredictRequest
from tests.datasets import plain_files as plain
from tests.featurize.conftest import TINY
from tests.probe.features import probed


def test_dark_16_bit_images_by_the_intensity_of_the_fit(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    root = tmp_path / "dark"
    for split, count in (("train", 12), ("test", 4)):
        for number in range(count):
            path = root / split / f"c{number % 2}" / f"{number}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            values = rng.integers(0, 900, (40, 40)).astype(np.uint16) + np.uint16(300 * (number % 2))
            path.write_bytes(plain.tiff(values, bits=16))
    extract(
        FeaturizeRequest(
            [f"folder:{root}"],
            [TINY],
            cache_dir=tmp_path / "cache",
            weights=["random"],
            image_size=32,
            settings=DatasetSettings(intensity="window:600,1200"),
        )
    )
    probed(tmp_path / "cache", models=[TINY], fractions=[1.0], save=tmp_path / "saved", everything=True)
    cached = predict_dataset(PredictRequest(tmp_path / "saved", dataset="folder:dark", cache_dir=tmp_path / "cache"))
    fresh = PredictRequest(tmp_path / "saved", dataset=f"folder:{root}", cache_dir=tmp_path / "fresh")
    np.testing.assert_allclose(predict_dataset(fresh).probabilities, cached.probabilities, atol=1e-5)
    files = [root / "test" / f"c{number % 2}" / f"{number}.tif" for number in range(4)]
    found = predict_images(PredictRequest(tmp_path / "saved", [str(file) for file in files]))
    by_file = dict(zip((id_.rpartition("/")[2] for id_ in cached.ids), cached.probabilities, strict=True))
    for file, probabilities in zip(files, found.probabilities, strict=True):
        np.testing.assert_allclose(probabilities, by_file[file.name], atol=1e-5)
