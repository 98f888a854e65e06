"""The options of every command that computes: where, and how much of a GPU's memory at most."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

from mt.terminal import progress
from mt.terminal.options import MemoryAmount

F = TypeVar("F", bound=Callable[..., Any])


def device_options(command: F) -> F:
    """Add `--device`, which the command gets, and `--gpu-memory`, which caps this process before the command runs."""

    @functools.wraps(command)
    def capped(*args: object, device: str, gpu_memory: int | None, **values: object) -> Any:
        if gpu_memory is not None and (line := cap_gpu_memory(gpu_memory, device)):
            progress.note(line)
        return command(*args, device=device, **values)

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


def cap_gpu_memory(amount: int, device: str) -> str | None:
    """Let this process take at most `amount` bytes of a CUDA device's memory; return a line where that has no effect.

    The cap is on what torch allocates.  CUDA's own context, some hundred MB, comes on top.  Work that needs more ends
    as on a card of that size: a batch is halved, and what cannot be halved is refused in one line.
    """
    import torch

    from mt.system.device import pick_device

    where = pick_device(device)
    if where.type != "cuda":
        return f"Note: --gpu-memory has no effect: this run computes on {where}."
    if str(where) == "cuda":  # each process of a torchrun has a card of its own
        where = torch.device("cuda", int(os.environ.get("LOCAL_RANK", torch.cuda.current_device())))
    total = torch.cuda.get_device_properties(where).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, amount / total), where)
    return None
