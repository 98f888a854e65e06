"""`table:CSV`: one's own images, listed in a table with their labels, and optionally splits, groups and metadata."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from mt.cache.content import ContentIndex
from mt.datasets.base import METADATA, Dataset
from mt.datasets.dicom.headers import Headers
from mt.datasets.grouping import groups_by_regex
from mt.datasets.listing import contained, some
from mt.datasets.patients import numbered, patients_of_values
from mt.datasets.readers.folder import FRACTIONS, SPLIT_NAMES, warnings_about
from mt.datasets.readers.image_table import ImageTable, absent_warnings, by_frame, splits_of, with_headers
from mt.datasets.registry import DatasetRequest
from mt.datasets.settings import DatasetSettings
from mt.datasets.splitting import draw_splits
from mt.datasets.tabular.column_roles import TableColumns, columns_by_role, own_groups
from mt.datasets.tabular.csv_file import TableText
from mt.datasets.tabular.sheets import read_table
from mt.datasets.tabular.table_labels import labels_of
from mt.errors import DatasetError, InputError
from mt.types import Prefixed, Texts, distinct

_RESERVED = ("image", "label", "split", "group", *METADATA)


def load(request: DatasetRequest) -> Dataset:
    """Return the images that a table lists: columns `image` and `label`, or one 0/1 column per label.

    Common names (`filename`, `diagnosis`) are recognised, options name others.  Optional columns: `split` (train, val,
    test), `group` (else `patient`, `subject`, `case_id`, ... is the group, else the PatientID of DICOM files), and
    metadata that travels along.  A relative path starts at the table's folder and may not lead out of it; an absolute
    one is taken as it is.  Without splits, a stratified 80/20 that keeps groups together is drawn with the seed.
    """
    file = Path(request.argument).expanduser().absolute()
    index, settings = request.index or ContentIndex(), request.settings
    columns = columns_by_role(read_table(file, separator=settings.separator), settings, file, _RESERVED)
    text = columns.text
    images = text.columns["image"]
    if "" in images:
        empty = [str(line) for line, image in zip(text.lines, images, strict=True) if not image]
        raise DatasetError(f"{file}: no image named in line {some(empty)}.")
    labels = labels_of(columns, file, settings, _RESERVED)
    table, absent = _image_table(request, file, replace(columns, text=text), labels.values)
    headers = Headers(index, settings.columns)
    table, warnings = with_headers(table, headers)
    names = text.columns.get("split")
    if settings.frame == "all":
        table, source = by_frame(table, headers, index)
        labels = replace(labels, values=table.labels)
        names = None if names is None else Texts.of(names)[source]
    _refuse_unknown_splits(file, text)
    rows, drawn = _split_rows(names, table, settings.seed)
    if "train" in rows:
        labels.refuse_untrained(file, rows["train"])
    splits = splits_of(table, rows)
    notes = (*text.notes, *absent, *labels.warnings, *warnings)
    return Dataset(
        name=f"table:{file.stem}",
        location=str(file),
        task=labels.task,
        class_names=labels.class_names,
        licence=request.spec.licence,
        kind="unknown",
        splits=splits,
        grouping=table.grouping,
        drawn=drawn,
        notes=table.notes,
        warnings=(*notes, *warnings_about(splits, labels.class_names, table.grouping, drawn=bool(drawn))),
    )


def _image_table(
    request: DatasetRequest, file: Path, columns: TableColumns, labels: np.ndarray
) -> tuple[ImageTable, list[str]]:
    """Return the rows with their files, groups and metadata, and warnings about files that are not there."""
    settings, text = request.settings, columns.text
    images = _slashed(Texts.of(text.columns["image"]), file.parent)
    ids, shared = _ids(images)
    paths = _paths(file, images, ids, shared)
    mend = "Correct the paths, which are relative to that folder"
    warnings = absent_warnings(request, ids, paths, where=file.parent, mend=mend)
    groups, grouping = _groups(settings, file, columns, ids)
    metadata = {name: text.columns[name] for name in METADATA if name in text.columns}
    hidden = None
    if settings.hash_groups:
        people = next((text.columns[n] for n in ("patient", columns.group) if n and n in text.columns), None)
        if people is None or groups is None:
            raise InputError(f"--hash-groups needs a column 'patient' or 'group' in {file}.")
        hidden, groups = patients_of_values(ids, people), numbered(groups)
        metadata.pop("patient", None)
    table = ImageTable(ids, labels, paths, groups, metadata, settings.decoding, grouping, hidden)
    return table, warnings


def _slashed(images: Texts, folder: Path) -> Texts:
    """Return paths with the slashes of this system: Windows' are replaced, unless a file has them in its name."""
    if b"\\" not in images.encoded.tobytes():
        return images
    return images.mapped(lambda image: image if os.path.lexists(folder / image) else image.replace("\\", "/"))


