"""CSV files as publishers and people write them, read by column."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from mt.errors import DatasetError


def read_csv(path: Path, needed: Sequence[str] = ()) -> dict[str, list[str]]:
    """Return the columns of a CSV file (tab-separated when named .tsv), every value a string without outer spaces.

    Raises:
        DatasetError: no file, no UTF-8 text, a column in `needed` that is not there, or a line of another length.
    """
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            lines = list(csv.reader(file, delimiter=delimiter, skipinitialspace=True))
    except FileNotFoundError as error:
        raise DatasetError(f"No file {path}. Expected a CSV file with the columns {', '.join(needed)}.") from error
    except (UnicodeDecodeError, csv.Error, IsADirectoryError) as error:
        raise DatasetError(f"{path} is not a CSV file in UTF-8: {error}.") from error
    header = [name.strip() for name in lines[0]] if lines else []
    for name in needed:
        if name not in header:
            found = ", ".join(name for name in header if name) or "none"
            raise DatasetError(f"{path} lacks the column '{name}'. Found: {found}.")
    rows = [(number, line) for number, line in enumerate(lines[1:], start=2) if line]
    for number, line in rows:
        if len(line) != len(header):
            raise DatasetError(f"{path}, line {number}: {len(line)} values, expected {len(header)} as in the header.")
    if not rows:
        raise DatasetError(f"{path} has no rows below its header.")
    values = zip(*(line for _, line in rows), strict=True)
    return {name: [value.strip() for value in column] for name, column in zip(header, values, strict=True)}
