"""Which columns of a table hold the image, the labels and the patient: as named by options, or by common names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mt.datasets.listing import some
from mt.datasets.settings import DatasetSettings
from mt.datasets.tabular.csv_file import TableText, require_columns
from mt.errors import DatasetError, InputError
from mt.types import Texts, distinct

# Names without case, spaces and underscores.
_IMAGE = ("image", "filename", "filepath", "file", "path", "imagepath", "imagename", "imagefile", "img")
_LABEL = ("label", "diagnosis", "class", "target")
# What each column of patients is called among the metadata; of several the first is the group.
_GROUP = {
    "group": "group",
    "patient": "patient",
    "patientid": "patient",
    "subject": "patient",
    "subjectid": "patient",
    "mrn": "patient",
    "case": "patient",
    "caseid": "patient",
    "slideid": "slide",
}
_LOOKS_LIKE_PATIENT = re.compile(
    r"patient|subject|participant|^mrn|^pid$|^pat$|^(pat|pt|subj|person)(nr|no|num|number|id|code)$|^caseid|^casen|^slideid",
    re.ASCII,
)
_BITS = frozenset(("0", "1", "0.0", "1.0", "-1", "-1.0", "true", "false"))
_FIRST = 1000  # values that show what most columns hold
NO_COLUMN = "none"
MISSING_GROUPS = frozenset(("", "na", "n/a", "nan", "none", "null", "<na>", "."))


@dataclass(frozen=True)
class TableColumns:
    """A table whose image column is `image`, and whose only label column, if it names classes, is `label`.

    labels: the columns of labels that options named; empty if `label` or the remaining columns hold them.
    group: the column of patients; grouping: what it is called.
    """

    text: TableText
    labels: tuple[str, ...] = ()
    group: str | None = None
    grouping: str | None = None


def columns_by_role(text: TableText, settings: DatasetSettings, file: Path, reserved: Sequence[str]) -> TableColumns:
    """Return the table with its columns' roles; `reserved` are names that mean something and hold no labels.

    Raises:
        DatasetError: no image column, several that could be it, or a column like a patient that is not used.
        InputError: a column that an option names is not there.
    """
    text = _without_group_names(_in_lower_case(text, reserved), settings)
    text = _named(text, "image", _image_of(text, settings, file))
    labels = tuple(_asked(text, name, "--label-column", file) for name in settings.label_columns)
    if len(labels) == 1:
        text, labels = _named(text, "label", labels[0]), ()
    elif not labels and "label" not in text.columns:
        text = _named(text, "label", _label_of(text, file, reserved))
    group = _group_of(text, settings, file)
    grouping = "patient" if group is not None and group not in reserved else group
    return TableColumns(text, labels, group, grouping)


def own_groups(
    values: Sequence[str], ids: Sequence[str], lines: Sequence[int], file: Path, *, own: bool
) -> Sequence[str]:
    """Return the patients of the rows; with `own`, a row without one is a patient of its own.

    Raises:
        DatasetError: rows without a patient, and not `own`.
    """
    names, code = distinct(values)
    missing = np.flatnonzero(np.array([name.casefold() in MISSING_GROUPS for name in names], dtype=bool)[code]).tolist()
    if missing and not own:
        where = some([str(lines[row]) for row in missing])
        raise DatasetError(
            f"{file}: {len(missing):,} of {len(values):,} rows name no patient or group, line {where}. "
            "Fill them in, or make each a patient of its own: --missing-group own"
        )
    if not missing:
        return values
    named = (f"row:{ids[row]}" if value.casefold() in MISSING_GROUPS else value for row, value in enumerate(values))
    return Texts.of(named)


def plain_name(name: str) -> str:
    """Return a column's name without case, spaces, underscores, hyphens and dots."""
    return re.sub(r"[\s_\-.]", "", name).casefold()


