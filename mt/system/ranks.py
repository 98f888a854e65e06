"""Several processes that train one network: `torchrun --nproc-per-node 2 -m mt fuse --unfreeze ...`.

Every rank takes its share of each batch and sums gradients with the others, so that the weights stay equal on all.
gloo on CPUs, NCCL on GPUs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import numpy.typing as npt
import torch
from torch import Tensor
from torch import distributed as dist

from mt.errors import MtError

T = TypeVar("T")
_WAIT = timedelta(days=2)  # the first rank may work on the cached stage while the others wait
_BUCKET = 1 << 23  # numbers that are summed at once


@dataclass(frozen=True)
class Ranks:
    """This process among those of the run; one process alone needs no communication."""

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this process keeps checkpoints and scores, and prints."""
        return self.rank == 0

    def share(self, rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return this rank's part of some rows: every `world`-th."""
        return rows[self.rank :: self.world]

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors of one type by their sums over all ranks, several in one message."""
        if self.world == 1:
            return
        for bucket in _buckets(tensors):
            flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
            dist.all_reduce(flat)
            parts = torch.split(flat, [tensor.numel() for tensor in bucket])
            for tensor, part in zip(bucket, parts, strict=True):
                tensor.copy_(part.view(tensor.shape))

    def broadcast(self, value: T | None) -> T:
        """Return the first rank's value on every rank; the others may pass None."""
        box: list[Any] = [value]
        if self.world > 1:
            dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        sent: T = box[0]
        return sent


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    size = 0
    for tensor in tensors:
        bucket.append(tensor)
        size += tensor.numel()
        if size >= _BUCKET:
            yield bucket
            bucket, size = [], 0
    if bucket:
        yield bucket


@contextmanager
def joined(device: torch.device) -> Iterator[tuple[Ranks, torch.device]]:
    """Join the other processes of a torchrun; yields this rank, and its own GPU if the device is a GPU.

    Raises MtError if another process stopped.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Ranks(), device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=_WAIT)
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size()), device
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        raise MtError(f"Process {os.environ['RANK']} stopped because another one did: see its message.") from error
    finally:
        dist.destroy_process_group()
