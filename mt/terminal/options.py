"""Options that several commands share: the same name, help and default everywhere."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import click

from mt.errors import InputError
from mt.system.memory import bytes_of, cap_gpu_memory
from mt.terminal import progress

F = TypeVar("F", bound=Callable[..., Any])
Option = Callable[[F], F]


class MemoryAmount(click.ParamType[int]):
    """An amount of memory, in bytes once parsed."""

    name = "AMOUNT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        return value if isinstance(value, int) else bytes_of(value, param.opts[0] if param else "This option")


cache_dir = click.option(
    "--cache-dir", type=click.Path(file_okay=False), envvar="MT_CACHE_DIR", show_envvar=True,
    help="Folder of feature files.  [default: the user's cache folder]",
)  # fmt: skip
scores = click.option(
    "--scores", type=click.Path(dir_okay=False), envvar="MT_SCORES", show_envvar=True,
    help="Score database.  [default: beside the cache; if that is read-only, the user's own]",
)  # fmt: skip
everything = click.option(
    "--everything", is_flag=True, help="Use superseded, limited and random-weight features too."
)
data_dir = click.option(
    "--data-dir", type=click.Path(file_okay=False), envvar="MT_DATA_DIR", show_envvar=True,
    help="Folder that holds the dataset's published files, or one folder per dataset.  [default: ./data]",
)  # fmt: skip
as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
models = click.option(
    "--model", "models", multiple=True, metavar="NAME", help="A backbone (repeatable). See: mt models"
)
datasets = click.option(
    "--dataset", "datasets", multiple=True, metavar="NAME", help="A dataset (repeatable). See: mt datasets"
)


fractions = click.option(
    "--fraction", "fractions", multiple=True, type=float, metavar="F",
    help="Share of the train labels to use, above 0 and at most 1 (repeatable).  [default: 0.01, 0.1 and 1]",
)  # fmt: skip
shots = click.option(
    "--shots", multiple=True, type=int, metavar="K", help="Labels per class, instead of --fraction (repeatable)."
)
seeds = click.option(
    "--seeds", default=5, show_default=True, metavar="N", help="Random draws per budget; the 100 % budget has one."
)
metrics = click.option(
    "--metric", "metrics", multiple=True, metavar="NAME",
    help="A metric, or all (repeatable).  [default: the dataset's headline]",
)  # fmt: skip


def required(values: tuple[str, ...], option: str, *, see: str) -> None:
    """Refuse a command that lacks an option it cannot guess.

    Raises:
        InputError: no value was given.
    """
    if not values:
        raise InputError(f"{option} is missing: expected at least one {option} NAME. See: {see}")


def device(command: F) -> F:
    """Add `--device`, which the command gets, and `--gpu-memory`, which caps this process before the command runs."""

    @functools.wraps(command)
    def capped(*args: object, gpu_memory: int | None, **values: Any) -> Any:
        if gpu_memory is not None and (line := cap_gpu_memory(gpu_memory, values["device"])):
            progress.note(line)
        return command(*args, **values)

    for option in (
        click.option(
            "--gpu-memory", type=MemoryAmount(), metavar="AMOUNT",
            help="Take at most this much of the GPU's memory: 20, 20GB, 512MB.  [default: all of it]",
        ),
        click.option(
            "--device", default="auto", show_default=True, help="Where to compute: auto, cpu, cuda, cuda:1, mps."
        ),
    ):  # fmt: skip
        capped = option(capped)
    return capped  # type: ignore[return-value]
