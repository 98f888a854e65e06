"""Check a whole dataset before using it: counts, crossing groups, duplicates, unreadable images."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from mt.cache.feature_file.rows import is_unlabelled
from mt.datasets.base import Dataset, ImageError, Pixels, Split
from mt.datasets.grouping import crossing_groups
from mt.datasets.images import ImageFiles
from mt.system.device import cores
from mt.terminal import progress
from mt.terminal.progress import counted
from mt.types import FEW_GROUPS, FEW_UNITS, MISSING

_ROWS_A_TASK = 16
SMALL_SHARE = 0.25  # of the range of a deep image: below it at most 64 of 256 grey levels are left


@dataclass(frozen=True)
class Problem:
    """Something wrong: its kind, the image or group, and the rest of the sentence."""

    kind: str
    id: str
    detail: str


@dataclass(frozen=True)
class Report:
    """The result of a check: `splits` holds counts by split name, `notes` are remarks that are not problems."""

    dataset: Dataset
    splits: dict[str, dict[str, Any]]
    problems: list[Problem]
    notes: tuple[str, ...] = ()


def check_dataset(dataset: Dataset) -> Report:
    """Decode every image and return what is in the dataset and what is wrong with it.

    Duplicates are images of equal pixels: across splits they are a problem, within one only with different labels;
    with the same label they are a remark.
    """
    crossing = [
        Problem("group in several splits", group, f"is in {' and '.join(names)}")
        for group, names in crossing_groups(dataset.splits).items()
    ]
    unreadable: list[Problem] = []
    copies: dict[bytes, list[tuple[str, int]]] = defaultdict(list)
    shares: list[float] = []
    with progress.bar(f"checking {dataset.name}", sum(map(len, dataset.splits.values()))) as advance:
        for name, split in dataset.splits.items():
            for row, image in enumerate(_images(split)):
                advance(1)
                if isinstance(image, ImageError):
                    unreadable.append(Problem("unreadable image", split.ids[row], str(image)))
                else:
                    copies[image.pixels].append((name, row))
                    shares += [] if image.range_share is None else [image.range_share]
    problems = [*unreadable, *crossing, *_duplicates(dataset, copies)]
    notes = (*_few(dataset), *_copied(dataset, copies), *_spelled_alike(dataset.class_names), *_narrow(shares))
    return Report(dataset, _counts(dataset), problems, (*notes, *dataset.notes.lines()))


@dataclass(frozen=True)
class _Seen:
    """The hash of an image's pixels, and the share of its depth that it uses, if known."""

    pixels: bytes
    range_share: float | None = None


def _copied(dataset: Dataset, copies: dict[bytes, list[tuple[str, int]]]) -> Iterator[str]:
    """Yield a note for each split in which images are there more than once under one label."""
    for name, split in dataset.splits.items():
        rows = [[row for of, row in places if of == name] for places in copies.values()]
        twins = [(one, first) for first, *others in filter(None, rows) for one in others]
        same = [(one, first) for one, first in twins if np.array_equal(split.labels[one], split.labels[first])]
        if same:
            one, first = (split.ids[row] for row in same[0])
            copied = counted(len(same), "image has", "images have")
            yield f"{copied} the pixels and label of another in {name}, first {one} of {first}: such images count twice"


def _spelled_alike(class_names: Sequence[str]) -> Iterator[str]:
    """Yield a note on classes whose names differ only in case, spaces and punctuation."""
    alike: dict[str, list[str]] = defaultdict(list)
    for name in class_names:
        alike["".join(filter(str.isalnum, name.casefold())) or name].append(name)
    for names in alike.values():
        if len(names) > 1:
            yield f"the names of {' and '.join(map(repr, names))} differ in case or punctuation only: one class?"


def _narrow(shares: list[float]) -> Iterator[str]:
    """Yield a note on images deeper than 8 bits that use a small part of their range."""
    small = [share for share in shares if share < SMALL_SHARE]
    if small:
        yield (
            f"{len(small):,} of {len(shares):,} images of more than 8 bits use less than {SMALL_SHARE:.0%} of their "
            f"range, half of them at most {float(np.median(small)):.1%}: they have few grey levels left at 8 bits. "
            "Choose: --intensity minmax, percentile:0.5,99.5 or window:CENTER,WIDTH"
        )


