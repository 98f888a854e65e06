"""Many short texts as one array: ids, groups and names of files, of which a dataset may have ten million.

A list of Python strings takes 60 to 110 bytes per text beside its letters; `Texts` takes the bytes of the longest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, overload

import numpy as np
import numpy.typing as npt

PART = 1 << 16  # texts that are Python strings at a time
Rows = npt.NDArray[np.integer[Any]] | npt.NDArray[np.bool_]


class Texts(Sequence[str]):
    """A sequence of strings, kept as UTF-8 of one width, as a feature file stores them and numpy sorts them.

    encoded: (n,) bytes, padded with zeros; names of files that are not UTF-8 keep their bytes (surrogateescape).  No
    text holds a NUL character.
    """

    __slots__ = ("encoded",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, encoded: npt.NDArray[np.bytes_]) -> None:
        self.encoded = encoded

    @classmethod
    def of(cls, values: Iterable[str]) -> Texts:
        """Return these texts as one array; `Texts` are returned as they are."""
        if isinstance(values, Texts):
            return values
        remaining, parts = iter(values), []
        while part := list(islice(remaining, PART)):
            parts.append(_encoded(part))
        return cls(np.concatenate(parts) if parts else np.empty(0, dtype="S1"))

    def __len__(self) -> int:
        return len(self.encoded)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice | Rows) -> Texts: ...
    def __getitem__(self, place: int | slice | Rows) -> str | Texts:
        found: Any = self.encoded[place]
        return Texts(found) if isinstance(found, np.ndarray) else _text(found)

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), PART):
            yield from map(_text, self.encoded[start : start + PART].tolist())

    def __contains__(self, value: object) -> bool:
        return isinstance(value, str) and "\0" not in value and bool((self.encoded == _bytes(value)).any())

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Texts):
            return len(self) == len(other) and bool((self.encoded == other.encoded).all())
        if isinstance(other, Sequence) and not isinstance(other, str):
            return len(self) == len(other) and all(one == two for one, two in zip(self, other, strict=True))
        return NotImplemented

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self[:3])) + (", ..." if len(self) > 3 else "")
        return f"Texts({len(self):,}: {shown})"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        """Return an array of strings, as numpy makes one of a list of them: four bytes per letter."""
        return np.array(list(self), dtype=dtype or np.str_)

    def take(self, rows: Rows) -> Texts:
        """Return some of the texts, by number."""
        return Texts(self.encoded[rows])

    def distinct(self) -> tuple[list[str], npt.NDArray[np.int64]]:
        """Return the different texts in the order in which they first occur, and (n,) the number of each row's text."""
        values, first, code = np.unique(self.encoded, return_index=True, return_inverse=True)
        order = np.argsort(first, kind="stable")
        place = np.empty(len(order), dtype=np.int64)
        place[order] = np.arange(len(order))
        return list(Texts(values[order])), place[code]

    def mapped(self, function: Callable[[str], str]) -> Texts:
        """Return the function's value for each text; it is called once per different text among 65,536 neighbours."""
        parts = []
        for start in range(0, len(self), PART):
            values, code = np.unique(self.encoded[start : start + PART], return_inverse=True)
            parts.append(Texts.of(function(value) for value in Texts(values)).encoded[code])
        return Texts(np.concatenate(parts)) if parts else self


class Prefixed(Sequence[str]):
    """Texts with a common beginning, such as the paths of files in one folder; `rest` holds what follows it."""

    __slots__ = ("beginning", "rest")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, beginning: str, rest: Texts) -> None:
        self.beginning, self.rest = beginning, rest

    def __len__(self) -> int:
        return len(self.rest)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice | Rows) -> Prefixed: ...
    def __getitem__(self, place: int | slice | Rows) -> str | Prefixed:
        found = self.rest[place]
        return Prefixed(self.beginning, found) if isinstance(found, Texts) else self.beginning + found

    def __iter__(self) -> Iterator[str]:
        return map(self.beginning.__add__, self.rest)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Sequence) and not isinstance(other, str):
            return len(self) == len(other) and all(one == two for one, two in zip(self, other, strict=True))
        return NotImplemented


def distinct(values: Sequence[str]) -> tuple[list[str], npt.NDArray[np.int64]]:
    """Return the different texts in the order in which they first occur, and (n,) the number of each row's text."""
    return Texts.of(values).distinct()


def sortable(values: Any) -> npt.NDArray[Any]:
    """Return an array that sorts as the texts do, by code point: their bytes if all are UTF-8, else strings."""
    return values.encoded if isinstance(values, Texts) and _is_utf8(values.encoded) else np.asarray(values)


def _is_utf8(encoded: npt.NDArray[np.bytes_]) -> bool:
    """Say whether all texts are UTF-8: other bytes sort differently as bytes than as strings."""
    try:
        for start in range(0, len(encoded), PART):
            part = encoded[start : start + PART]
            if not part.tobytes().isascii():
                [value.decode() for value in part.tolist()]
    except UnicodeDecodeError:
        return False
    return True


def _encoded(values: list[str]) -> npt.NDArray[np.bytes_]:
    try:
        return np.array(values, dtype=np.bytes_)  # ASCII
    except UnicodeEncodeError:
        return np.array([_bytes(value) for value in values], dtype=np.bytes_)


def _bytes(value: str) -> bytes:
    return value.encode("utf-8", "surrogateescape")


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")
