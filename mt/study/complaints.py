"""The fault of a study file in one line: the place, what was expected there, and what was found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

from mt.errors import unknown

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

Place = Sequence[str | int]
# What one value of a list should be, by what the list holds.
ONE = {
    "names of datasets": "the name of a dataset",
    "names of backbones": "the name of a backbone",
    "names of methods": "the name of a method",
    "names of protocols": "the name of a protocol",
    "numbers above 0 and at most 1 (0.01 is 1 %)": "a number above 0 and at most 1 (0.01 is 1 %)",
    "whole numbers of at least 1": "a whole number of at least 1",
}


def complaint(model: type[BaseModel], error: Mapping[str, Any]) -> str:
    """Return one of pydantic's errors as a sentence; `model` is what the whole file was checked against."""
    place, kind = _keys(error["loc"]), error["type"]
    if kind == "extra_forbidden":
        *parents, key = place
        known = _model_at(model, parents).model_fields
        return f"{_words(place)}: {unknown('key', str(key), known, see='mt study --help')}"
    field = _field_at(model, place)
    expected = (field.description if field else None) or "another value"
    if kind == "missing":
        return f"'{_words(place)}' is missing: expected a list of {expected}."
    if kind == "mt":
        return f"{_words(place)}: {error['msg']}"
    if kind in ("model_type", "model_attributes_type"):
        return f"{_words(place)}: expected a table [{_words(place)}], found {error['input']!r}."
    found = error["input"]
    if kind in ("tuple_type", "too_short"):
        expected, found = f"a list of {expected}", list(found) if kind == "too_short" else found
    elif isinstance(place[-1], int):
        expected = ONE[expected]
    return f"{_words(place)}: expected {expected}, found {found!r}."


def _keys(loc: Place) -> Place:
    """Return the keys of a place as the file has them, without the '[key]' that pydantic adds for a mapping's key."""
    return [key for key in loc if key != "[key]"]


def _words(place: Place) -> str:
    """Return `fuse.fractions, value 2` of ("fuse", "fractions", 1)."""
    names = ".".join(f'"{key}"' if ":" in key else key for key in place if isinstance(key, str))
    return names + "".join(f", value {key + 1}" for key in place if isinstance(key, int))


def _field_at(model: type[BaseModel], place: Place) -> FieldInfo | None:
    *parents, key = [key for key in place if isinstance(key, str)]
    return _model_at(model, parents).model_fields.get(key)


def _model_at(model: type[BaseModel], parents: Place) -> type[BaseModel]:
    """Return the table that holds the keys below `parents`; below a mapping, the table of its values."""
    for key in parents:
        field = model.model_fields.get(str(key))
        if field is None:
            continue  # a key of a mapping
        annotation: Any = field.annotation
        model = get_args(annotation)[-1] if get_args(annotation) else annotation
    return model
