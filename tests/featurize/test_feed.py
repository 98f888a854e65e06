"""Raw pictures resized on a device are the pixels that the CPU path makes, whatever their sizes and kinds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mt.backbones.preprocess import Preprocess
from mt.datasets import Split, load_dataset
from mt.featurize.feed import Feed, RawRows
from mt.featurize.reading import geometries_of, read_batches
from tests.noting import noted

RECIPES = (Preprocess(36, 32), Preprocess(40, 32, "bicubic"), Preprocess(32, 32, "bicubic", squash=True))
KINDS: dict[str, dict[str, Any]] = {
    "a.png": {},
    "b.jpg": {"quality": 90},
    "c.tif": {},
    "d.jpg": {"quality": 70, "progressive": True},
    "e.bmp": {},
}


@pytest.fixture
def mixed(tmp_path: Path) -> Split:
    """Write 40 pictures of five kinds and four sizes, one of them damaged, and return their train split."""
    rng = np.random.default_rng(0)
    for number in range(40):
        name, options = list(KINDS.items())[number % len(KINDS)]
        size = [(50, 61), (50, 61), (33, 90), (128, 40)][number % 4] if number < 36 else (20 + number, 30)
        path = tmp_path / "photos" / "train" / ("bright", "dark")[number % 2] / f"{number:02}-{name}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path, **options)
        (tmp_path / "photos" / "test" / path.parent.name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(
            tmp_path / "photos" / "test" / path.parent.name / "t.png"
        )
    path = tmp_path / "photos" / "train" / "dark" / "07-c.tif"
    path.write_bytes(path.read_bytes()[:500])
    return load_dataset(f"folder:{tmp_path / 'photos'}", on_error="skip").splits["train"]


@pytest.mark.parametrize("where", ["cpu", "pretend"])
def test_a_folder_of_mixed_sizes_and_kinds_gives_the_pixels_of_pillow(
    mixed: Split, where: str, pretend: torch.device
) -> None:
    options: dict[str, Any] = {"batch_size": 16, "recipes": RECIPES, "workers": 2}
    batches = np.array_split(np.arange(len(mixed)), range(16, len(mixed), 16))
    feed = Feed(torch.device(where), geometries_of(RECIPES), batch_size=16)
    found = list(read_batches(mixed, batches, device=torch.device(where), **options))
    expected = list(read_batches(mixed, batches, **options))
    assert sum(len(batch.status) for batch in found) == 40
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.status, other.status)
        assert [str(error) for error in one.errors] == [str(error) for error in other.errors]
        there = feed(one.raw)
        for key, pixels in other.pixels.items():
            assert there[key].device.type == where
            np.testing.assert_array_equal(there[key].cpu().numpy(), pixels)
    assert sum((batch.status != 1).sum() for batch in found) == 1


def test_pictures_of_a_rare_size_are_resized_by_pillow() -> None:
    rows = RawRows()
    for place, size in enumerate([(8, 9)] * 5 + [(7, 7)]):
        rows.add(place, np.full((*size, 3), place, np.uint8))
    rows.resize_rare_sizes(geometries_of(RECIPES))
    assert list(rows.by_size) == [(8, 9)]
    assert {key: places for key, (places, _) in rows.resized.items()} == {key: [5] for key in geometries_of(RECIPES)}


def test_pictures_travel_in_parcels_that_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mt.featurize.feed.UPLOAD_BYTES", 4 * 40 * 50 * 3)
    sent: list[int] = []
    feed = Feed(torch.device("cpu"), geometries_of(RECIPES), batch_size=16)
    monkeypatch.setattr(feed, "_moved", noted(feed._moved, lambda pictures: sent.append(len(pictures))))
    rng = np.random.default_rng(0)
    parts = [RawRows() for _ in range(4)]
    for place in range(16):
        parts[place // 4].add(place, rng.integers(0, 256, (40, 50, 3), dtype=np.uint8))
    batch = feed(parts)
    assert sent == [4, 4, 4, 4]
    pictures = [picture for part in parts for picture in part.by_size[40, 50][1]]
    for key, recipe in geometries_of(RECIPES).items():
        np.testing.assert_array_equal(batch[key].numpy(), np.stack([recipe.geometry(one) for one in pictures]))
