"""Text as wide as the terminal; into a pipe or a file as wide as its contents, so that nothing is lost."""

from __future__ import annotations

import math
import shutil
import sys
import textwrap
from collections.abc import Collection, Iterable, Sequence

WIDE = 10_000  # columns where no terminal limits them


def width() -> int:
    """Return the columns of the terminal (COLUMNS overrides); 10,000 if stdout is not a terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDE


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Collection[str] = ()) -> None:
    """Print a plain table; cells are folded where the terminal is narrow, but not the columns of `numbers`."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=None, pad_edge=False)
    for name in headings:
        right = name in numbers
        shown.add_column(name, justify="right" if right else "left", no_wrap=right, overflow="fold")
    for row in rows:
        shown.add_row(*map(Text, row))
    Console(file=sys.stdout, width=width(), highlight=False).print(shown)


def letters(number: int) -> str:
    """Return the letters that stand for 0, 1, 2, ...: a ... z, aa, ab, ..."""
    before, last = divmod(number, 26)
    return (letters(before - 1) if before else "") + chr(ord("a") + last)


def interval_text(value: float, low: float, high: float, reason: str = "") -> str:
    """Return a difference with its interval, `+0.012 [-0.004, +0.028]`, or with the reason why it has none.

    Three decimals; more where both ends of the interval would otherwise be printed alike.
    """
    if math.isnan(low):
        return f"{value:+z.3f}" + (f" ({reason})" if reason else "")
    places = next((n for n in range(3, 9) if round(low, n) != round(high, n)), 9)
    return f"{value:+z.{places}f} [{low:+z.{places}f}, {high:+z.{places}f}]"


def indented(text: str, *, first: str = "", rest: str = "", cut_words: bool = True) -> str:
    """Return text wrapped to the terminal: `first` before its first line, `rest` before the others.

    cut_words: also break words that are longer than a line; False keeps paths and commands whole, to be copied.
    """
    return textwrap.fill(
        text, width(), initial_indent=first, subsequent_indent=rest, break_on_hyphens=False, break_long_words=cut_words
    )
