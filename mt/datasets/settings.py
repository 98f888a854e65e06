"""The options that load a dataset, beside its name: one frozen object, from the command line to the reader.

`mt featurize` loads the dataset with these options; other commands use them to choose among existing features.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, TypedDict, TypeVar

import click

from mt.cache.names import LOCATED, bare_name, has_settings, settings_in, with_settings
from mt.datasets.decoding.rules import Decoding
from mt.errors import InputError, unknown
from mt.system import files
from mt.types import Task

# Fields that only `table:` uses.
OF_TABLES = (
    "hash_groups",
    "uncertain",
    "blank",
    "separator",
    "image_column",
    "label_columns",
    "group_column",
    "missing_group",
)
OF_DECODING = ("intensity", "frame", "voi", "max_pixels", "decoder")  # fields that change pixels
WHOLE_NUMBERS = ("seed", "max_pixels")
SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}


class SettingWords(TypedDict, total=False):
    """The fields of `DatasetSettings` as keywords."""

    task: Task | None
    group_regex: str | None
    seed: int
    intensity: str
    frame: str | None
    voi: str | None
    max_pixels: int | None
    decoder: Literal["pillow", "device"]
    columns: tuple[str, ...]
    hash_groups: bool
    hash_ids: bool
    uncertain: Literal["ignore", "0", "1"] | None
    blank: Literal["ignore", "0"] | None
    separator: str | None
    image_column: str | None
    label_columns: tuple[str, ...]
    group_column: str | None
    missing_group: Literal["own"] | None


@dataclass(frozen=True)
class DatasetSettings:
    """The options that load a dataset, beside its name; a default changes neither names nor fingerprints.

    `task` overrides what `folder:` and `table:` infer, `group_regex` finds the patient in their file names, `seed`
    draws their splits and the synthetic images. `intensity`, `frame`, `voi`, `max_pixels` and `decoder` determine
    pixels (`Decoding`). `columns` are attributes of DICOM headers to keep with each row; `hash_groups` stores a table's
    patients hashed, `hash_ids` all ids and groups. `uncertain` and `blank` say what -1 and an empty cell mean in a
    table's label columns (by default an empty cell in a single label column is a missing label); `separator` separates
    its cells. `image_column`, `label_columns` and `group_column` name a table's columns (`group_column="none"`: no
    groups); `missing_group="own"` makes each row without a patient a group of its own.
    """

    task: Task | None = None
    group_regex: str | None = None
    seed: int = 0
    intensity: str = "auto"
    frame: str | None = None
    voi: str | None = None
    max_pixels: int | None = None
    decoder: Literal["pillow", "device"] = "pillow"
    columns: tuple[str, ...] = ()
    hash_groups: bool = False
    hash_ids: bool = False
    uncertain: Literal["ignore", "0", "1"] | None = None
    blank: Literal["ignore", "0"] | None = None
    separator: str | None = None
    image_column: str | None = None
    label_columns: tuple[str, ...] = ()
    group_column: str | None = None
    missing_group: Literal["own"] | None = None

    def __post_init__(self) -> None:
        for name in ("frame", "voi", "uncertain", "blank"):
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else str(value))
        object.__setattr__(self, "columns", tuple(self.columns))
        object.__setattr__(self, "label_columns", tuple(self.label_columns))
        _ = self.decoding
        for name, known in (
            ("uncertain", ("ignore", "0", "1")),
            ("blank", ("ignore", "0")),
            ("missing_group", ("own",)),
        ):
            value = getattr(self, name)
            if value is not None and value not in known:
                raise InputError(f"{option_of(name)} {value} is not a choice: expected {', '.join(known)}.")
        if self.separator is not None and self.separator not in SEPARATORS and len(self.separator) != 1:
            raise InputError(
                f"--separator {self.separator} is not one: expected {', '.join(SEPARATORS)}, or one character."
            )

    @property
    def decoding(self) -> Decoding:
        return Decoding(self.intensity, self.frame, self.voi, self.max_pixels, self.decoder)

    def changed(self) -> dict[str, Any]:
        """Return the settings that are not their default, by field."""
        return {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if getattr(self, field.name) != field.default
        }

    def words(self) -> tuple[str, ...]:
        """Return the words that, typed after the name, load the same dataset again."""
        words: list[str] = []
        for name, value in self.changed().items():
            option = option_of(name)
            if value is True:
                words.append(option)
                continue
            for one in value if isinstance(value, tuple) else (value,):
                words += [option, str(one)]
        return tuple(words)


def settings_of(words: Mapping[str, str], *, name: str) -> dict[str, Any]:
    """Return the fields that words such as those in `folder:ihc[seed=3]` set.

    Raises:
        InputError: an unknown setting, or a value of another kind; `name` is what it was found in.
    """
    known = {field.name: field for field in fields(DatasetSettings)}
    given: dict[str, Any] = {}
    for key, text in words.items():
        if key not in known:
            raise unknown("setting", key, known, see="mt featurize --help")
        given[key] = _read(key, text, known[key].default, name)
    return given


def _read(key: str, text: str, default: object, name: str) -> Any:
    """Return the value that a word stands for."""
    if isinstance(default, bool):
        if text != "yes":
            raise InputError(f"{key}={text} in '{name}': expected {key}=yes, or nothing.")
        return True
    if isinstance(default, tuple):
        return tuple(text.split("+"))
    if key not in WHOLE_NUMBERS:
        return text
    try:
        return int(text)
    except ValueError:
        raise InputError(f"{key}={text} in '{name}': expected a whole number.") from None


def option_of(field: str) -> str:
    """Return the option that sets a field on the command line."""
    return f"--{field.removesuffix('s') if field.endswith('columns') else field}".replace("_", "-")


def decoding_of(about: Mapping[str, Any]) -> Decoding:
    """Return how the images of a saved model were decoded, from its JSON."""
    return DatasetSettings(**about.get("dataset_settings", {})).decoding


def decoded_alike(name: str, about: Mapping[str, Any]) -> str:
    """Return a dataset's name with the decoding of a saved model, from its JSON, unless the name says settings."""
    settings = about.get("dataset_settings", {})
    decoding = {field: settings[field] for field in OF_DECODING if field in settings}
    applies = bool(decoding) and not has_settings(name) and name.partition(":")[0] in LOCATED
    return with_settings(name, decoding) if applies else name


