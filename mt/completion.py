"""What a shell completes after an option: models, datasets, metrics, protocols, columns."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from mt.cache.names import bare_name
from mt.errors import MtError

if TYPE_CHECKING:
    from mt.cache.catalog import Entry


def with_completions(command: click.Command) -> click.Command:
    """Return the command with completions of registry names added to its options, and to those of its commands."""
    for part in command.commands.values() if isinstance(command, click.Group) else ():
        with_completions(part)
    for parameter in command.params:
        names = _NAMES.get(parameter.name or "")
        if names is not None and isinstance(parameter, click.Option):
            setattr(parameter, "shell_complete", _completing(names))  # noqa: B010  (a method of click's)
    return command


Names = Callable[[click.Context], Iterable[str]]  # takes the options that were typed before


def _completing(names: Names) -> Callable[[click.Context, str], list[CompletionItem]]:
    def complete(context: click.Context, incomplete: str) -> list[CompletionItem]:
        known: Iterable[str] = ()
        with suppress(MtError, OSError):  # a shell waits: no completion is better than a message
            known = names(context)
        return [CompletionItem(name) for name in known if name.startswith(incomplete)]

    return complete


def _models(_: click.Context) -> Iterable[str]:
    from mt.backbones.registry import REGISTRY

    return REGISTRY


def _entries(context: click.Context) -> list[Entry]:
    """Return the features in the cache, of the datasets that were named."""
    from mt.cache.catalog import Catalog
    from mt.system import files

    datasets = context.params.get("datasets") or ()
    return Catalog(files.cache_dir(context.params.get("cache_dir"))).entries(datasets=datasets)


def _datasets(context: click.Context) -> Iterable[str]:
    """Return the names of the registry, and those of the features in the cache."""
    from mt.cache.catalog import Catalog
    from mt.datasets.registry import DATASETS
    from mt.system import files

    known = [f"{name}:" if spec.argument == "required" else name for name, spec in DATASETS.items()]
    there = Catalog(files.cache_dir(context.params.get("cache_dir"))).entries()
    return dict.fromkeys([*known, *(entry.dataset for entry in there)])


def _feature_columns(context: click.Context) -> Iterable[str]:
    """Return the columns that test features keep."""
    splits = [entry.manifest.get("inputs", {}).get("dataset", {}).get("splits", {}) for entry in _entries(context)]
    return dict.fromkeys(name for split in splits for name in split.get("test", {}).get("columns", {}))


def _table_columns(context: click.Context) -> Iterable[str]:
    """Return the columns of the tables that were named."""
    from mt.datasets.tabular.sheets import read_table

    named = [*(context.params.get("datasets") or ()), *context.args]
    tables = [name.removeprefix("table:") for name in map(bare_name, named) if name.startswith("table:")]
    return dict.fromkeys(column for table in tables for column in read_table(Path(table).expanduser()).columns)


def _group_columns(context: click.Context) -> Iterable[str]:
    return ["none", *_table_columns(context)]


def _dicom_columns(_: click.Context) -> Iterable[str]:
    from mt.datasets.dicom.headers import COLUMNS

    return [*COLUMNS, "all"]


def _metrics(_: click.Context) -> Iterable[str]:
    from mt.probe.scores.metrics import METRICS

    return [*METRICS, "all"]


def _protocols(_: click.Context) -> Iterable[str]:
    from mt.probe.protocols import PROTOCOLS

    return PROTOCOLS


_NAMES: dict[str, Names] = {
    "models": _models,
    "datasets": _datasets,
    "dataset": _datasets,
    "test_dataset": _datasets,
    "metrics": _metrics,
    "protocol": _protocols,
    "by": _feature_columns,
    "columns": _dicom_columns,
    "image_column": _table_columns,
    "label_columns": _table_columns,
    "group_column": _group_columns,
}
