"""Names in the methods text: escaped for Markdown, so that no name is read as a command."""

from __future__ import annotations

from collections.abc import Iterable


def md(text: str) -> str:
    """Return text that Markdown and HTML show as it is, on one line."""
    special = {"&": "&amp;", "<": "&lt;", ">": "&gt;", **{sign: f"\\{sign}" for sign in "\\`*_[]|#~$@"}}
    return "".join(special.get(sign, sign) for sign in " ".join(text.split()))


def named(rows: Iterable[str]) -> str:
    """Return the names of rows, in quotes."""
    return ", ".join(f"“{md(row)}”" for row in rows)
