"""The labels of a table: a column of class names, or one column of zeros and ones per label; some may be missing."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from mt.cache.feature_file.rows import is_unlabelled
from mt.datasets.listing import natural, some
from mt.datasets.settings import DatasetSettings
from mt.datasets.tabular.column_roles import TableColumns
from mt.errors import DatasetError, InputError
from mt.types import MISSING, Task, distinct

# Between the labels of one image where `--task multilabel` reads a single column.
SEPARATOR = "|"
_BIT = {"0": 0, "1": 1, "false": 0, "true": 1}
# How libraries write a value that is not there; pandas reads all of these so.
_NOTHING = frozenset(("", "nan", "NaN", "NAN", "<NA>", "NA", "N/A", "n/a", "#N/A", "NULL", "null", "None", "."))
_DECIMAL = re.compile(r"[-+]?\d*[.,]\d+(e[-+]?\d+)?", re.IGNORECASE | re.ASCII)
_NUMBER = re.compile(r"[-+]?(0|[1-9]\d*)([.,]\d+)?", re.ASCII)
_MEASUREMENTS = 20  # a column with at least this many different numbers, most with decimals, holds no classes
_Cell = Literal["blank", "uncertain"]


@dataclass(frozen=True)
class Labels:
    """Label values (n,) or (n, L) and what they mean; a label that is missing is `MISSING`."""

    values: np.ndarray
    class_names: tuple[str, ...]
    task: Task
    warnings: tuple[str, ...] = ()

    def refuse_untrained(self, file: Path, train: np.ndarray) -> None:
        """Raise if a class appears only outside the train split."""
        if self.values.ndim == 2 or self.task == "ordinal":
            return
        untrained = np.setdiff1d(self.values[self.values != MISSING], self.values[train])
        if len(untrained):
            raise DatasetError(f"{file}: unknown label '{self.class_names[untrained[0]]}': no train row has it.")


@dataclass(frozen=True)
class LabelCells:
    """The label columns of a table as written, the lines they are on, and the settings that say what they mean."""

    file: Path
    columns: Mapping[str, Sequence[str]]
    lines: Sequence[int]
    settings: DatasetSettings
    unused: Sequence[str] = field(default=())

    def read(self) -> Labels:
        """Return the labels, of one column `label` or of one column per label."""
        return label_column(self) if "label" in self.columns else label_columns(self)


def labels_of(columns: TableColumns, file: Path, settings: DatasetSettings, reserved: Sequence[str]) -> Labels:
    """Return the labels of a table whose columns have their roles; `reserved` are names that hold no labels.

    Raises:
        DatasetError: no column of labels, or one that cannot be read.
    """
    text = columns.text
    others = {n: values for n, values in text.columns.items() if n not in reserved and n != columns.group}
    if columns.labels:
        named = {name: text.columns[name] for name in columns.labels}
        return LabelCells(file, named, text.lines, settings).read()
    if "label" in text.columns:
        named = {"label": text.columns["label"]}
        return LabelCells(file, named, text.lines, settings, unused=list(others)).read()
    if not others:
        found = ", ".join(text.columns)
        raise DatasetError(f"{file} lacks the column 'label' (or one column of 0 and 1 per label). Found: {found}.")
    return LabelCells(file, others, text.lines, settings).read()


def label_column(cells: LabelCells) -> Labels:
    """Return the labels of the column `label`: two classes are binary, more multiclass, unless `--task` says otherwise.

    Ordinal labels are whole numbers, and all grades between the smallest and the largest are declared.  A row without
    a label is `MISSING`.
    """
    file, task, column = cells.file, cells.settings.task, cells.columns["label"]
    warnings = (f"columns not used: {some(cells.unused, 8)}",) if cells.unused else ()
    if task == "multilabel":
        return _separated(column, warnings)
    written, code = distinct(column)
    values = _present(cells, written, code)
    there = [value for value in values if value is not None]
    _refuse_regression(file, there)
    spelled = _spelled_once(there)
    names = _grades(cells, values, code) if task == "ordinal" else sorted(set(spelled.values()), key=natural)
    if task == "binary" and len(names) != 2:
        raise InputError(f"--task binary needs two classes, '{file}' has {len(names)}: {some(names)}.")
    number = {name: label for label, name in enumerate(names)}
    if task == "ordinal":
        spelled = {value: _whole(name) for value, name in spelled.items()}
    label_of = [MISSING if value is None else number[spelled[value]] for value in values]
    labels = np.array(label_of, dtype=np.int64)[code]
    task = task or ("binary" if len(names) == 2 else "multiclass")
    return Labels(labels, tuple(names), task, (*warnings, *unlabelled(labels)))


def label_columns(cells: LabelCells) -> Labels:
    """Return the labels of one 0/1 column per label: multilabel; a single column is binary.

    With `--task multiclass` (or binary, of two columns) exactly one column per row must hold the 1.  Labels that are
    ignored are `MISSING`.
    """
    file, task, names = cells.file, cells.settings.task, tuple(cells.columns)
    bits = _bits(cells)
    if len(names) == 1:
        if task not in (None, "binary"):
            raise InputError(f"--task {task} does not fit '{file}', which has the single 0/1 column '{names[0]}'.")
        labels = bits[:, 0].astype(np.int64)
        return Labels(labels, (f"not {names[0]}", names[0]), "binary", unlabelled(labels))
    known = np.flatnonzero(~is_unlabelled(bits))
    if not len(known):
        raise DatasetError(f"{file}: none of its {len(bits):,} rows has a label. Expected 0 or 1 in {some(names)}.")
    if task in (None, "multilabel"):
        missing = int((bits[known] == MISSING).sum())
        masked = (f"{missing:,} of {bits[known].size:,} labels are missing: ignored where they are",) if missing else ()
        return Labels(bits, names, "multilabel", (*unlabelled(bits), *masked))
    if (bits[known] == MISSING).any():
        raise InputError(f"--task {task} does not fit '{file}': labels are missing. Use --uncertain 0 and --blank 0.")
    wrong = known[bits[known].sum(axis=1) != 1]
    if len(wrong) or (task == "binary" and len(names) != 2):
        line = f"; line {cells.lines[wrong[0]]} has {bits[wrong[0]].sum()}" if len(wrong) else ""
        raise InputError(
            f"--task {task} does not fit the {len(names)} label columns of '{file}': expected one 1 per row{line}."
        )
    labels = np.full(len(bits), MISSING, dtype=np.int64)
    labels[known] = bits[known].argmax(axis=1)
    return Labels(labels, names, task, unlabelled(labels))


def _spelled_once(values: Sequence[str]) -> dict[str, str]:
    """Return one spelling of each number, the shortest: `0` and `0.0` are one class, `01` is a code."""
    spelled: dict[float, str] = {}
    for name in sorted(set(values), key=lambda name: (len(name), "," in name, name)):
        if _NUMBER.fullmatch(name):
            spelled.setdefault(_as_number(name), name)
    return {value: spelled[_as_number(value)] if _NUMBER.fullmatch(value) else value for value in values}


def _as_number(text: str) -> float:
    return float(text.replace(",", "."))


def _refuse_regression(file: Path, values: Sequence[str]) -> None:
    """Refuse a column of measurements, of which each value would become a class."""
    distinct = set(values)
    decimals = [value for value in distinct if _DECIMAL.fullmatch(value) and _whole(value) == value]
    if len(distinct) >= _MEASUREMENTS and 2 * len(decimals) > len(distinct):
        raise DatasetError(
            f"{file}: column 'label' holds {len(distinct)} numbers with decimals, such as {decimals[0]}: a regression, "
            "which mt does not do. Expected classes: cut the numbers into a few, and name these."
        )


def unlabelled(labels: np.ndarray) -> tuple[str, ...]:
    """Return the line that counts the rows without a label; nothing if each row has one."""
    count = int(is_unlabelled(labels).sum())
    return (f"{count:,} of {len(labels):,} rows have no label: kept, outside every budget and score",) if count else ()


def _present(cells: LabelCells, written: Sequence[str], code: np.ndarray) -> list[str | None]:
    """Return the class name that each distinct text stands for, None for no label.

    written: the texts in the order of their first row; code: which of them each row has.
    """
    file, settings = cells.file, cells.settings
    kinds = [_kind(value) for value in written]
    present = {_whole(value) for value, kind in zip(written, kinds, strict=True) if kind != "blank"}
    if present == {"-1", "0", "1"} and settings.uncertain is None and settings.task is None:
        line = _first_line(cells, code == kinds.index("uncertain"))
        raise DatasetError(
            f"{file}: column 'label' holds -1 (line {line}) beside 0 and 1. Choose what it means: --uncertain ignore, "
            "0 or 1, or --task multiclass where it is a class."
        )
    meaning: dict[_Cell, str | None] = {"blank": settings.blank, "uncertain": settings.uncertain}
    read: list[str | None] = []
    for value, kind in zip(written, kinds, strict=True):
        asked = meaning.get(kind) if kind is not None else None
        if asked is None:
            read.append(None if kind == "blank" else value)
        else:
            read.append(None if asked == "ignore" else _as_written(asked, written))
    if all(value is None for value in read):
        raise DatasetError(f"{file}: none of its {len(code):,} rows has a label. Expected at least two classes.")
    return read


def _first_line(cells: LabelCells, rows: np.ndarray) -> int:
    """Return the line of the first of some rows."""
    return cells.lines[int(np.argmax(rows))]


def _as_written(number: str, values: Sequence[str]) -> str:
    """Return 0 or 1 as the column writes it: `0`, or `0.0`."""
    return next((value for value in values if _whole(value) == number), number)


def _kind(value: str) -> _Cell | None:
    if value in _NOTHING:
        return "blank"
    return "uncertain" if _whole(value) == "-1" else None


def _separated(column: Sequence[str], warnings: tuple[str, ...]) -> Labels:
    written, code = distinct(column)
    found = [[name.strip() for name in value.split(SEPARATOR) if name.strip()] for value in written]
    names = sorted({name for row in found for name in row}, key=natural)
    place = {name: number for number, name in enumerate(names)}
    bits = np.zeros((len(written), len(names)), dtype=np.int8)
    for row, labels in enumerate(found):
        bits[row, [place[name] for name in labels]] = 1
    return Labels(bits[code], tuple(names), "multilabel", warnings)


def _grades(cells: LabelCells, values: Sequence[str | None], code: np.ndarray) -> list[str]:
    there = [value for value in values if value is not None]
    for value in there:
        if not _whole(value).isdecimal():
            line = _first_line(cells, code == values.index(value))
            raise DatasetError(
                f"{cells.file}, line {line}: unknown label '{value}', expected a whole number (ordinal)."
            )
    grades = sorted({int(_whole(value)) for value in there})
    return [str(grade) for grade in range(grades[0], grades[-1] + 1)]


def _bits(cells: LabelCells) -> np.ndarray:
    """Return (n, L) zeros and ones, and `MISSING` where a label is ignored.

    Raises:
        DatasetError: -1 or, among several columns, nothing in a cell, and no setting says what it means; or anything
            else.
    """
    blank = cells.settings.blank or ("ignore" if len(cells.columns) == 1 else None)
    meaning: dict[_Cell, str | None] = {"blank": blank, "uncertain": cells.settings.uncertain}
    bits = np.zeros((len(cells.lines), len(cells.columns)), dtype=np.int8)
    asked: dict[_Cell, list[tuple[int, str]]] = {}
    for place, (name, column) in enumerate(cells.columns.items()):
        written, code = distinct(column)
        stands_for = np.zeros(len(written), dtype=np.int8)
        for number, value in enumerate(written):
            kind = _kind(value)
            if kind is None:
                stands_for[number] = _bit(cells, code == number, name, value)
            elif meaning[kind] is None:
                rows = np.flatnonzero(code == number).tolist()
                asked.setdefault(kind, []).extend((cells.lines[row], name) for row in rows)
            else:
                stands_for[number] = MISSING if meaning[kind] == "ignore" else int(meaning[kind] or 0)
        bits[:, place] = stands_for[code]
    if asked:
        raise DatasetError(f"{cells.file}: {' '.join(_question(kind, places) for kind, places in asked.items())}")
    return bits


def _question(kind: _Cell, places: list[tuple[int, str]]) -> str:
    what, choices = {
        "uncertain": ("cells of -1 (uncertain)", "--uncertain ignore, 0 or 1"),
        "blank": ("empty label cells", "--blank ignore or 0"),
    }[kind]
    line, column = min(places)
    return f"{len(places):,} {what}, first in line {line}, column '{column}'. Choose what they mean: {choices}."


def _bit(cells: LabelCells, rows: np.ndarray, name: str, value: str) -> int:
    known = _BIT.get(_whole(value).casefold())
    if known is None:
        raise DatasetError(
            f"{cells.file}, line {_first_line(cells, rows)}: unknown label '{value}' in column '{name}', expected 0 or "
            "1 (or one column named 'label' with class names)."
        )
    return known


def _whole(value: str) -> str:
    """Return a whole number without its decimals (`1.0`, `1,00`), anything else as it is."""
    head, _, decimals = value.replace(",", ".").partition(".")
    return head if decimals and not decimals.strip("0") and head.lstrip("-").isdecimal() else value
