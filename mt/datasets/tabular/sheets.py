"""Tables that are not text: parquet files and Excel sheets, as columns of strings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mt.datasets.tabular.csv_file import TableText, read_text_table, refuse_twins, require_columns
from mt.errors import DatasetError, MissingExtraError
from mt.types import Texts

_INSTALL = "pip install 'medical-transfer[tables]'"
_PARQUET, _ZIP, _OLD_EXCEL = b"PAR1", b"PK\x03\x04", b"\xd0\xcf\x11\xe0"


def read_table(path: Path, needed: Sequence[str] = (), *, separator: str | None = None) -> TableText:
    """Return the table in a file of any kind, known by its content: parquet, Excel, or text.

    Raises:
        DatasetError: as `read_text_table`, or a damaged file.
        MissingExtraError: the library for it is not installed.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(4)
    except OSError:
        head = b""  # said by the reader of text
    if head == _OLD_EXCEL:
        raise DatasetError(f"{path} is in Excel's old format. Save it as .xlsx or .csv.")
    if head not in (_PARQUET, _ZIP):
        return read_text_table(path, needed, separator=separator)
    header, rows, notes = (_parquet if head == _PARQUET else _excel)(path)
    names = ["" if name is None else str(name).strip() for name in header]
    refuse_twins(names, path)
    require_columns(names, needed, path)
    filled = [(line, row) for line, row in enumerate(rows, start=2) if any(cell not in (None, "") for cell in row)]
    if not filled:
        raise DatasetError(f"{path} has no rows below its header.")
    columns = {name: Texts.of(_texts([row[place] for _, row in filled])) for place, name in enumerate(names)}
    return TableText(columns, [line for line, _ in filled], notes)


def _parquet(path: Path) -> tuple[list[Any], list[Sequence[Any]], tuple[str, ...]]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise MissingExtraError(f"{path}: parquet tables need pyarrow. Install it: {_INSTALL}") from error
    try:
        table = parquet.read_table(path)
    except (ArrowException, OSError) as error:
        raise DatasetError(f"{path} is not a sound parquet file: {' '.join(str(error).split())}") from error
    return table.column_names, list(zip(*(column.to_pylist() for column in table.columns), strict=True)), ()


def _excel(path: Path) -> tuple[list[Any], list[Sequence[Any]], tuple[str, ...]]:
    try:
        import openpyxl
    except ImportError as error:
        raise MissingExtraError(f"{path}: Excel tables need openpyxl. Install it: {_INSTALL}") from error
    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        sheet = book.worksheets[0]
        rows = list(sheet.iter_rows(values_only=True))
        names = book.sheetnames
    except Exception as error:  # whatever a broken workbook makes the library raise
        raise DatasetError(f"{path} is not a sound Excel file: {error}") from error
    notes = (f"{path.name} holds {len(names)} sheets: '{sheet.title}' was read",) if len(names) > 1 else ()
    return list(rows[0]) if rows else [], rows[1:], notes


def _texts(values: list[Any]) -> list[str]:
    """Return cells as a text table would hold them: nothing for missing ones, whole numbers without a point."""
    numbers = [value for value in values if isinstance(value, float) and not math.isnan(value)]
    whole = all(number.is_integer() for number in numbers)
    return [_text(value, whole=whole) for value in values]


def _text(value: Any, *, whole: bool) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and whole and math.isfinite(value):
        return str(int(value))
    return str(value).strip()