def _few(dataset: Dataset) -> Iterator[str]:
    """Yield notes on a test split that is too small for reliable scores."""
    split = dataset.splits.get("test")
    if split is None:
        return
    units = split.ids if split.groups is None else split.groups
    if split.groups is not None and len(set(units)) < FEW_GROUPS:
        count = f"{counted(len(set(units)), 'group')}, fewer than {FEW_GROUPS}"
        yield f"the test split has {count}: intervals will cover the true score less often than stated"
    columns = [split.labels] if split.labels.ndim == 1 else list(split.labels.T)
    held = [np.flatnonzero(y == k).tolist() for y in columns for k in np.unique(y) if k >= 0]
    counts = [len({units[row] for row in rows}) for rows in held]
    if not counts:
        yield "no image of the test split has a label: mt can predict them, but not score the predictions"
    elif min(counts) < FEW_UNITS:
        count = f"{counted(min(counts), 'image' if split.groups is None else 'group')}, fewer than {FEW_UNITS}"
        yield f"the rarest class of the test split has {count}: scores are uncertain"


def _images(split: Split) -> Iterator[_Seen | ImageError]:
    """Yield the hash of each image, or its error, in order."""
    starts = range(0, len(split), _ROWS_A_TASK)
    with ThreadPoolExecutor(cores()) as pool:
        window = 8 * _ROWS_A_TASK * cores()
        for low in range(0, len(split), window):
            tasks = [start for start in starts if low <= start < low + window]
            for hashes in pool.map(lambda start: _hashes(split, start), tasks):
                yield from hashes


def _hashes(split: Split, start: int) -> list[_Seen | ImageError]:
    stop = min(start + _ROWS_A_TASK, len(split))
    if isinstance(split.images, ImageFiles):
        return [
            found if isinstance(found, ImageError) else _Seen(_hash(found.image), found.range_share)
            for found in split.images.examine(start, stop)
        ]
    return [found if isinstance(found, ImageError) else _Seen(_hash(found)) for found in split.images.load(start, stop)]


def _hash(image: Pixels) -> bytes:
    pixels = np.ascontiguousarray(np.asarray(image))
    return hashlib.sha256(f"{pixels.shape}".encode() + pixels.tobytes()).digest()


def _duplicates(dataset: Dataset, copies: dict[bytes, list[tuple[str, int]]]) -> Iterator[Problem]:
    for places in copies.values():
        if len(places) < 2:
            continue
        (first_split, first_row), *others = places
        first = dataset.splits[first_split]
        for name, row in others:
            other = dataset.splits[name]
            twin = f"has the same pixels as {first.ids[first_row]} ({first_split})"
            known = not is_unlabelled(np.stack([other.labels[row], first.labels[first_row]])).any()
            if known and not np.array_equal(other.labels[row], first.labels[first_row]):
                names = f"{_words(dataset, other.labels[row])}, not {_words(dataset, first.labels[first_row])}"
                yield Problem("conflicting labels", other.ids[row], f"{twin} but is labelled {names}")
            if name != first_split:
                yield Problem("image in several splits", other.ids[row], f"({name}) {twin}")


def _words(dataset: Dataset, label: np.ndarray) -> str:
    if dataset.task != "multilabel":
        return dataset.class_names[int(label)]
    return "|".join(name for name, present in zip(dataset.class_names, label, strict=True) if present == 1) or "none"


def _counts(dataset: Dataset) -> dict[str, dict[str, Any]]:
    """Return for each split the number of rows, of groups, of rows per class, and of rows without a label."""
    return {
        name: {
            "rows": len(split),
            "groups": None if split.groups is None else len(set(split.groups)),
            "classes": _balance(dataset, split),
            "unlabelled": int(is_unlabelled(split.labels).sum()),
        }
        for name, split in dataset.splits.items()
    }


def _balance(dataset: Dataset, split: Split) -> dict[str, int]:
    if split.labels.ndim == 2:
        counts = (split.labels == 1).sum(axis=0, dtype=np.int64)
    else:
        counts = np.bincount(split.labels[split.labels != MISSING], minlength=len(dataset.class_names))
    return dict(zip(dataset.class_names, counts.tolist(), strict=True))
