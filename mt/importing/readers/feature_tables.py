"""Tables of embeddings: .csv and .parquet, one row per line, as `mt cache export` and others write them.

The embeddings are one column of lists (parquet), or the longest family of numbered columns: `f0 f1 f2 ...`.
"""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mt.errors import InputError, MissingExtraError
from mt.importing.readers.matrix import Matrix, rows_per_part, stored_dtype
from mt.terminal.spreadsheet import as_written
from mt.types import Array

_NUMBERED = re.compile(r"(.*?)[_.\- ]?(\d+)")
_NAMED = ("embedding", "embeddings", "features", "feature", "vector")


def open_csv(path: Path, key: str | None) -> Matrix:
    """Return the embeddings of a .csv or .tsv file, and all of its other columns as text."""
    with _records(path) as records:
        header = next(records, [])
        family = feature_columns(path, header, key)
        places = [header.index(name) for name in family]
        others = [place for place in range(len(header)) if place not in set(places)]
        beside: dict[str, list[str]] = {header[place]: [] for place in others}
        lines = []
        for line, record in enumerate(records, start=2):
            if len(record) != len(header):
                raise InputError(f"{path}, line {line}: {len(record)} values, expected {len(header)} as in the header.")
            lines.append(line)
            for place in others:
                beside[header[place]].append(as_written(record[place].strip()))
    if not lines:
        raise InputError(f"{path} has no rows below its header.")
    step = rows_per_part(len(places), 8)

    def parts() -> Iterator[Array]:
        with _records(path) as records:
            next(records)
            numbered = enumerate(records, start=2)
            while block := list(itertools.islice(numbered, step)):
                yield _numbers(path, block, places)

    return Matrix(path, len(lines), len(places), "float32", parts, beside, lines)


def open_parquet(path: Path, key: str | None) -> Matrix:
    """Return the embeddings of a .parquet file, and all of its other columns as text."""
    pa, parquet = _pyarrow(path)
    try:
        file = parquet.ParquetFile(path)
        schema, n = file.schema_arrow, file.metadata.num_rows
        lists = [field.name for field in schema if _is_list(pa, field.type) and _is_number(pa, field.type.value_type)]
        several = _list_column(path, lists, key)
        if several is not None:
            names = [several]
        else:
            numbers = [field.name for field in schema if _is_number(pa, field.type)]
            names = feature_columns(path, numbers, key)
        others = [field.name for field in schema if field.name not in set(names) and not _is_list(pa, field.type)]
        table = file.read(columns=others)
        beside = {name: _texts(table.column(name).to_pylist()) for name in others}
        first = next(file.iter_batches(batch_size=1, columns=names), None)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} is not a whole parquet file: {' '.join(str(error).split())}") from error
    if first is None:
        raise InputError(f"{path} has no rows.")
    sample = _block(path, first, names, None, 0)
    dim, step = sample.shape[1], rows_per_part(sample.shape[1], 8)

    def parts() -> Iterator[Array]:
        start = 0
        for batch in parquet.ParquetFile(path).iter_batches(batch_size=step, columns=names):
            yield _block(path, batch, names, dim, start)
            start += batch.num_rows

    return Matrix(path, n, dim, stored_dtype(sample.dtype), parts, beside)


def feature_columns(path: Path, names: Sequence[str], prefix: str | None) -> list[str]:
    """Return the names of the columns that hold the embeddings, in the order of their numbers.

    Raises InputError if there is no family of numbered columns, or if a number is missing.
    """
    families: dict[str, dict[int, str]] = {}
    for name in names:
        if match := _NUMBERED.fullmatch(name):
            families.setdefault(match[1], {})[int(match[2])] = name
    if prefix is not None and prefix not in families:
        raise InputError(
            f"{path}: --key {prefix} needs columns {prefix}0, {prefix}1, ... Found: {', '.join(names[:20])}"
        )
    chosen = prefix if prefix is not None else max(families, key=lambda name: len(families[name]), default=None)
    if chosen is None or (prefix is None and len(families[chosen]) < 2):
        raise InputError(
            f"{path} has no columns of embeddings: expected f0, f1, f2, ... (any prefix: --key PREFIX). "
            f"Found: {', '.join(names[:20]) or 'none'}"
        )
    numbered = families[chosen]
    first = min(numbered)
    missing = [number for number in range(first, first + len(numbered)) if number not in numbered]
    if missing:
        last = max(numbered)
        raise InputError(f"{path} lacks the column {chosen}{missing[0]} among {chosen}{first} to {chosen}{last}.")
    return [numbered[number] for number in sorted(numbered)]


class _records:
    """The non-empty lines of a text table, read as they are needed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Iterator[list[str]]:
        self.file = self.path.open(newline="", encoding="utf-8-sig", errors="surrogateescape")
        return self._lines()

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def _lines(self) -> Iterator[list[str]]:
        first = self.file.readline()
        self.file.seek(0)
        mark = max(",;\t", key=first.count)
        try:
            yield from (record for record in csv.reader(self.file, delimiter=mark) if record)
        except csv.Error as error:
            raise InputError(f"{self.path} is not a CSV file: {error}.") from error


def _numbers(path: Path, block: Sequence[tuple[int, list[str]]], places: Sequence[int]) -> Array:
    """Return the embeddings of some lines; an empty cell is NaN."""
    try:
        return np.array([[float(record[place] or "nan") for place in places] for _, record in block], dtype=np.float64)
    except ValueError:
        for line, record in block:
            for place in places:
                try:
                    float(record[place] or "nan")
                except ValueError:
                    raise InputError(f"{path}, line {line}: '{record[place][:40]}' is not a number.") from None
        raise


def _pyarrow(path: Path) -> tuple[Any, Any]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtraError(
            f"{path}: parquet files need pyarrow. Install it: pip install 'medical-transfer[tables]'"
        ) from error
    return pa, parquet


def _is_list(pa: Any, kind: Any) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _is_number(pa: Any, kind: Any) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def _list_column(path: Path, lists: Sequence[str], key: str | None) -> str | None:
    """Return the column of lists that holds the embeddings, or None if numbered columns do."""
    if key is not None:
        return key if key in lists else None
    if len(lists) < 2:
        return lists[0] if lists else None
    named = [name for name in lists if name.lower() in _NAMED]
    if len(named) == 1:
        return named[0]
    raise InputError(f"{path}: which column holds the embeddings? Found {', '.join(lists)}. Choose: --key NAME")


def _block(path: Path, batch: Any, names: Sequence[str], dim: int | None, start: int) -> Array:
    """Return the embeddings of a batch of rows."""
    if not _is_list(*_type_of(batch, names[0])):
        return np.stack([np.asarray(batch.column(name).to_numpy(zero_copy_only=False)) for name in names], axis=1)
    column = batch.column(names[0])
    fixed = getattr(column.type, "list_size", None)
    lengths = [fixed] * len(column) if fixed else column.value_lengths().to_pylist()
    expected = dim or lengths[0]
    wrong = [row for row, length in enumerate(lengths) if length != expected]
    if wrong or column.null_count:
        row = wrong[0] if wrong else 0
        raise InputError(f"{path}: row {start + row + 1} has {lengths[row] or 0} numbers, expected {expected}.")
    return np.asarray(column.flatten().to_numpy(zero_copy_only=False)).reshape(len(column), expected)


def _type_of(batch: Any, name: str) -> tuple[Any, Any]:
    import pyarrow as pa

    return pa, batch.column(name).type


def _texts(values: Sequence[Any]) -> list[str]:
    return ["" if value is None or value != value else str(value).strip() for value in values]
