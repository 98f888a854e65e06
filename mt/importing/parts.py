"""The files that an import names, each with its split, and with its case if the whole file is one case."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mt.datasets.listing import some
from mt.datasets.readers.folder import SPLIT_NAMES
from mt.errors import InputError
from mt.importing.readers.matrix import Matrix
from mt.importing.readers.registry import files_of, open_matrix
from mt.importing.request import ImportRequest
from mt.terminal.progress import counted

OF_FILES = "file"  # `--bag file`: each file is one case
_TABLES = (".csv", ".tsv", ".parquet")


@dataclass(frozen=True)
class SourceFile:
    """The embeddings of one file.  case: the case of all of its rows, if the file is one case."""

    split: str | None
    matrix: Matrix
    case: str | None = None

    @property
    def path(self) -> Path:
        return self.matrix.path


def named_split(word: str) -> tuple[str | None, Path]:
    """Return the split and the path of `SPLIT=PATH`; None as split without such a prefix."""
    head, sign, path = word.partition("=")
    if sign and head.casefold() in SPLIT_NAMES and path and not Path(word).exists():
        return SPLIT_NAMES[head.casefold()], Path(path).expanduser()
    return None, Path(word).expanduser()


def split_name(name: str) -> str:
    """Return a split's name as feature files have it: `valid` is `val`.  Raises InputError for an unknown one."""
    if name.casefold() not in SPLIT_NAMES:
        raise InputError(f"Unknown split '{name}', expected train, val or test.")
    return SPLIT_NAMES[name.casefold()]


def parts_of(request: ImportRequest) -> list[SourceFile]:
    """Open every file of an import.

    A file is one case if it lies in a named folder, if it is one of several arrays without ids for one split, if its
    layout says so (`coords` beside `features`), or with `--bag file`.

    Raises InputError for files that cannot be read, of different widths, or two for one case.
    """
    found = list(_files(request))
    alone = Counter(split for split, _, _ in found)
    parts = []
    for split, path, of_folder in found:
        matrix = open_matrix(path, request.key)
        table = path.suffix.lower() in _TABLES
        several = alone[split] > 1 and not table and "id" not in matrix.beside
        one_case = (of_folder and not table) or several or matrix.one_case or request.bag == OF_FILES
        parts.append(SourceFile(split, matrix, path.stem if one_case else None))
    _check_widths(parts)
    _check_cases(parts)
    return parts


def _files(request: ImportRequest) -> Iterator[tuple[str | None, Path, bool]]:
    """Yield the split and the path of each file, and whether a folder was named rather than the file."""
    for word in request.files:
        split, path = named_split(word)
        split = split or (split_name(request.split) if request.split else None)
        if path.is_dir():
            yield from ((split, file, True) for file in files_of(path))
        else:
            yield split, path, False


def _check_widths(parts: Sequence[SourceFile]) -> None:
    first = parts[0].matrix
    for part in parts[1:]:
        if part.matrix.dim != first.dim:
            raise InputError(
                f"{part.path} has {part.matrix.dim:,} dimensions and {first.path} has {first.dim:,}. "
                "Expected embeddings of one model: import each model on its own."
            )


def _check_cases(parts: Sequence[SourceFile]) -> None:
    files = Counter(part.case for part in parts if part.case is not None)
    twice = [case for case, times in files.items() if times > 1]
    if twice:
        have = counted(len(twice), "case has", "cases have")
        raise InputError(f"{have} more than one file: {some(twice)}. Expected one file per case.")
