"""A dataset's name and place, taken apart and put together here alone.

`folder:PATH` and `table:CSV` are shown, and kept in feature files, as `folder:NAME` beside their location, so that a
name tells nobody's home folder.  Other names hold no place: their files lie in a data folder.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

LOCATED = ("folder", "table")  # kinds of datasets whose names hold their place


def mapped_place(name: str, place: Callable[[str], str]) -> str:
    """Return a name with the place in it, if it holds one, replaced by `place` of it."""
    kind, colon, rest = name.partition(":")
    return f"{kind}:{place(rest)}" if colon and kind in LOCATED else name


def loadable_name(shown: str, location: str | None) -> str:
    """Return the name that loads a dataset again, from how it is shown and the location where it was read."""
    return mapped_place(shown, lambda _: location) if location else shown


def data_dir_of(shown: str, location: str | None) -> str | None:
    """Return the `--data-dir` where a dataset was read; None if its name holds its place, or if it is generated."""
    if not location or loadable_name(shown, location) != shown:
        return None
    return location if Path(location).is_dir() else str(Path(location).parent)


def is_named(shown: str, location: str | None, name: str) -> bool:
    """Return whether `name` is a dataset as it is shown, or as it is typed, with the path to it."""
    typed = mapped_place(name, lambda place: os.path.abspath(os.path.expanduser(place)))
    return name == shown or typed == loadable_name(shown, location)
