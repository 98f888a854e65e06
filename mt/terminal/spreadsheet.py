"""CSV files that are safe in a spreadsheet: no cell runs as a formula."""

from __future__ import annotations

from typing import Any

# What a spreadsheet takes for the start of a formula, full-width signs included (OWASP, "CSV Injection").
_RUNS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def inert(cell: Any) -> Any:
    """Return a cell for a CSV file: text that a spreadsheet would run gets an apostrophe; numbers stay as they are."""
    if not isinstance(cell, str) or not cell.startswith(_RUNS) or _is_number(cell):
        return cell
    return f"'{cell}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def as_written(cell: str) -> str:
    """Return the text from which `inert` made a cell."""
    original = cell[1:]
    return original if cell.startswith("'") and inert(original) != original else cell
