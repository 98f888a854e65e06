"""List image files in folders: quickly, in a stable order, and never through a link that leads out."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mt.datasets.dicom.headers import Headers
from mt.datasets.image_file import DICOM_SUFFIXES, SUFFIXES
from mt.errors import DatasetError

_NUMBER = re.compile(r"[-+]?\d+(\.\d+)?", re.ASCII)
# What operating systems leave behind; omitted without a note.
_LITTER = frozenset(("thumbs.db", "desktop.ini", "__macosx"))


@dataclass
class Listing:
    """Image files below a folder as `/`-separated paths relative to it, sorted.

    `ignored` are other visible files, `objects` DICOM files that hold no image, with what they are; `linked` says
    whether a link was followed.
    """

    images: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    objects: dict[str, str] = field(default_factory=dict)
    linked: bool = False


def list_images(
    folder: Path, *, inside: Path, suffixes: frozenset[str] = SUFFIXES, headers: Headers | None = None
) -> Listing:
    """Return the image files below `folder`, hidden files and the litter of operating systems omitted.

    A link is followed only where it leads into `folder` itself or into `inside`, the dataset's folder, and not back
    to a folder that holds `folder`.  (`folder` may itself have been reached by a link: whoever laid out the dataset
    chose it.)  With `headers`, DICOM files are known by their content, whatever their names.

    Raises:
        DatasetError: a link that leads elsewhere.
    """
    homes = (os.path.realpath(folder), os.path.realpath(inside))
    listing = Listing()
    waiting = [("", os.fspath(folder))]
    visited = {homes[0]}
    while waiting:
        prefix, path = waiting.pop()
        for entry in _visible(path):
            name = prefix + entry.name
            if entry.is_symlink():
                _refuse_escape(entry, homes)
                listing.linked = True
            if entry.is_dir():
                real = os.path.realpath(entry.path) if entry.is_symlink() else entry.path
                if real not in visited and not _below(homes[0], real):
                    visited.add(real)
                    waiting.append((name + "/", entry.path))
            elif os.path.splitext(entry.name)[1].lower() in suffixes and (entry.is_file() or entry.is_symlink()):
                listing.images.append(name)
            else:
                listing.ignored.append(name)
    if headers is not None:
        _look_inside(listing, folder, headers)
    listing.images.sort()
    return listing


def _look_inside(listing: Listing, folder: Path, headers: Headers) -> None:
    """Add DICOM images without a suffix to the images, and remove DICOM objects that are not images."""
    named = [name for name in listing.images if name.lower().endswith(DICOM_SUFFIXES)]
    candidates = [name for name in (*named, *listing.ignored) if os.path.isfile(os.path.join(folder, name))]
    found = dict(zip(candidates, headers.of([os.path.join(folder, name) for name in candidates]), strict=True))
    listing.objects = {name: facts.name for name, facts in found.items() if facts.kind == "other"}
    taken = [name for name in listing.ignored if name in found and found[name].kind in ("image", "damaged")]
    listing.images = [name for name in (*listing.images, *taken) if name not in listing.objects]
    listing.ignored = [name for name in listing.ignored if name not in listing.objects and name not in set(taken)]


def subfolders(folder: Path) -> list[str]:
    """Return the names of the visible folders in a folder, links to folders included, in natural order."""
    return sorted((entry.name for entry in _visible(os.fspath(folder)) if entry.is_dir()), key=natural)


def natural(name: str) -> tuple[tuple[int, float, str], ...]:
    """Return the key that sorts names as people do: `2` before `10`, case ignored where nothing else differs.

    Names that are numbers, signs and decimals included, are in the order of numbers.
    """
    if _NUMBER.fullmatch(name):
        return ((0, float(name), name), (2, 0, name))
    parts = [part for part in re.split(r"(\d+)", name) if part]
    tokens = [(0, int(part), part) if part.isdecimal() else (1, 0, part.casefold()) for part in parts]
    return (*tokens, (2, 0, name))


def contained(path: str, *, inside: Path) -> bool:
    """Return whether a path, links followed, stays below a folder."""
    return _below(os.path.realpath(path), os.path.realpath(inside))


def some(names: Sequence[str], count: int = 3) -> str:
    """Return the first few of many names, for a message."""
    shown = ", ".join(names[:count])
    return shown + (", ..." if len(names) > count else "")


def _visible(path: str) -> Iterator[os.DirEntry[str]]:
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.name.startswith(".") or entry.name.lower() in _LITTER:
                continue
            if not entry.name.isascii():
                _refuse_no_text(entry.path)
            yield entry


def _refuse_no_text(path: str) -> None:
    try:
        path.encode()
    except UnicodeEncodeError as error:
        shown = path.encode("utf-8", "backslashreplace").decode()
        raise DatasetError(f"{shown}: the file name is not UTF-8. Rename it.") from error


def _refuse_escape(entry: os.DirEntry[str], homes: tuple[str, str]) -> None:
    target = os.path.realpath(entry.path)
    if not any(_below(target, home) for home in homes):
        raise DatasetError(
            f"{entry.path} is a link that leads out of the dataset's folder, to {target}. "
            "Copy the files, or make the whole class folder the link."
        )


def _below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)
