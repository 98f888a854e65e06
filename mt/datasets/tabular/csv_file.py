"""Tables as publishers and people write them, read by column: any separator, encoding and line end."""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import re
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mt.datasets.settings import SEPARATORS
from mt.errors import DatasetError, InputError
from mt.types import Texts

_PART = 1 << 20  # bytes that are decoded at a time
_RECORDS = 1 << 13  # lines that are Python strings at a time
_BOMS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_SNIFFED = (",", ";", "\t")
_DECIMAL_COMMA = re.compile(r"[-+]?\d+,\d+", re.ASCII)
_WHOLE = re.compile(r"[-+]?\d+", re.ASCII)
# A first line that Excel reads and does not show.
_EXCELS_LINE = re.compile(r"sep=(.)\r?\n", re.IGNORECASE)


@dataclass(frozen=True)
class TableText:
    """The columns of a table, every value a string without outer spaces, and the line of each row in its file."""

    columns: Mapping[str, Sequence[str]]
    lines: Sequence[int]
    notes: tuple[str, ...] = ()


def read_csv(path: Path, needed: Sequence[str] = ()) -> dict[str, list[str]]:
    """Return the columns of a text table, every value a string without outer spaces.

    Raises:
        DatasetError: as `read_text_table`.
    """
    return {name: list(values) for name, values in read_text_table(path, needed).columns.items()}


