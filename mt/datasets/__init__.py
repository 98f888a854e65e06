"""Datasets: each publisher's files, read as splits of images with labels, ids and groups.

To add one, write a module with `load(request: DatasetRequest) -> Dataset` and an entry in `DATASETS`: docs/datasets.md.
"""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import lazy_loader

from mt.cache.names import LOCATED, bare_name, has_settings, settings_in
from mt.datasets.base import Dataset, ImageError, ImageSource, Split, validated
from mt.datasets.grouping import crossing_groups
from mt.datasets.listing import some
from mt.datasets.registry import DATASETS, DatasetRequest, DatasetSpec, OnError
from mt.datasets.settings import OF_TABLES, DatasetSettings, SettingWords, option_of, settings_of
from mt.datasets.splitting import draw_splits
from mt.errors import InputError, unknown
from mt.system import files
from mt.terminal.progress import counted
from mt.types import LabelledRows

if TYPE_CHECKING:
    from mt.cache.content import ContentIndex
    from mt.datasets.images import ImageFiles as ImageFiles

__getattr__, _, _ = lazy_loader.attach(__name__, submod_attrs={"images": ["ImageFiles"]})
__all__ = [
    "DATASETS",
    "Dataset",
    "DatasetRequest",
    "DatasetSettings",
    "DatasetSpec",
    "ImageError",
    "ImageFiles",
    "ImageSource",
    "LabelledRows",
    "Split",
    "draw_splits",
    "load_dataset",
]

_WHERE = {"folder": "folder", "table": "file"}  # what the place in a name is


def load_dataset(
    name: str,
    data_dir: Path | None = None,
    *,
    settings: DatasetSettings | None = None,
    download: bool = False,
    on_error: OnError = "raise",
    index: ContentIndex | None = None,
    **words: Unpack[SettingWords],
) -> Dataset:
    """Return a dataset by the name it is registered under; no pixel is read.

    `name` may carry an argument: `medmnist:pathmnist@64`, `folder:PATH`, `table:CSV`, `synthetic@10000`.
    `settings` (`DatasetSettings`) are the options of `mt featurize` that load it; single fields may be given by keyword
    (`task="ordinal"`) or in the name, as tables show it (`folder:PATH[seed=3]`).  `data_dir` is where published
    datasets are looked for; `download` fetches a missing one where its licence allows; `index` remembers hashes.
    The seed also draws the synthetic images; the published datasets' drawn splits have a seed of their own, part of
    their definition.  With `on_error="skip"` a label whose image does not exist keeps its row, which then loads as an
    `ImageError`.

    Raises:
        InputError: no such dataset, or an option it does not take.
        DatasetError: its files are missing, malformed or contradict each other.
    """
    settings = replace(settings or DatasetSettings(), **words)
    name, settings = named_settings(name, settings)
    family, argument = split_name(name)
    spec = DATASETS[family]
    _refuse_unused(settings, family, spec)
    if download and not spec.downloads:
        raise InputError(f"'{family}' cannot be downloaded for you. {spec.obtain}")
    request = DatasetRequest(
        name=name,
        argument=argument,
        spec=spec,
        data_dir=files.data_dir(data_dir),
        download=download,
        settings=settings,
        on_error=on_error,
        index=index,
    )
    module, function = spec.loader.split(":")
    dataset: Dataset = getattr(importlib.import_module(module), function)(request)
    dataset = _with_crossing_groups_noted(replace(validated(dataset), settings=settings))
    if not settings.hash_ids:
        return dataset
    splits = {name: replace(split, hash_ids=True) for name, split in dataset.splits.items()}
    return replace(dataset, splits=splits)


def named_settings(name: str, settings: DatasetSettings) -> tuple[str, DatasetSettings]:
    """Return a dataset's name without its brackets, and the settings with those in them.

    A folder or file whose own name has brackets is taken as it is.

    Raises:
        InputError: an unknown setting, or one that is given twice, differently.
    """
    if not has_settings(name) or _place_of(name).exists():
        return name, settings
    given = settings_of(settings_in(name), name=name)
    changed = settings.changed()
    for field, value in given.items():
        if changed.get(field, value) != value:
            other = f"{option_of(field)} {changed[field]}"
            raise InputError(f"'{name}' says {field}={value}, which contradicts {other}. Give one of them.")
    return bare_name(name), replace(settings, **given)


def _place_of(name: str) -> Path:
    return Path(name.partition(":")[2]).expanduser()


def _refuse_unused(settings: DatasetSettings, family: str, spec: DatasetSpec) -> None:
    """Refuse settings that have no meaning for a dataset, rather than ignore them."""
    for field in settings.changed():
        if field == "seed" or family == "table" or (spec.infers and field not in OF_TABLES):
            continue
        where = "table:" if field in OF_TABLES else "folder: and table:"
        raise InputError(f"{option_of(field)} does not apply to '{family}' ({spec.task}). It applies to {where}")


def _with_crossing_groups_noted(dataset: Dataset) -> Dataset:
    """Return the dataset with a warning when a published split separates what belongs together."""
    crossing = crossing_groups(dataset.splits)
    if not crossing:
        return dataset
    named = "" if dataset.settings.hash_ids else f": {some(list(crossing))}"
    count, verb = counted(len(crossing), "group"), "is" if len(crossing) == 1 else "are"
    warning = f"{count} ({dataset.grouping}) {verb} in more than one split{named}"
    return replace(dataset, warnings=(*dataset.warnings, warning))


def check_dataset_name(name: str) -> None:
    """Raise unless a dataset of that name could be read: it is registered, and the folder or table it names is there.

    Raises:
        InputError: it could not.
    """
    family, argument = split_name(named_settings(name, DatasetSettings())[0])
    if family in LOCATED and not Path(argument).expanduser().exists():
        there = f"there is no {_WHERE[family]} {argument}"
        raise InputError(f"No features of '{name}' are in the cache, and {there}. See: mt cache list")


def split_name(name: str) -> tuple[str, str]:
    """Return a dataset's registered name and its argument: `folder:PATH` is `folder` and `PATH`.

    Raises:
        InputError: no such dataset; or an argument is missing, or given where none is taken.
    """
    family, colon, argument = name.partition(":")
    if not colon:
        family, _, argument = name.partition("@")
    if family not in DATASETS:
        place = Path(name).expanduser()
        kind = "folder" if place.is_dir() else "table" if place.is_file() else ""
        if kind:
            raise InputError(f"No dataset '{name}', but there is a {_WHERE[kind]} of that name: use {kind}:{name}")
        raise unknown("dataset", name, [spec.usage for spec in DATASETS.values()], see="mt datasets")
    spec = DATASETS[family]
    wrong_mark = bool(argument) and colon != (":" if ":" in spec.usage else "")
    if wrong_mark or (argument and spec.argument == "none") or (not argument and spec.argument == "required"):
        raise InputError(f"'{name}' is not a dataset: expected {spec.usage}. See: mt datasets")
    return family, argument
