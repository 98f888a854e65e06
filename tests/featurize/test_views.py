"""`mt featurize --views`: averaged embeddings go to files of their own, resume, and are predicted with."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from mt import load_backbone, load_dataset, open_features
from mt.backbones.embeddings import VIEWS
from mt.cache import Catalog
from mt.cli import group
from mt.errors import CacheError, InputError
from mt.predict.dataset import predict_dataset
from mt.predict.images import predict_images
from mt.predict.request import PredictRequest
from tests.featurize.conftest import TINY
from tests.featurize.extracting import counted, featurize, pictures
from tests.probe.features import probed

pytestmark = pytest.mark.usefixtures("small_blocks")


@pytest.mark.parametrize("views", VIEWS)
def test_a_file_holds_the_average_and_stands_beside_the_plain_one(photos: Path, tmp_path: Path, views: str) -> None:
    plain = featurize(photos, tmp_path / "cache", splits=["test"])[0]
    averaged = featurize(photos, tmp_path / "cache", splits=["test"], views=views)[0]
    assert averaged.model == f"{TINY}:{views}"
    backbone = load_backbone(averaged.model, "random", image_size=32)
    images = pictures(load_dataset(f"folder:{photos}").splits["test"])
    with torch.inference_mode():
        expected = [backbone.model(backbone.preprocess(image)[None])[0].numpy() for image in images]
    found = open_features(averaged.path, verify=True).embeddings
    np.testing.assert_allclose(found, np.stack(expected), rtol=0, atol=1e-5)
    assert np.abs(found - open_features(plain.path).embeddings).max() > 1e-3
    entries = Catalog(tmp_path / "cache").entries(everything=True)
    assert {entry.path for entry in entries if "superseded" not in entry.flags} == {plain.path, averaged.path}
    assert featurize(photos, tmp_path / "cache", splits=["test"], views=views)[0].cached


@pytest.mark.parametrize("views", VIEWS)
def test_an_interrupted_run_resumes_to_the_same_bytes(photos: Path, tmp_path: Path, views: str) -> None:
    """Also by the command that the unfinished file names."""
    whole = featurize(photos, tmp_path / "whole", splits=["train"], views=views)[0]
    with pytest.raises(KeyboardInterrupt):
        featurize(counted(photos, interrupt_at=33)[0], tmp_path / "cut", splits=["train"], views=views)
    (partial,) = (tmp_path / "cut").rglob("*.partial")
    with pytest.raises(CacheError) as found:
        open_features(partial.with_suffix(".h5"))
    command = str(found.value).partition("Finish it with: ")[2]
    ran = CliRunner().invoke(group, shlex.split(command)[1:], catch_exceptions=False)
    assert ran.exit_code == 0
    assert partial.with_suffix(".h5").read_bytes() == whole.path.read_bytes()


def test_predicting_uses_the_same_views(photos: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    featurize(photos, cache, views="fivecrop")
    probed(cache, models=[f"{TINY}:fivecrop"], fractions=[1.0], save=tmp_path / "saved", everything=True)
    ready = predict_dataset(PredictRequest(tmp_path / "saved", dataset="folder:photos", cache_dir=cache))
    files = [photos / "test" / name.removeprefix("test/") for name in ready.ids]
    again = predict_images(PredictRequest(tmp_path / "saved", files))
    np.testing.assert_allclose(again.probabilities, ready.probabilities, rtol=0, atol=1e-5)


def test_the_command_takes_views_with_embedding_rules(photos: Path, tmp_path: Path) -> None:
    words = ["featurize", "--model", "timm:test_vit", "--dataset", f"folder:{photos}", "--split", "test"]
    words += ["--weights", "random", "--image-size", "32", "--cache-dir", str(tmp_path / "cache")]
    words += ["--embedding", "cls", "--embedding", "mean", "--views", "flips"]
    ran = CliRunner().invoke(group, words, catch_exceptions=False)
    assert ran.exit_code == 0
    assert [word for word in ran.stdout.replace(": ", " ").split() if word.startswith("timm:")] == [
        "timm:test_vit:cls:flips",
        "timm:test_vit:mean:flips",
    ]


def test_other_views_are_answered_with_those_there_are(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--views takes one of flips, fivecrop, d4; got 'tencrop'"):
        featurize(photos, tmp_path / "cache", views="tencrop")
