"""The options of `mt featurize` that say how a dataset is read, where they choose among features that are there."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar

import click

from mt.cache.dataset_name import bare_name, settings_in, with_settings
from mt.datasets.settings import WHOLE_NUMBERS, DatasetSettings, option_of
from mt.errors import InputError
from mt.system import folders

F = TypeVar("F", bound=Callable[..., Any])

_SHORT = "Choose features that were made with this."
_HELP = {
    "seed": "Choose features whose splits were drawn with this seed (--seeds counts draws of labels).",
    "task": "Choose features that were made with this task. These options are those of mt featurize.",
}


def dataset_choice(command: F) -> F:
    """Add the options; the command's `datasets` come with them, in the brackets of their names."""

    @functools.wraps(command)
    def with_choice(
        *args: object, datasets: tuple[str, ...], cache_dir: str | None = None, **values: object
    ) -> Any:
        given = {field.name: values.pop(field.name) for field in fields(DatasetSettings)}
        asked = {name: value for name, value in given.items() if not (value is None or value is False or value == ())}
        if asked:
            datasets = narrowed(datasets, asked, cache_dir)
        return command(*args, datasets=datasets, cache_dir=cache_dir, **values)

    for field in reversed(fields(DatasetSettings)):
        with_choice = _option(field.name, field.default)(with_choice)
    return with_choice  # type: ignore[return-value]


def _option(name: str, default: object) -> Callable[[F], F]:
    option, text = option_of(name), _HELP.get(name, _SHORT)
    if isinstance(default, bool):
        return click.option(option, name, is_flag=True, help=text)
    if isinstance(default, tuple):
        return click.option(option, name, multiple=True, metavar="NAME", help=text)
    if name in WHOLE_NUMBERS:
        return click.option(option, name, type=int, metavar="N", help=text)
    return click.option(option, name, metavar="VALUE", help=text)


def narrowed(datasets: Sequence[str], asked: Mapping[str, Any], cache_dir: str | None) -> tuple[str, ...]:
    """Return the datasets' names with these settings in their brackets; without names, those that have features so.

    Raises:
        InputError: a value that a setting cannot have; a name whose brackets say something else; or no such features.
    """
    settings = DatasetSettings(**asked)
    given = settings_in(with_settings("", {name: getattr(settings, name) for name in asked}))
    if datasets:
        return tuple(_with(name, given) for name in datasets)
    from mt.cache.catalog import Catalog

    entries = Catalog(folders.cache_dir(cache_dir)).entries(everything=True)
    names = dict.fromkeys(with_settings(bare_name(entry.dataset), given) for entry in entries)
    found = [name for name in names if Catalog(folders.cache_dir(cache_dir)).entries(datasets=[name], everything=True)]
    if not found:
        words = ", ".join(f"{option_of(name)} {value}" for name, value in given.items())
        raise InputError(f"No features were made with {words}. See: mt cache list --everything")
    return tuple(found)


def _with(name: str, given: Mapping[str, str]) -> str:
    inside = settings_in(name)
    for key, value in given.items():
        if inside.get(key, value) != value:
            said = f"'{name}' says {key}={inside[key]}, and {option_of(key)} {value} something else"
            raise InputError(f"{said}. Say one of them.")
    return with_settings(bare_name(name), {**inside, **given})
