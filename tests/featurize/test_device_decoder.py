"""`--decoder device` in featurizing: batches on the device, other files Pillow's way, and files of their own."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from mt.backbones.preprocess import Preprocess
from mt.cli import group
from mt.datasets import DatasetSettings, Split, load_dataset
from mt.datasets.decoding import nvjpeg
from mt.errors import InputError
from mt.featurize.feed import Feed
from mt.featurize.reading import geometries_of, read_batches
from tests.datasets.nvjpeg_stand_in import NvJpeg, card, pixels_of
from tests.datasets.test_jpeg import encoded, picture

__all__ = ["card"]  # a fixture

RECIPES = (Preprocess(36, 32), Preprocess(40, 32, "bicubic"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Write 70 train files: JPEG of two common sizes and one rare one, some PNG, one cut short."""
    for number in range(70):
        path = tmp_path / "photos" / "train" / ("bright", "dark")[number % 2] / f"{number:02}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        width, height = (20, 90) if number == 5 else [(61, 50), (90, 33)][number % 3 == 0]
        image = picture(width, height, seed=number)
        if number % 10 == 7:
            image.save(path.with_suffix(".png"))
        else:
            path.write_bytes(encoded(image)[: 500 if number == 11 else None])
    for name in ("bright", "dark"):
        (tmp_path / "photos" / "test" / name).mkdir(parents=True)
        (tmp_path / "photos" / "test" / name / "t.jpg").write_bytes(encoded(picture(40, 40)))
    return tmp_path / "photos"


def split_of(photos: Path) -> Split:
    settings = DatasetSettings(decoder="device")
    return load_dataset(f"folder:{photos}", settings=settings, on_error="skip").splits["train"]


def expected(path: str) -> np.ndarray:
    """Return the pixels of a file: the stand-in's of a JPEG, else Pillow's."""
    data = Path(path).read_bytes()
    return pixels_of(data) if path.endswith(".jpg") else np.asarray(Image.open(path).convert("RGB"))


@pytest.mark.parametrize("parcel", [32 << 20, 1])
def test_pictures_are_decoded_and_resized_on_the_device_in_batches(
    photos: Path, card: NvJpeg, pretend: torch.device, parcel: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mt.featurize.device_decoder.UPLOAD_BYTES", parcel)
    split = split_of(photos)
    nvjpeg.require(pretend)
    card.batches.clear()
    feed = Feed(pretend, geometries_of(RECIPES), batch_size=70)
    (batch,) = read_batches(split, [np.arange(70)], batch_size=70, recipes=RECIPES, workers=3, device=pretend)
    assert max(card.batches) > 50  # of 64 rows, those that are JPEG and whole
    bad = {row for row in range(70) if "/11.jpg" in split.images.paths[row]}  # type: ignore[attr-defined]
    assert set(np.flatnonzero(batch.status != 1)) == set(np.flatnonzero(batch.status == batch.status[min(bad)])) == bad
    for key, pixels in feed(batch.raw).items():
        recipe = geometries_of(RECIPES)[key]
        for row, path in enumerate(split.images.paths):  # type: ignore[attr-defined]
            wanted = np.zeros((32, 32, 3), np.uint8) if row in bad else recipe.geometry(expected(path))
            np.testing.assert_array_equal(pixels[row].cpu().numpy(), wanted)


def featurized(photos: Path, cache: Path, *words: str, device: str = "pretend") -> Path:
    """Featurize the train split, by default on the pretend device, and return its file."""
    done = CliRunner().invoke(
        group,
        [
            "featurize",
            "--model",
            "timm:test_resnet",
            "--weights",
            "random",
            "--image-size",
            "32",
            "--split",
            "train",
            "--dataset",
            f"folder:{photos}",
            "--cache-dir",
            str(cache),
            "--on-error",
            "skip",
            "--device",
            device,
            *words,
        ],
        catch_exceptions=False,
    )
    assert done.exit_code == 0, done.output
    return Path(done.stdout.splitlines()[-1].strip())


def test_features_of_the_device_are_files_of_their_own(
    photos: Path, tmp_path: Path, card: NvJpeg, pretend: torch.device
) -> None:
    plain = featurized(photos, tmp_path / "cache")
    named = featurized(photos, tmp_path / "cache", "--decoder", "pillow")
    other = featurized(photos, tmp_path / "cache", "--decoder", "device")
    assert plain == named != other
    with h5py.File(plain) as one, h5py.File(other) as two:
        assert one["embeddings"].shape == two["embeddings"].shape
        assert not np.array_equal(one["embeddings"][:], two["embeddings"][:])


def test_without_a_card_no_file_is_begun(photos: Path, tmp_path: Path, pretend: torch.device) -> None:
    nvjpeg._reads.cache_clear()
    with pytest.raises(InputError, match="--decoder device requires a CUDA device"):
        featurized(photos, tmp_path / "cache", "--decoder", "device")
    assert not list((tmp_path / "cache").rglob("*.h5*"))


@pytest.mark.parametrize("device", ["cpu", "pretend"])
def test_a_folder_of_mixed_sizes_and_kinds_gives_the_file_that_pillow_alone_gives(
    photos: Path, tmp_path: Path, pretend: torch.device, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = featurized(photos, tmp_path / "ours", device=device)
    monkeypatch.setattr("mt.datasets.image_file.jpeg.decode", lambda *_: None)
    monkeypatch.setattr("mt.featurize.feed.FEW", 1000)  # Pillow resizes every picture
    pillow = featurized(photos, tmp_path / "pillow", device=device)
    assert ours.read_bytes() == pillow.read_bytes()
