"""The tables that describe the cases: `--labels`, the table that `mt cache export` wrote, or a file's own columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mt.datasets.tabular.column_roles import plain_name
from mt.datasets.tabular.csv_file import TableText
from mt.datasets.tabular.sheets import read_table
from mt.errors import InputError
from mt.importing.parts import SourceFile, named_split
from mt.importing.readers.matrix import as_text
from mt.importing.readers.numpy_files import load_npy
from mt.importing.request import ImportRequest
from mt.terminal.spreadsheet import as_written

# Columns that name the cases, in lower case without spaces and punctuation; the first that exists is used.
_IDS = (
    "id",
    "slideid",
    "slide",
    "wsi",
    "imageid",
    "sampleid",
    "image",
    "filename",
    "filepath",
    "file",
    "path",
    "name",
    "caseid",
    "case",
    "patientid",
    "patient",
)
_EXPORTED = ".rows.csv"  # what `mt cache export --format npy` writes beside the matrix


@dataclass(frozen=True)
class LabelTable:
    """One table: its text by column, and which column names the case of each row; None for rows in order.

    split: the split of all of its rows, None if not named.
    """

    split: str | None
    file: Path
    text: TableText
    key: str | None

    @property
    def names(self) -> Sequence[str] | None:
        return None if self.key is None else self.text.columns[self.key]

    def __len__(self) -> int:
        return len(self.text.lines)


def tables_of(request: ImportRequest, parts: Sequence[SourceFile]) -> list[LabelTable]:
    """Return the tables of an import: those of `--labels`, else those that come with the embeddings, if any."""
    if request.labels:
        return [_read(word, request) for word in request.labels]
    return [table for part in parts if (table := _beside(part, request)) is not None]


def key_column(columns: Mapping[str, object], asked: str | None, file: Path) -> str | None:
    """Return the column that names the cases: the one asked for, or the first with a common name."""
    if asked is not None:
        if asked not in columns:
            raise InputError(f"{file} has no column '{asked}'. Found: {', '.join(columns)}.")
        return asked
    plain = {plain_name(name): name for name in reversed(list(columns))}
    return next((plain[name] for name in _IDS if name in plain), None)


def _read(word: str, request: ImportRequest) -> LabelTable:
    split, path = named_split(word)
    if path.suffix.lower() == ".npy":
        return LabelTable(split, path, _array_table(path), None)
    text = _restored(read_table(path))
    return LabelTable(split, path, text, _key(text.columns, path, request))


def _key(columns: Mapping[str, Sequence[str]], file: Path, request: ImportRequest) -> str | None:
    """Return the column that names cases in a table: the bag column if the table has it."""
    if request.bag is not None and request.bag in columns:
        return request.bag
    return key_column(columns, request.rules.id_column, file)


def _beside(part: SourceFile, request: ImportRequest) -> LabelTable | None:
    """Return the table that comes with a file of embeddings."""
    columns = {name: list(values) for name, values in part.matrix.beside.items()}
    if columns:
        lines = list(part.matrix.lines) or list(range(1, part.matrix.n + 1))
        key = _key(columns, part.path, request)
        only_ids = not set(columns) - {key}
        return None if only_ids else LabelTable(part.split, part.path, TableText(columns, lines), key)
    exported = part.path.with_suffix(_EXPORTED)
    if part.case is None and exported.is_file():
        text = _restored(read_table(exported))
        return LabelTable(part.split, exported, text, _key(text.columns, exported, request))
    return None


def _array_table(path: Path) -> TableText:
    """Return the labels in a .npy file as a table: (n,) classes, or (n, L) zeros and ones."""
    array = load_npy(path)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim not in (1, 2) or not array.size or array.dtype.kind not in "fiubUS":
        raise InputError(
            f"{path} has the shape {array.shape} of {array.dtype}, expected (n,) classes or (n, L) zeros and ones."
        )
    if array.ndim == 1:
        columns = {"label": as_text(array)}
    else:
        columns = {str(number): as_text(column) for number, column in enumerate(np.asarray(array).T)}
    return TableText(columns, list(range(1, len(array) + 1)))


def _restored(text: TableText) -> TableText:
    """Return a table with the cells as they were before `mt cache export` made formulas inert."""
    columns = {as_written(name): [as_written(value) for value in values] for name, values in text.columns.items()}
    return TableText(columns, text.lines, text.notes)