F = TypeVar("F", bound=Callable[..., Any])

_SHORT = "Choose features that were made with this."
_HELP = {
    "seed": "Choose features whose splits were drawn with this seed (--seeds counts draws of labels).",
    "task": "Choose features that were made with this task. These options are those of mt featurize.",
}


def dataset_choice(command: F) -> F:
    """Add the options; the command's `datasets` come with them, in the brackets of their names."""

    @functools.wraps(command)
    def with_choice(*args: object, datasets: tuple[str, ...], cache_dir: str | None = None, **values: object) -> Any:
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
    """Return the datasets' names with these settings in their brackets; without names, all whose features have them.

    Raises:
        InputError: a value that a setting cannot have; a name whose brackets say something else; or no such features.
    """
    settings = DatasetSettings(**asked)
    given = settings_in(with_settings("", {name: getattr(settings, name) for name in asked}))
    if datasets:
        return tuple(_with(name, given) for name in datasets)
    from mt.cache.catalog import Catalog

    entries = Catalog(files.cache_dir(cache_dir)).entries(everything=True)
    names = dict.fromkeys(with_settings(bare_name(entry.dataset), given) for entry in entries)
    found = [name for name in names if Catalog(files.cache_dir(cache_dir)).entries(datasets=[name], everything=True)]
    if not found:
        words = ", ".join(f"{option_of(name)} {value}" for name, value in given.items())
        raise InputError(f"No features were made with {words}. See: mt cache list --everything")
    return tuple(found)


def _with(name: str, given: Mapping[str, str]) -> str:
    inside = settings_in(name)
    for key, value in given.items():
        if inside.get(key, value) != value:
            said = f"'{name}' says {key}={inside[key]}, which contradicts {option_of(key)} {value}"
            raise InputError(f"{said}. Give one of them.")
    return with_settings(bare_name(name), {**inside, **given})
