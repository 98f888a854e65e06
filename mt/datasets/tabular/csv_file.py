"""Tables as publishers and people write them, read by column: any separator, encoding and line end."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mt.datasets.settings import SEPARATORS
from mt.errors import DatasetError, InputError

_BOMS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_SNIFFED = (",", ";", "\t")
_DECIMAL_COMMA = re.compile(r"[-+]?\d+,\d+", re.ASCII)
_WHOLE = re.compile(r"[-+]?\d+", re.ASCII)
# A first line that Excel reads and does not show.
_EXCELS_LINE = re.compile(r"sep=(.)\r?\n", re.IGNORECASE)


@dataclass(frozen=True)
class TableText:
    """The columns of a table, every value a string without outer spaces, and the line of each row in its file."""

    columns: dict[str, list[str]]
    lines: list[int]
    notes: tuple[str, ...] = ()

    def kept(self, rows: Sequence[int]) -> TableText:
        """Return some of the rows."""
        columns = {name: [values[row] for row in rows] for name, values in self.columns.items()}
        return TableText(columns, [self.lines[row] for row in rows], self.notes)


def read_csv(path: Path, needed: Sequence[str] = ()) -> dict[str, list[str]]:
    """Return the columns of a text table, every value a string without outer spaces.

    Raises:
        DatasetError: as `read_text_table`.
    """
    return read_text_table(path, needed).columns


def read_text_table(path: Path, needed: Sequence[str] = (), *, separator: str | None = None) -> TableText:
    """Return a table of text; the separator (comma, semicolon, tab) is found out unless one is named.

    UTF-8 and UTF-16 are known by their marks; what is neither is read as Windows-1252, the superset of Latin-1 that
    Windows writes.  Numbers with decimal commas get points where commas separate nothing else.

    Raises:
        DatasetError: no file, no text, a column in `needed` that is not there, or a line of another length.
        InputError: a separator that the header does not hold.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        wanted = f" with the columns {', '.join(needed)}" if needed else ""
        raise DatasetError(f"No file {path}. Expected a table{wanted}.") from error
    except OSError as error:
        raise DatasetError(f"{path} is not a CSV file: {error.strerror}.") from error
    text, notes = _decoded(data, path)
    excels = _EXCELS_LINE.match(text)
    if excels is not None:
        separator = separator or excels[1]
    try:
        mark = _separator(text, needed, separator, path)
        records = list(_records(text, mark))
    except csv.Error as error:
        raise DatasetError(f"{path} is not a CSV file: {error}.") from error
    if excels is not None:
        records = records[1:]
    return _columns(records, needed, path, notes, decimal_commas=mark != ",")


def refuse_twins(header: Sequence[str], path: Path) -> None:
    """Raise where two columns have one name, be it in another case."""
    seen: set[str] = set()
    for name in header:
        if name and name.casefold() in seen:
            raise DatasetError(f"{path} has two columns named '{name}'. Expected each name once: rename one.")
        seen.add(name.casefold())


def require_columns(header: Sequence[str], needed: Sequence[str], path: Path) -> None:
    """Raise where a column in `needed` is not in the header."""
    for name in needed:
        if name not in header:
            found = ", ".join(name for name in header if name) or "none"
            raise DatasetError(f"{path} lacks the column '{name}'. Found: {found}.")


def _decoded(data: bytes, path: Path) -> tuple[str, tuple[str, ...]]:
    """Return the text of a file and a note where its encoding was a guess."""
    encoding = next((name for mark, name in _BOMS.items() if data.startswith(mark)), None)
    if encoding is None and b"\0" in data[:200]:  # UTF-16 without a mark: every other byte of ASCII is zero
        encoding = "utf-16-be" if data[:1] == b"\0" else "utf-16-le"
    try:
        text = data.decode(encoding or "utf-8")
        notes: tuple[str, ...] = ()
    except UnicodeDecodeError as error:
        if encoding is not None:
            raise DatasetError(f"{path} is not a CSV file in {encoding.upper()}: {error.reason}.") from error
        text = _western(data)
        notes = (f"{path.name} is not in UTF-8 and was read as Windows-1252 (Latin-1)",)
    if "\0" in text:
        raise DatasetError(f"{path} is not a CSV file: it holds bytes that are not text.")
    return text, notes


def _western(data: bytes) -> str:
    try:
        return data.decode("cp1252")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _separator(text: str, needed: Sequence[str], asked: str | None, path: Path) -> str:
    """Return the separator that gives the header the needed columns, and of those the most columns."""
    if asked is not None:
        return SEPARATORS.get(asked, asked)
    preferred = ("\t", *_SNIFFED) if path.suffix.lower() == ".tsv" else _SNIFFED
    headers = {mark: next((line for _, line in _records(text, mark)), []) for mark in preferred}
    fitting = [mark for mark in headers if all(name in _names(headers[mark]) for name in needed)]
    return max(fitting or preferred, key=lambda mark: len(headers[mark]))


def _names(header: Sequence[str]) -> list[str]:
    return [name.strip() for name in header]


def _records(text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the lines that hold something, each with the number of its first line in the file."""
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=separator != "\t")
    except (TypeError, ValueError) as error:
        raise InputError(f"--separator '{separator}' cannot be one: {error}.") from error
    start = 1
    for record in reader:
        if any(cell.strip() for cell in record):
            yield start, record
        start = reader.line_num + 1


def _columns(
    records: Sequence[tuple[int, list[str]]],
    needed: Sequence[str],
    path: Path,
    notes: tuple[str, ...],
    *,
    decimal_commas: bool,
) -> TableText:
    header = _names(records[0][1]) if records else []
    refuse_twins(header, path)
    require_columns(header, needed, path)
    for line, record in records[1:]:
        if len(record) != len(header) and (len(record) < len(header) or any(record[len(header) :])):
            raise DatasetError(f"{path}, line {line}: {len(record)} values, expected {len(header)} as in the header.")
    if len(records) < 2:
        raise DatasetError(f"{path} has no rows below its header.")
    values = zip(*(record[: len(header)] for _, record in records[1:]), strict=True)
    columns = {name: [value.strip() for value in column] for name, column in zip(header, values, strict=True)}
    if decimal_commas:
        columns = {name: with_points(column) for name, column in columns.items()}
    return TableText(columns, [line for line, _ in records[1:]], notes)


def with_points(values: list[str]) -> list[str]:
    """Return numbers with decimal points, where all values are numbers and some have decimal commas."""
    if any(_DECIMAL_COMMA.fullmatch(value) for value in values) and all(
        not value or _DECIMAL_COMMA.fullmatch(value) or _WHOLE.fullmatch(value) for value in values
    ):
        return [value.replace(",", ".") for value in values]
    return values
