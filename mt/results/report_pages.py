"""Which report pages were drawn from a score database, and their removal: only files that are as they were written."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from mt.cache.names import digest
from mt.results.store import ScoreStore
from mt.system import files

DRAWN = "drawn.json"  # in the folder of a report: what it was drawn from, and the hash of each file
_KIND = "report:"


@dataclass(frozen=True)
class ReportPage:
    """A page that was drawn from scores.

    folder: holds its charts and tables.  fits: identities of the fits that it shows.  command: draws it again.
    """

    page: Path
    folder: Path
    fits: frozenset[str]
    command: str

    def removable(self) -> tuple[list[Path], list[Path]]:
        """Return the files of the report that are unchanged since they were written, and those that were changed.

        A link counts as changed: it is neither followed nor removed.
        """
        try:
            hashes = dict(json.loads((self.folder / DRAWN).read_bytes())["sha256"])
        except (OSError, ValueError, KeyError, TypeError):
            hashes = {}
        ours: list[Path] = []
        others: list[Path] = []
        for path in [self.page, *(self.folder / Path(name).name for name in hashes if name != self.page.name)]:
            if os.path.lexists(path):
                whole = _is_in_place(path) and files.hash_of(path) == hashes.get(path.name)
                (ours if whole else others).append(path)
        if ours and _is_in_place(self.folder / DRAWN):
            ours.append(self.folder / DRAWN)
        return ours, others


def register(store: ScoreStore, page: ReportPage) -> None:
    """Record in the score database that a page shows these fits."""
    kept = {"page": str(page.page), "folder": str(page.folder), "fits": sorted(page.fits), "command": page.command}
    store.remember(_KIND + digest(str(page.page)), kept)


def registered(store: ScoreStore, fits: Collection[str]) -> list[ReportPage]:
    """Return the pages that show any of these fits."""
    found = [
        ReportPage(Path(one["page"]), Path(one["folder"]), frozenset(one["fits"]), one["command"])
        for one in store.recalled(_KIND)
    ]
    return [page for page in found if not page.fits.isdisjoint(fits)]


def hashes_of(paths: Sequence[Path]) -> dict[str, str]:
    """Return the sha256 of files by name, as `DRAWN` keeps them."""
    return {path.name: files.hash_of(path) for path in paths}


def remove(page: ReportPage) -> None:
    """Remove the files of a report that are unchanged since they were written, and its folder if it is then empty."""
    for path in page.removable()[0]:
        files.remove(path)
    if page.folder.is_dir() and not page.folder.is_symlink() and not os.listdir(page.folder):
        page.folder.rmdir()


def _is_in_place(path: Path) -> bool:
    """Return whether a path is a regular file, and no part of the path is a link."""
    return path.is_file() and os.path.realpath(path) == str(path)
