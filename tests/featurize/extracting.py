"""Helpers for tests of the extraction: runs with tiny random networks, and sources that count reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mt import FeaturizeRequest, extract, load_dataset
from mt.datasets import Dataset
from mt.datasets.base import ImageError, Split
from mt.featurize.plan import Result
from mt.featurize.request import Compute
from tests.featurize.conftest import TINY

CPU = Compute(device="cpu", batch_size=4)


def featurize(
    dataset: Dataset | str | Path, cache: Path, models: Sequence[str] = (TINY,), compute: Compute = CPU, **options: Any
) -> list[Result]:
    """Extract with random weights at 32 pixels; a path is a folder of images."""
    if isinstance(dataset, Path):
        dataset = f"folder:{dataset}"
    index = options.pop("index", None)
    asked = FeaturizeRequest(
        [dataset], models, cache_dir=cache, weights=["random"], image_size=32, compute=compute, **options
    )
    return extract(asked, index=index)


def pictures(split: Split) -> list[Image.Image | np.ndarray]:
    """Return all images of a split, which can be read."""
    images = split.images.load(0, len(split))
    readable = [image for image in images if not isinstance(image, ImageError)]
    assert len(readable) == len(images)
    return readable


def same(some: list[Result], others: list[Result]) -> bool:
    """Return whether two runs made the same files, byte for byte."""
    pairs = list(zip(some, others, strict=True))
    return all(a.path.name == b.path.name and a.path.read_bytes() == b.path.read_bytes() for a, b in pairs)


class Counting:
    """An image source that counts how often each row is read, and can break at one."""

    def __init__(self, source: Any, *, interrupt_at: int | None = None) -> None:
        self.source, self.interrupt_at = source, interrupt_at
        self.read: list[int] = []

    def __len__(self) -> int:
        return len(self.source)

    def only(self, places: Any) -> Counting:
        return Counting(self.source.only(places), interrupt_at=self.interrupt_at)

    def content(self, index: Any) -> Any:
        return self.source.content(index)

    def row_hashes(self, index: Any, places: Any) -> list[bytes]:
        hashes: list[bytes] = self.source.row_hashes(index, places)
        return hashes

    def load(self, start: int, stop: int) -> list[Any]:
        self.read += range(start, stop)
        if self.interrupt_at is not None and start <= self.interrupt_at < stop:
            raise KeyboardInterrupt
        images: list[Any] = self.source.load(start, stop)
        return images


def counted(photos: Path, *, interrupt_at: int | None = None, **options: Any) -> tuple[Dataset, Counting]:
    """Return the folder's dataset, loaded with these options, with a counting source on its training split."""
    dataset = load_dataset(f"folder:{photos}", **options)
    train = dataset.splits["train"]
    source = Counting(train.images, interrupt_at=interrupt_at)
    return replace(dataset, splits={**dataset.splits, "train": replace(train, images=source)}), source