def read_text_table(path: Path, needed: Sequence[str] = (), *, separator: str | None = None) -> TableText:
    """Return a table of text; the separator (comma, semicolon, tab) is detected unless one is named.

    UTF-8 and UTF-16 are recognised; any other text is read as Windows-1252, the superset of Latin-1 that Windows
    writes.  Decimal commas become points if the comma is not the separator.

    Raises:
        DatasetError: no file, not a text, a column in `needed` that is missing, or a line of another length.
        InputError: a separator that the header does not hold.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        wanted = f" with the columns {', '.join(needed)}" if needed else ""
        raise DatasetError(f"No file {path}. Expected a table{wanted}.") from error
    except OSError as error:
        raise DatasetError(f"{path} is not a CSV file: {error.strerror}.") from error
    encoding, notes = _encoding(data, path)
    text = _TableFile(data, encoding)
    try:
        mark = _separator(text, needed, separator or text.excels_mark, path)
        return _columns(text.records(mark), needed, path, notes, decimal_commas=mark != ",")
    except csv.Error as error:
        raise DatasetError(f"{path} is not a CSV file: {error}.") from error


def refuse_twins(header: Sequence[str], path: Path) -> None:
    """Raise if two columns have the same name, apart from upper and lower case."""
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


@dataclass(frozen=True)
class _TableFile:
    """The bytes of a table and their encoding, decoded line by line, so that memory holds them once."""

    data: bytes
    encoding: str

    @property
    def excels_mark(self) -> str | None:
        """The separator that a first line for Excel names, which is not a row."""
        found = _EXCELS_LINE.match(next(self._lines(), ""))
        return None if found is None else found[1]

    def records(self, separator: str) -> Iterator[tuple[int, list[str]]]:
        """Yield the lines that hold something, each with the number of its first line in the file."""
        try:
            reader = csv.reader(self._lines(), delimiter=separator, skipinitialspace=separator != "\t")
        except (TypeError, ValueError) as error:
            raise InputError(f"--separator '{separator}' cannot be one: {error}.") from error
        start, skipped = 1, self.excels_mark is not None
        for record in reader:
            if skipped:
                skipped = False
            elif any(map(str.strip, record)):
                yield start, record
            start = reader.line_num + 1

    def _lines(self) -> Iterator[str]:
        return io.TextIOWrapper(io.BytesIO(self.data), encoding=self.encoding, newline="")


def _encoding(data: bytes, path: Path) -> tuple[str, tuple[str, ...]]:
    """Return the encoding of a file and a note where it was a guess.

    Raises:
        DatasetError: no text.
    """
    encoding = next((name for mark, name in _BOMS.items() if data.startswith(mark)), None)
    if encoding is None and b"\0" in data[:200]:  # UTF-16 without a mark: every other byte of ASCII is zero
        encoding = "utf-16-be" if data[:1] == b"\0" else "utf-16-le"
    notes: tuple[str, ...] = ()
    try:
        holds_nul = _holds_nul(data, encoding or "utf-8")
    except UnicodeDecodeError as error:
        if encoding is not None:
            raise DatasetError(f"{path} is not a CSV file in {encoding.upper()}: {error.reason}.") from error
        encoding, holds_nul = _western(data), b"\0" in data
        notes = (f"{path.name} is not in UTF-8 and was read as Windows-1252 (Latin-1)",)
    if holds_nul:
        raise DatasetError(f"{path} is not a CSV file: it holds bytes that are not text.")
    return encoding or "utf-8", notes


def _holds_nul(data: bytes, encoding: str) -> bool:
    """Return whether a text holds a NUL character; it is decoded in parts, to avoid a second copy in memory."""
    decoder = codecs.getincrementaldecoder(encoding)()
    view = memoryview(data)
    parts = (decoder.decode(view[at : at + _PART], at + _PART >= len(data)) for at in range(0, len(data), _PART))
    found = False
    for part in parts:  # to the end, which a decoder must reach
        found = found or "\0" in part
    return found


def _western(data: bytes) -> str:
    try:
        _holds_nul(data, "cp1252")
    except UnicodeDecodeError:
        return "latin-1"
    return "cp1252"


def _separator(text: _TableFile, needed: Sequence[str], asked: str | None, path: Path) -> str:
    """Return the separator that gives the header the needed columns, and of those the most columns."""
    if asked is not None:
        return SEPARATORS.get(asked, asked)
    preferred = ("\t", *_SNIFFED) if path.suffix.lower() == ".tsv" else _SNIFFED
    headers = {mark: next((line for _, line in text.records(mark)), []) for mark in preferred}
    fitting = [mark for mark in headers if all(name in _names(headers[mark]) for name in needed)]
    return max(fitting or preferred, key=lambda mark: len(headers[mark]))


def _names(header: Sequence[str]) -> list[str]:
    return [name.strip() for name in header]


def _columns(
    records: Iterator[tuple[int, list[str]]],
    needed: Sequence[str],
    path: Path,
    notes: tuple[str, ...],
    *,
    decimal_commas: bool,
) -> TableText:
    header = _names(next(records, (1, []))[1])
    refuse_twins(header, path)
    require_columns(header, needed, path)
    parts: list[list[np.ndarray]] = [[] for _ in header]
    lines = array("q")
    while part := list(itertools.islice(records, _RECORDS)):
        for line, record in part:
            if len(record) != len(header) and (len(record) < len(header) or any(record[len(header) :])):
                raise DatasetError(
                    f"{path}, line {line}: {len(record)} values, expected {len(header)} as in the header."
                )
        lines.extend(line for line, _ in part)
        for place, found in enumerate(parts):
            found.append(Texts.of([record[place].strip() for _, record in part]).encoded)
    if not lines:
        raise DatasetError(f"{path} has no rows below its header.")
    columns = {}
    for name in header:
        columns[name] = Texts(np.concatenate(parts.pop(0)))
    if decimal_commas:
        columns = {name: with_points(column) for name, column in columns.items()}
    return TableText(columns, lines, notes)


def with_points(values: Texts) -> Texts:
    """Return numbers with decimal points, where all values are numbers and some have decimal commas."""
    if any(_DECIMAL_COMMA.fullmatch(value) for value in values) and all(
        not value or _DECIMAL_COMMA.fullmatch(value) or _WHOLE.fullmatch(value) for value in values
    ):
        return values.mapped(lambda value: value.replace(",", "."))
    return values