def _ids(images: Texts) -> tuple[Texts, str]:
    """Return the paths as written, but without the folder that absolute ones share; and that folder, with its slash.

    Content, not places, is hashed.
    """
    absolute = np.char.startswith(images.encoded, b"/")
    if not absolute.any():
        return images.mapped(os.path.normpath), ""
    folders = {os.path.dirname(image) for image in images[absolute]}
    shared = os.path.normpath(os.path.commonpath(folders)).rstrip("/") + "/"

    def id_of(image: str) -> str:
        plain = os.path.normpath(image)
        if not os.path.isabs(plain):
            return plain
        return plain[len(shared) :] if plain.startswith(shared) else os.path.relpath(plain, shared)

    return images.mapped(id_of), shared


def _paths(file: Path, images: Texts, ids: Texts, shared: str) -> Sequence[str | None]:
    """Return the path of each image, None where it does not exist; folders are listed once each.

    Raises:
        DatasetError: a relative path or a link that leads out of the CSV's folder.
    """
    absolute = np.char.startswith(images.encoded, b"/") if shared else np.zeros(len(images), dtype=bool)
    home = os.fspath(file.parent)
    if (absolute.any() and not absolute.all()) or np.char.startswith(ids.encoded, b"..").any():
        paths = Prefixed("", images.mapped(lambda image: os.path.normpath(os.path.join(home, image))))
    else:
        paths = Prefixed(shared or home.rstrip("/") + "/", ids)
    names, folders, of_folder = _by_folder(paths)
    is_there = np.zeros(len(images), dtype=bool)
    for folder, rows in zip(folders, of_folder, strict=True):
        relative = rows[~absolute[rows]]
        if len(relative) and not contained(folder, inside=file.parent):
            image = images[int(relative[0])]
            raise DatasetError(f"{file}: '{image}' leads out of {file.parent}. Write an absolute path to mean it.")
        listed = _links(folder)
        is_there[rows] = [name in listed for name in names[rows]]
        for row in relative.tolist() if any(listed.values()) else ():
            if listed.get(names[row]) and not contained(paths[row], inside=file.parent):
                image = images[row]
                raise DatasetError(
                    f"{file}: '{image}' is a link that leads out of {file.parent}. Copy the image there."
                )
    if is_there.all():
        return paths
    return [path if exists else None for path, exists in zip(paths, is_there.tolist(), strict=True)]


def _by_folder(paths: Prefixed) -> tuple[Texts, list[str], list[np.ndarray]]:
    """Return the name of each file in its folder, the folders, and the rows of each."""
    number: dict[str, int] = {}
    code = array("q")

    def named() -> Iterator[str]:
        for path in paths:
            folder, _, name = path.rpartition("/")
            code.append(number.setdefault(folder or "/", len(number)))
            yield name

    names, folder_of = Texts.of(named()), np.array(code)
    order = np.argsort(folder_of, kind="stable")
    return names, list(number), np.split(order, np.cumsum(np.bincount(folder_of))[:-1])


def _links(folder: str) -> dict[str, bool]:
    """Return the names in a folder, and whether each is a link; nothing where there is no such folder."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name: entry.is_symlink() for entry in entries}
    except (FileNotFoundError, NotADirectoryError):
        return {}


def _groups(
    settings: DatasetSettings, file: Path, columns: TableColumns, ids: Texts
) -> tuple[Sequence[str] | None, str | None]:
    """Return the groups and what they are: `--group-regex` on the path, else the table's column, else none."""
    if settings.group_regex is not None:
        return groups_by_regex(ids, settings.group_regex), "patient"
    if columns.group is None:
        return None, None
    text, own = columns.text, settings.missing_group == "own"
    return own_groups(text.columns[columns.group], ids, text.lines, file, own=own), columns.grouping


def _refuse_unknown_splits(file: Path, text: TableText) -> None:
    values, code = distinct(text.columns.get("split", ()))
    for number, value in enumerate(values):
        if value.casefold() not in SPLIT_NAMES:
            line = text.lines[int(np.argmax(code == number))]
            raise DatasetError(f"{file}, line {line}: unknown split '{value}', expected train, val or test.")


def _split_rows(
    column: Sequence[str] | None, table: ImageTable, seed: int
) -> tuple[dict[str, np.ndarray], dict[str, object]]:
    """Return the rows of each split: as the column says, or drawn if there is no column or it only says train."""
    values, code = distinct(column or ())
    named = [SPLIT_NAMES[value.casefold()] for value in values]
    if set(named) <= {"train"}:
        rows, record = draw_splits(table.ids, table.labels, fractions=FRACTIONS, groups=table.groups, seed=seed)
        return {name: chosen for name, chosen in rows.items() if len(chosen)}, {"splits": record}
    laid_out = dict.fromkeys(SPLIT_NAMES.values())
    parts = {name: np.array([one == name for one in named])[code] for name in laid_out}
    return {name: np.flatnonzero(there) for name, there in parts.items() if there.any()}, {}
