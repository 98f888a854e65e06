r"""Names: fingerprints of contents, file names, and the names of datasets, which are parsed and built only here.

`folder:PATH` and `table:CSV` are shown, and kept in feature files, as `folder:NAME` beside their location, so that a
name reveals nobody's home folder.  Other names hold no place: their files lie in a data folder.

Settings that are not their default follow in brackets: `folder:ihc[group_regex=pt(\d+), seed=3]`.  If features were
made with several settings of one dataset, a command takes one variant.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

from mt.errors import InputError
from mt.terminal import progress
from mt.types import Groups, LabelledRows, Texts

JSON: TypeAlias = Any  # None, bool, int, float, str, and lists and string-keyed dicts of these

_PART = 1 << 13  # values whose JSON is made at a time
READABLE = 40  # characters of a chosen name that are kept in a file name
_PLAIN = re.compile(rf"[a-z0-9][a-z0-9_.-]{{0,{READABLE - 1}}}")
_HASHED = re.compile(r".*-[0-9a-f]{8}")


def canonical(value: JSON) -> bytes:
    """Return the one JSON text of a value: keys sorted, no spaces, ASCII only.

    Raises ValueError for NaN and infinities, which JSON does not have.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def digest(value: JSON) -> str:
    """Return the sha256 of a value's canonical JSON, in hexadecimal."""
    return hashlib.sha256(canonical(value)).hexdigest()


def digest_of_rows(values: Any) -> str:
    """Return what `digest` returns of the values as a list, encoding 8,192 values at a time."""
    return _digest_of(_canonical_parts(values))


def _digest_of(parts: Iterable[bytes]) -> str:
    """Return the sha256 of a text that comes in parts, in hexadecimal."""
    hashed = hashlib.sha256()
    for part in parts:
        hashed.update(part)
    return hashed.hexdigest()


def _canonical_parts(values: Any) -> Iterator[bytes]:
    """Yield what `canonical` returns of the values as a list, in parts of 8,192 values."""
    between = b"["
    for part in _parts(values):
        yield between + canonical(part)[1:-1]
        between = b","
    yield b"[]" if between == b"[" else b"]"


def _parts(values: Any) -> Iterator[list[JSON]]:
    if hasattr(values, "tolist"):
        return (values[start : start + _PART].tolist() for start in range(0, len(values), _PART))
    remaining = iter(values)
    return iter(lambda: list(islice(remaining, _PART)), [])


def digest_of_cases(rows: LabelledRows[Any]) -> str:
    """Return the digest that names these rows; features are not part of it."""
    return _digest_of(content_of_cases(rows))


def content_of_cases(rows: LabelledRows[Any]) -> Iterator[bytes]:
    """Yield the canonical JSON whose digest names these rows, in parts: of millions it is long."""
    yield b'{"columns":{'
    for number, (name, values) in enumerate(sorted(rows.columns.items())):
        yield (b"," if number else b"") + canonical(name) + b":"
        yield from _canonical_parts(_finite(values))
    yield b'},"dtype":' + canonical(str(rows.y.dtype)) + b',"groups":'
    yield from [b"null"] if rows.groups is None else _canonical_parts(_listed(rows.groups))
    yield b',"ids":'
    yield from _canonical_parts(rows.ids)
    yield b',"labels":'
    yield from _canonical_parts(rows.y)
    yield b"}"


def _finite(values: Sequence[Any]) -> Sequence[Any]:
    """Return values that JSON has: a number that is undefined is null."""
    listed = _listed(values)
    if isinstance(listed, Texts):
        return listed
    return [json_value(value) for value in listed]


def json_value(value: Any) -> Any:
    """Return a value that JSON and SQLite both know: an undefined number is null."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _listed(values: Groups) -> Sequence[Any]:
    """Return texts as they are, and other values as a list of Python's numbers and strings."""
    import numpy as np

    if isinstance(values, Texts):
        return values
    listed: list[Any] = np.asarray(values).tolist()
    return listed


def slug(name: str) -> str:
    """Return a file name for a name: itself where that is safe, else `readable-hash8`.

    Safe means: at most 40 characters of lower-case ASCII (file systems may not distinguish cases), no separator, no
    leading dot, and not of the form `readable-hash8`, so that no name is the slug of another.
    """
    if _PLAIN.fullmatch(name) and not _HASHED.fullmatch(name) and ".." not in name:
        return name
    readable = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:READABLE].strip("-")
    encoded = name.encode("utf-8", "surrogatepass")
    return f"{readable or 'x'}-{hashlib.sha256(encoded).hexdigest()[:8]}"


# Names of datasets, and the settings in them --------------------------------------------------------------------------

_IN_BRACKETS = re.compile(r"(.*?)\[([a-z_]+=.+|)\]", re.DOTALL)
_BETWEEN = ", "
_NEXT = re.compile(r", (?=[a-z_]+=)")  # a regular expression may hold a comma, too
_AT_DEFAULT = {"seed": "0", "intensity": "auto", "decoder": "pillow"}  # defaults that can be said
LOCATED = ("folder", "table")  # kinds of datasets whose names hold their place