def _in_lower_case(text: TableText, reserved: Sequence[str]) -> TableText:
    """Return the table with reserved names in lower case, and without nameless columns."""
    columns = {name.casefold() if name.casefold() in reserved else name: v for name, v in text.columns.items() if name}
    return replace(text, columns=columns)


def _without_group_names(text: TableText, settings: DatasetSettings) -> TableText:
    """Return the table with its columns of patients called as the metadata is: the first of each kind."""
    taken = set(text.columns)
    renamed: dict[str, Sequence[str]] = {}
    asked = settings.group_column and plain_name(settings.group_column)
    for name, values in text.columns.items():
        kind = _GROUP.get(plain_name(name))
        free = kind is not None and kind not in taken and asked != plain_name(name)
        renamed[kind if free and kind else name] = values
        taken |= {kind} if free and kind else set()
    return replace(text, columns=renamed)


def _named(text: TableText, role: str, column: str | None) -> TableText:
    """Return the table with one column under the name of its role, instead of any that has that name."""
    if column is None or column == role:
        return text
    others = {name: values for name, values in text.columns.items() if name != role}
    return replace(text, columns={role if name == column else name: values for name, values in others.items()})


def _asked(text: TableText, name: str, option: str, file: Path) -> str:
    """Return the column that an option names, whatever its case, spaces and underscores."""
    if name in text.columns:
        return name
    found = [column for column in text.columns if plain_name(column) == plain_name(name)]
    if len(found) != 1:
        raise InputError(f"{option} {name}: {file} has no such column. Found: {', '.join(text.columns)}.")
    return found[0]


def _image_of(text: TableText, settings: DatasetSettings, file: Path) -> str:
    if settings.image_column is not None:
        return _asked(text, settings.image_column, "--image-column", file)
    if "image" in text.columns:
        return "image"
    found = [name for name in text.columns if plain_name(name) in _IMAGE]
    if not found:
        require_columns(list(text.columns), ["image"], file)
    if len(found) > 1:
        raise DatasetError(f"{file}: {' and '.join(found)} could name the images. Choose: --image-column {found[0]}")
    return found[0]


def _label_of(text: TableText, file: Path, reserved: Sequence[str]) -> str | None:
    """Return the column of class names; None if each remaining column holds the zeros and ones of one label."""
    others = {name: values for name, values in text.columns.items() if name not in reserved}
    found = [name for name in others if plain_name(name) in _LABEL]
    if not found or all(_are_bits(values) for values in others.values()):
        return None
    if len(found) > 1:
        raise DatasetError(f"{file}: {' and '.join(found)} could be the label. Choose: --label-column {found[0]}")
    return found[0]


def _are_bits(values: Sequence[str]) -> bool:
    first = values[:_FIRST]
    return all(_is_bit(value) for value in first) and all(_is_bit(value) for value in distinct(values)[0])


def _is_bit(value: str) -> bool:
    return value.casefold() in _BITS or value.casefold() in MISSING_GROUPS


def _group_of(text: TableText, settings: DatasetSettings, file: Path) -> str | None:
    if settings.group_column == NO_COLUMN or settings.group_regex is not None:
        return None
    if settings.group_column is not None:
        return _asked(text, settings.group_column, "--group-column", file)
    for name in ("group", "patient"):
        if name in text.columns:
            return name
    _refuse_unused_patients(text.columns, settings, file)
    return "slide" if "slide" in text.columns else None


def _refuse_unused_patients(columns: Mapping[str, Sequence[str]], settings: DatasetSettings, file: Path) -> None:
    """Refuse a column that looks like a patient, unless an option names it as a label."""
    labels = {plain_name(name) for name in settings.label_columns}
    for name in columns:
        if _LOOKS_LIKE_PATIENT.search(plain_name(name)) and plain_name(name) not in labels:
            raise DatasetError(
                f"{file}: column '{name}' looks like a patient and is not used. "
                f"Use it: --group-column '{name}', or pass --group-column none"
            )
