"""Image sources that misbehave in workers, but not in the process of the test."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mt import load_dataset
from mt.cache.feature_file.format import Status
from mt.datasets import Dataset, ImageError


@dataclass(frozen=True)
class Elsewhere:
    """A source that does something before it loads rows, unless it is in the process that made it.

    deed: what is done, with `flag`: a file that workers share.
    """

    source: Any
    deed: Callable[[Path, list[Any]], list[Any]]
    flag: Path
    home: int

    def __len__(self) -> int:
        return len(self.source)

    def only(self, places: Sequence[int]) -> Elsewhere:
        return replace(self, source=self.source.only(places))

    def content(self, index: Any) -> Any:
        return self.source.content(index)

    def row_hashes(self, index: Any, places: Any) -> Any:
        return self.source.row_hashes(index, places)

    def load(self, start: int, stop: int) -> list[Any]:
        found = self.source.load(start, stop)
        return found if os.getpid() == self.home else self.deed(self.flag, found)


def first(flag: Path) -> bool:
    """Return whether this is the first call that any process makes with this file."""
    try:
        flag.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def dies(flag: Path, images: list[Any]) -> list[Any]:
    os.kill(os.getpid(), signal.SIGKILL)
    return images


def sees_nothing(flag: Path, images: list[Any]) -> list[Any]:
    return [ImageError("photo.png: no such file", Status.ABSENT) for _ in images]


def fails(flag: Path, images: list[Any]) -> list[Any]:
    raise ValueError("no such\ncolour")


def dies_then_hangs(flag: Path, images: list[Any]) -> list[Any]:
    """End the first worker that loads, and let the second one hang."""
    if first(flag):
        os.kill(os.getpid(), signal.SIGKILL)
    if first(flag.with_suffix(".hung")):
        threading.Event().wait()
    return images


def elsewhere(photos: Path, deed: Callable[[Path, list[Any]], list[Any]], flag: Path) -> Dataset:
    """Return the folder's dataset whose training images misbehave in workers."""
    dataset = load_dataset(f"folder:{photos}", on_error="skip")
    train = dataset.splits["train"]
    source = Elsewhere(train.images, deed, flag, os.getpid())
    return replace(dataset, splits={**dataset.splits, "train": replace(train, images=source)})
