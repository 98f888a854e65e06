"""`folder:PATH`: one's own images in class folders, with or without split folders around them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mt.cache.content import ContentIndex
from mt.datasets.base import Dataset, Split
from mt.datasets.dicom.headers import Headers
from mt.datasets.grouping import NO_GROUPING, groups_by_regex
from mt.datasets.listing import list_images, natural, some, subfolders
from mt.datasets.readers.image_table import ImageTable, by_frame, splits_of, with_headers
from mt.datasets.registry import DatasetRequest
from mt.datasets.splitting import draw_splits
from mt.errors import DatasetError, InputError
from mt.terminal.progress import counted
from mt.types import FEW_IMAGES, TEST_BY_FOLDS, Task

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
FRACTIONS = {"train": 0.8, "test": 0.2}
FEW_TEST_IMAGES = 100


@dataclass(frozen=True)
class Found:
    """One image file: where, of which split (none where there are no split folders) and of which class."""

    id: str
    path: str
    split: str | None
    class_name: str


def load(request: DatasetRequest) -> Dataset:
    """Return the images of `[split/]class/image`; without split folders, or with train alone, draw a stratified 80/20.

    A split folder is `train`, `val`, `valid`, `validation` or `test` beside a `train`.  Classes are the folders'
    names in natural order (2 before 10): two make a binary task whose second class is the positive one.  DICOM files
    are grouped by PatientID unless `--group-regex` names another group.
    """
    root = Path(request.argument).expanduser().absolute()
    if not root.is_dir():
        raise DatasetError(f"{request.name}: no folder {root}. Expected one that holds a folder of images per class.")
    index, settings = request.index or ContentIndex(), request.settings
    headers = Headers(index, settings.columns)
    found, passed_over = _find(root, headers)
    class_names = tuple(dict.fromkeys(image.class_name for image in found))
    number = {name: label for label, name in enumerate(class_names)}
    ids = [image.id for image in found]
    labels = np.array([number[image.class_name] for image in found], dtype=np.int64)
    groups = None if settings.group_regex is None else groups_by_regex(ids, settings.group_regex)
    table, warnings = with_headers(
        ImageTable(
            ids,
            labels,
            [image.path for image in found],
            groups,
            decoding=settings.decoding,
            grouping=None if groups is None else "patient",
        ),
        headers,
    )
    if settings.frame == "all":
        table, source = by_frame(table, headers, index)
        found = [found[row] for row in source]
    rows, drawn = _split_rows(found, table, settings.seed)
    splits = splits_of(table, rows)
    return Dataset(
        name=f"folder:{root.resolve().name}",
        location=str(root),
        task=_task(settings.task, class_names),
        class_names=class_names,
        licence=request.spec.licence,
        kind="unknown",
        splits=splits,
        grouping=table.grouping,
        drawn=drawn,
        notes=table.notes,
        warnings=(*passed_over, *warnings, *warnings_about(splits, class_names, table.grouping, drawn=bool(drawn))),
    )


def warnings_about(
    splits: dict[str, Split], class_names: tuple[str, ...], grouping: str | None, *, drawn: bool = False
) -> list[str]:
    """Return the warnings about a user's own images.  drawn: whether we drew the splits."""
    warnings = [NO_GROUPING] if grouping in (None, "file") else []
    if "test" not in splits:
        only = f"no test split, only {', '.join(splits)}: probes are scored on a split called test, or by --test-folds"
        return [*warnings, only]
    test = splits["test"]
    if len(test) < FEW_TEST_IMAGES:
        warnings.append(f"only {counted(len(test), 'test image')}: scores will be uncertain (below {FEW_TEST_IMAGES})")
    images = sum(map(len, splits.values()))
    if drawn and images < FEW_IMAGES:
        warnings.append(
            f"{counted(images, 'image')} without splits of their own: {TEST_BY_FOLDS} tests every one of them"
        )
    if test.labels.ndim == 1:
        absent = [name for label, name in enumerate(class_names) if not (test.labels == label).any()]
        if absent:
            warnings.append(f"no test image of {some(absent)}")
    return warnings