def with_settings(name: str, settings: Mapping[str, JSON]) -> str:
    """Return a dataset's name with the settings that are not their default, if there are any."""
    words = [f"{key}={_word(value)}" for key, value in settings.items()]
    return f"{name}[{_BETWEEN.join(words)}]" if words else name


def _word(value: JSON) -> str:
    if isinstance(value, (list, tuple)):
        return "+".join(map(str, value))
    return "yes" if value is True else str(value)


def bare_name(name: str) -> str:
    """Return a dataset's name without its settings."""
    return _taken_apart(name)[0]


def settings_in(name: str) -> dict[str, str]:
    """Return the settings in a name's brackets, as text."""
    return dict(word.split("=", 1) for word in _taken_apart(name)[1] or ())


def has_settings(name: str) -> bool:
    """Say whether a name has brackets; `[]` states that all settings are at their default."""
    return _taken_apart(name)[1] is not None


def _taken_apart(name: str) -> tuple[str, list[str] | None]:
    """Return a name without its brackets, and the settings in them; None where there are no brackets."""
    match = _IN_BRACKETS.fullmatch(name)
    if match is None:
        return name, None
    return match[1], _NEXT.split(match[2]) if match[2] else []


def mapped_place(name: str, place: Callable[[str], str]) -> str:
    """Return a name with the place in it, if it holds one, replaced by `place` of it; settings stay as they are."""
    bare = bare_name(name)
    kind, colon, rest = bare.partition(":")
    return f"{kind}:{place(rest)}{name[len(bare) :]}" if colon and kind in LOCATED else name


def loadable_name(shown: str, location: str | None) -> str:
    """Return the name that loads a dataset again, beside its settings, from how it is shown and where it was read."""
    return mapped_place(bare_name(shown), lambda place: location or place)


def without_place(name: str) -> str:
    """Return a name as it is shown: `folder:NAME` for `folder:PATH`, `table:NAME` for `table:PATH.csv`."""
    return mapped_place(name, lambda place: Path(place).stem if name.startswith("table:") else Path(place).name)


def data_dir_of(shown: str, location: str | None) -> str | None:
    """Return the `--data-dir` where a dataset was read; None if its name holds its place, or if it is generated."""
    if not location or loadable_name(shown, location) != bare_name(shown):
        return None
    return location if Path(location).is_dir() else str(Path(location).parent)


def is_named(shown: str, location: str | None, name: str) -> bool:
    """Return whether `name` is a dataset as it is shown, or as it is typed, with the path to it.

    A name without brackets matches any settings.  One with settings matches every dataset that has these; a default,
    as `[seed=0]`, matches a dataset without the setting.  `[]` matches a dataset without settings.
    """
    base, asked = _taken_apart(name)
    typed = mapped_place(base, lambda place: os.path.abspath(os.path.expanduser(place)))
    if base != bare_name(shown) and typed != loadable_name(shown, location):
        return name == shown
    has = settings_in(shown)
    if not asked:
        return asked is None or not has
    return all(has.get(key, _AT_DEFAULT.get(key)) == value for key, value in settings_in(name).items())


def is_exactly(shown: str, location: str | None, name: str) -> bool:
    """Return whether `name` says all settings of a dataset, and no others."""
    return is_named(shown, location, name) and has_settings(name) and settings_in(name) == settings_in(shown)


@dataclass(frozen=True)
class Variant:
    """What was made of one dataset with the same settings.

    name: what is typed after `--dataset` to choose it.  made: grows with its newest part.
    """

    name: str
    grouped: bool
    made: tuple[float, ...]


def newest_grouped(variants: Sequence[Variant]) -> Variant | None:
    """Return the newest variant that has groups, or the only one; None if no rule chooses one."""
    best, *others = sorted(variants, key=lambda one: (one.grouped, one.made), reverse=True)
    if others and (not best.grouped or (others[0].grouped, others[0].made) == (best.grouped, best.made)):
        return None
    return best


def taken(variants: Sequence[Variant], *, what: str) -> Variant:
    """Return the newest variant that has groups, or the only one; one of several is named on stderr.

    what: what was made, at the beginning of a sentence.

    Raises:
        InputError: several variants without groups, or equally new ones, so that no rule chooses one.
    """
    best = newest_grouped(variants)
    if best is None:
        names = sorted(one.name for one in variants)
        raise InputError(
            f"{what} of '{bare_name(names[0])}' were made with several settings: {' and '.join(names)}. "
            f"Choose: --dataset '{names[0]}'"
        )
    others = [f"--dataset '{one.name}'" for one in variants if one is not best]
    if others:
        progress.note(f"{what} of {best.name}: the newest with groups. Others: {' and '.join(others)}")
    return best


def typed(dataset: str) -> str:
    """Return the name that chooses a dataset's settings; `[]` is added where they are the default."""
    return dataset if has_settings(dataset) else f"{dataset}[]"
