"""The labels of a table: a column of class names, or one column of zeros and ones a label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mt.datasets.listing import natural, some
from mt.errors import DatasetError, InputError
from mt.types import Task

# Between the labels of one image where `--task multilabel` reads a single column.
SEPARATOR = "|"
_BIT = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}


@dataclass(frozen=True)
class Labels:
    """Label values (n,) or (n, L), and what they mean."""

    values: np.ndarray
    class_names: tuple[str, ...]
    task: Task
    warnings: tuple[str, ...] = ()

    def refuse_untrained(self, file: Path, train: np.ndarray) -> None:
        """Raise where a class appears outside train only."""
        if self.values.ndim == 2 or self.task == "ordinal":
            return
        untrained = np.setdiff1d(self.values, self.values[train])
        if len(untrained):
            raise DatasetError(f"{file}: unknown label '{self.class_names[untrained[0]]}': no train row has it.")


def label_column(file: Path, values: Sequence[str], task: Task | None, unused: Sequence[str]) -> Labels:
    """Return the labels of the column `label`: two classes are binary, more multiclass, unless `--task` says otherwise.

    Ordinal labels are whole numbers, and all grades between the smallest and the largest are declared.
    """
    warnings = (f"columns not used: {some(unused, 8)}",) if unused else ()
    if task == "multilabel":
        return _separated(values, warnings)
    empty = [str(line) for line, value in enumerate(values, start=2) if not value]
    if empty:
        raise DatasetError(f"{file}: no label in line {some(empty)}.")
    names = _grades(file, values) if task == "ordinal" else sorted(set(values), key=natural)
    if task == "binary" and len(names) != 2:
        raise InputError(f"--task binary needs two classes, '{file}' has {len(names)}: {some(names)}.")
    number = {name: label for label, name in enumerate(names)}
    return Labels(
        np.array([number[value] for value in values], dtype=np.int64),
        tuple(names),
        task or ("binary" if len(names) == 2 else "multiclass"),
        warnings,
    )


def label_columns(file: Path, columns: Mapping[str, Sequence[str]], task: Task | None) -> Labels:
    """Return the labels of one 0/1 column a label: multilabel; a single column is binary.

    With `--task multiclass` (or binary, of two columns) exactly one column a row must hold the 1.
    """
    names = tuple(columns)
    bits = np.array([_bits(file, name, values) for name, values in columns.items()], dtype=np.int8).T
    if len(names) == 1:
        if task not in (None, "binary"):
            raise InputError(f"--task {task} does not fit '{file}', which has the single 0/1 column '{names[0]}'.")
        return Labels(bits[:, 0].astype(np.int64), (f"not {names[0]}", names[0]), "binary")
    if task in (None, "multilabel"):
        return Labels(bits, names, "multilabel")
    wrong = np.flatnonzero(bits.sum(axis=1) != 1)
    if len(wrong) or (task == "binary" and len(names) != 2):
        line = f"; line {wrong[0] + 2} has {bits[wrong[0]].sum()}" if len(wrong) else ""
        raise InputError(f"--task {task} does not fit the {len(names)} label columns of '{file}': one 1 a row{line}.")
    return Labels(bits.argmax(axis=1).astype(np.int64), names, task)


def _separated(values: Sequence[str], warnings: tuple[str, ...]) -> Labels:
    found = [[name.strip() for name in value.split(SEPARATOR) if name.strip()] for value in values]
    names = sorted({name for row in found for name in row}, key=natural)
    column = {name: number for number, name in enumerate(names)}
    bits = np.zeros((len(values), len(names)), dtype=np.int8)
    for row, labels in enumerate(found):
        bits[row, [column[name] for name in labels]] = 1
    return Labels(bits, tuple(names), "multilabel", warnings)


def _grades(file: Path, values: Sequence[str]) -> list[str]:
    for line, value in enumerate(values, start=2):
        if not value.isdecimal():
            raise DatasetError(f"{file}, line {line}: unknown label '{value}', expected a whole number (ordinal).")
    grades = sorted({int(value) for value in values})
    return [str(grade) for grade in range(grades[0], grades[-1] + 1)]


def _bits(file: Path, name: str, values: Sequence[str]) -> list[int]:
    for line, value in enumerate(values, start=2):
        if value.casefold() not in _BIT:
            raise DatasetError(
                f"{file}, line {line}: unknown label '{value}' in column '{name}', expected 0 or 1 "
                "(or one column named 'label' with class names)."
            )
    return [_BIT[value.casefold()] for value in values]