def _find(root: Path, headers: Headers) -> tuple[list[Found], list[str]]:
    """Return all images, ordered by class, and warnings about what was passed over."""
    top = subfolders(root)
    splits = [name for name in top if name.lower() in SPLIT_NAMES]
    if not any(SPLIT_NAMES[name.lower()] == "train" for name in splits):
        splits = []
    others = [name for name in top if name not in splits]
    if splits and any(list_images(root / name, inside=root).images for name in others):
        raise DatasetError(
            f"{root} mixes split folders ({', '.join(splits)}) with others that hold images ({some(others)}). "
            "Expected either split folders or class folders."
        )
    found: list[Found] = []
    ignored: list[str] = []
    objects: list[str] = []
    empty: list[str] = []
    linked = False
    for split in splits or [""]:
        for name in subfolders(root / split):
            place = f"{split}/{name}" if split else name
            listing = list_images(root / place, inside=root, headers=headers)
            linked = linked or listing.linked or (root / place).is_symlink()
            ignored += [f"{place}/{other}" for other in listing.ignored]
            objects += [f"{place}/{other} ({kind})" for other, kind in listing.objects.items()]
            if not listing.images:
                empty.append(name)
            split_name = SPLIT_NAMES.get(split.lower())
            found += [
                Found(f"{place}/{image}", os.path.join(root, place, image), split_name, name)
                for image in listing.images
            ]
    if not found:
        raise _nothing(root)
    found = _once(found) if linked else found
    return _by_class(found), _passed_over(ignored, objects, empty)


def _once(found: list[Found]) -> list[Found]:
    """Return the images without those that a link shows a second time.

    Raises:
        DatasetError: a link shows an image of one class or split in another.
    """
    first: dict[str, Found] = {}
    for image in found:
        known = first.setdefault(os.path.realpath(image.path), image)
        if (known.split, known.class_name) != (image.split, image.class_name):
            raise DatasetError(f"{known.id} and {image.id} are one file, by a link. Expected each image in one place.")
    return list(first.values())


def _by_class(found: list[Found]) -> list[Found]:
    """Return the images with their classes in natural order, whatever split showed a class first."""
    order = {name: rank for rank, name in enumerate(sorted({image.class_name for image in found}, key=natural))}
    return sorted(found, key=lambda image: order[image.class_name])


def _nothing(root: Path) -> DatasetError:
    loose = sum(entry.is_file() for entry in os.scandir(root))
    lying = f" {counted(loose, 'file lies', 'files lie')} directly in it." if loose else ""
    return DatasetError(
        f"No images found in {root}.{lying} Expected class/image.png or train/class/image.png below it."
    )


def _passed_over(ignored: list[str], objects: list[str], empty: list[str]) -> list[str]:
    warnings = []
    if objects:
        were = counted(len(objects), "DICOM object that is not an image was", "DICOM objects that are not images were")
        warnings.append(f"{were} omitted: {some(sorted(objects))}")
    if ignored:
        were = counted(len(ignored), "file that is not an image was", "files that are not images were")
        warnings.append(f"{were} ignored: {some(sorted(ignored))}")
    if empty:
        warnings.append(f"folders without images were ignored: {some(list(dict.fromkeys(empty)))}")
    return warnings


def _split_rows(found: list[Found], table: ImageTable, seed: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the rows of each split: as laid out, or drawn if the folders name no split but train."""
    labels = table.labels
    names = np.array([image.split or "" for image in found])
    laid_out = [name for name in dict.fromkeys(SPLIT_NAMES.values()) if (names == name).any()]
    if laid_out in ([], ["train"]):
        rows, record = draw_splits(table.ids, labels, fractions=FRACTIONS, groups=table.groups, seed=seed)
        return {name: chosen for name, chosen in rows.items() if len(chosen)}, {"splits": record}
    rows = {name: np.flatnonzero(names == name) for name in laid_out}
    untrained = set(labels.tolist()) - set(labels[rows["train"]].tolist()) if "train" in rows else set()
    if untrained:
        example = next(image for image, label in zip(found, labels, strict=True) if label in untrained)
        raise DatasetError(
            f"Unknown class '{example.class_name}' ({example.id}): the train split holds no image of it. "
            "Expected the same class folders in every split."
        )
    return rows, {}


def _task(asked: Task | None, class_names: tuple[str, ...]) -> Task:
    """Return the task: as asked where it fits, else by the number of classes."""
    if asked == "multilabel":
        raise InputError("--task multilabel does not fit folder:, where an image has one class. Use table:CSV.")
    if asked == "binary" and len(class_names) != 2:
        raise InputError(f"--task binary needs two classes, found {len(class_names)}: {some(class_names)}.")
    return asked or ("binary" if len(class_names) == 2 else "multiclass")
