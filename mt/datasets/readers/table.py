"""`table:CSV`: one's own images, listed in a CSV with their labels, and optionally splits, groups and metadata."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mt.datasets.base import METADATA, Dataset
from mt.datasets.grouping import groups_by_regex
from mt.datasets.listing import contained, some
from mt.datasets.readers.csv_file import read_csv
from mt.datasets.readers.folder import FRACTIONS, SPLIT_NAMES, warnings_about
from mt.datasets.readers.image_table import ImageTable, found_images, splits_of
from mt.datasets.readers.table_labels import Labels, label_column, label_columns
from mt.datasets.registry import DatasetRequest
from mt.datasets.splitting import draw_splits
from mt.errors import DatasetError

_RESERVED = ("image", "label", "split", "group", *METADATA)


def load(request: DatasetRequest) -> Dataset:
    """Return the images that a CSV lists: columns `image` and `label`, or one 0/1 column a label.

    Optional columns: `split` (train, val, test), `group` (else `patient` is the group), and metadata that travels
    along.  A relative path starts at the CSV's folder and may not lead out of it; an absolute one is taken as it is.
    Without splits, a stratified 80/20 that keeps groups together is drawn with the seed.
    """
    file = Path(request.argument).expanduser().absolute()
    columns = {name.casefold() if name.casefold() in _RESERVED else name: values
               for name, values in read_csv(file, ["image"]).items() if name}  # fmt: skip
    images = columns["image"]
    empty = [str(line) for line, image in enumerate(images, start=2) if not image]
    if empty:
        raise DatasetError(f"{file}: no image named in line {some(empty)}.")
    labels = _labels(request, file, columns)
    ids = _ids(images)
    paths, warnings = found_images(request, ids, _existing(file, images, ids), where=file.parent)
    groups, grouping = _groups(request, file, columns, ids)
    rows, drawn = _split_rows(file, columns.get("split"), ids, labels.values, groups, request.settings.seed)
    if "train" in rows:
        labels.refuse_untrained(file, rows["train"])
    metadata = {name: columns[name] for name in METADATA if name in columns}
    table = ImageTable(ids, labels.values, paths, groups, metadata, request.settings.decoding)
    splits = splits_of(table, rows)
    return Dataset(
        name=f"table:{file.stem}",
        location=str(file),
        task=labels.task,
        class_names=labels.class_names,
        licence=request.spec.licence,
        kind="photo",
        splits=splits,
        grouping=grouping,
        drawn=drawn,
        notes=table.notes,
        warnings=(*warnings, *labels.warnings, *warnings_about(splits, labels.class_names)),
    )


def _labels(request: DatasetRequest, file: Path, columns: dict[str, list[str]]) -> Labels:
    if "label" in columns:
        unused = [name for name in columns if name not in _RESERVED]
        return label_column(file, columns["label"], request.settings.task, unused)
    named = {name: values for name, values in columns.items() if name not in _RESERVED}
    if not named:
        found = ", ".join(columns)
        raise DatasetError(f"{file} lacks the column 'label' (or one column of 0 and 1 a label). Found: {found}.")
    return label_columns(file, named, request.settings.task)


def _ids(images: Sequence[str]) -> list[str]:
    """Return the paths as written, but without the folder that absolute ones share: content, not places, is hashed."""
    absolute = [image for image in images if os.path.isabs(image)]
    if not absolute:
        return [os.path.normpath(image) for image in images]
    shared = os.path.commonpath([os.path.dirname(image) for image in absolute])
    return [os.path.relpath(image, shared) if os.path.isabs(image) else os.path.normpath(image) for image in images]


def _existing(file: Path, images: Sequence[str], ids: Sequence[str]) -> dict[str, str]:
    """Return the path of each image that exists, by id; folders are listed once each.

    Raises:
        DatasetError: a relative path or a link that leads out of the CSV's folder.
    """
    here: dict[str, str] = {}
    listings: dict[str, dict[str, bool]] = {}
    for image, id_ in zip(images, ids, strict=True):
        path = os.path.normpath(os.path.join(file.parent, image))
        folder, name = os.path.split(path)
        if folder not in listings:
            if not os.path.isabs(image) and not contained(folder, inside=file.parent):
                raise DatasetError(f"{file}: '{image}' leads out of {file.parent}. Write an absolute path to mean it.")
            listings[folder] = _links(folder)
        linked = listings[folder].get(name)
        if linked and not os.path.isabs(image) and not contained(path, inside=file.parent):
            raise DatasetError(f"{file}: '{image}' is a link that leads out of {file.parent}. Copy the image there.")
        if linked is not None:
            here[id_] = path
    return here


def _links(folder: str) -> dict[str, bool]:
    """Return the names in a folder, and whether each is a link; nothing where there is no such folder."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name: entry.is_symlink() for entry in entries}
    except (FileNotFoundError, NotADirectoryError):
        return {}


def _groups(
    request: DatasetRequest, file: Path, columns: dict[str, list[str]], ids: list[str]
) -> tuple[list[str] | None, str | None]:
    """Return the groups and what they are: `--group-regex` on the path, else `group`, else `patient`, else none."""
    if request.settings.group_regex is not None:
        return groups_by_regex(ids, request.settings.group_regex), "patient"
    for name in ("group", "patient"):
        if name in columns:
            empty = [str(line) for line, value in enumerate(columns[name], start=2) if not value]
            if empty:
                raise DatasetError(f"{file}: no {name} in line {some(empty)}. Give every row one, or drop the column.")
            return columns[name], name
    return None, None


def _split_rows(
    file: Path, values: list[str] | None, ids: list[str], labels: np.ndarray, groups: list[str] | None, seed: int
) -> tuple[dict[str, np.ndarray], dict[str, object]]:
    """Return the rows of each split: as the column says; drawn where there is none, or where it only says train."""
    for line, value in enumerate(values or (), start=2):
        if value.casefold() not in SPLIT_NAMES:
            raise DatasetError(f"{file}, line {line}: unknown split '{value}', expected train, val or test.")
    named = np.array([SPLIT_NAMES[value.casefold()] for value in values or ()])
    if set(named) <= {"train"}:
        rows, record = draw_splits(ids, labels, fractions=FRACTIONS, groups=groups, seed=seed)
        return {name: chosen for name, chosen in rows.items() if len(chosen)}, {"splits": record}
    laid_out = dict.fromkeys(SPLIT_NAMES.values())
    return {name: np.flatnonzero(named == name) for name in laid_out if (named == name).any()}, {}
