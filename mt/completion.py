"""What a shell completes after an option: models, datasets, metrics, protocols."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import click
from click.shell_completion import CompletionItem


def with_completions(command: click.Command) -> click.Command:
    """Return the command, whose options (and its commands') complete the names that a registry holds."""
    for part in command.commands.values() if isinstance(command, click.Group) else ():
        with_completions(part)
    for parameter in command.params:
        names = _NAMES.get(parameter.name or "")
        if names is not None and isinstance(parameter, click.Option):
            setattr(parameter, "shell_complete", _completing(names))  # noqa: B010  (a method of click's)
    return command


def _completing(names: Callable[[], Iterable[str]]) -> Callable[[click.Context, str], list[CompletionItem]]:
    def complete(_: click.Context, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(name) for name in names() if name.startswith(incomplete)]

    return complete


def _models() -> Iterable[str]:
    from mt.backbones.registry import REGISTRY

    return REGISTRY


def _datasets() -> Iterable[str]:
    """Yield the names of the registry, and those of the features in the default cache."""
    from mt.cache.catalog import Catalog
    from mt.datasets.registry import DATASETS
    from mt.system import folders

    known = [f"{name}:" if spec.argument == "required" else name for name, spec in DATASETS.items()]
    return dict.fromkeys([*known, *(entry.dataset for entry in Catalog(folders.cache_dir(None)).entries())])


def _metrics() -> Iterable[str]:
    from mt.probe.scores.metrics import METRICS

    return [*METRICS, "all"]


def _protocols() -> Iterable[str]:
    from mt.probe.protocols import PROTOCOLS

    return PROTOCOLS


_NAMES: dict[str, Callable[[], Iterable[str]]] = {
    "models": _models, "datasets": _datasets, "dataset": _datasets, "test_dataset": _datasets, "metrics": _metrics,
    "protocol": _protocols,
}  # fmt: skip
