"""What every run of a fit shares: images on their way to a device, the global order of samples, predicting together."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mt.fuse.unfrozen.augment import Augmentation, Moves
from mt.fuse.unfrozen.images import Images, ahead
from mt.fuse.unfrozen.network import EndToEnd
from mt.fuse.unfrozen.ranks import Ranks
from mt.fuse.unfrozen.settings import Machine, Settings

Array = npt.NDArray[Any]
_AUTOCAST = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Work:
    """What every run of a fit shares: images, how and where to train.  workers: threads that make batches."""

    images: Images
    augmentation: Augmentation
    settings: Settings
    machine: Machine
    device: torch.device
    ranks: Ranks
    workers: int
    task: str
    seed: int

    def inputs(self, pixels: list[Array], moves: Moves | None) -> list[Tensor]:
        """Return one normalised image tensor (n, 3, S, S) a backbone on the device."""
        found = []
        for recipe, array in zip(self.images.recipes, pixels, strict=True):
            tensor = torch.from_numpy(array)
            if self.device.type == "cuda":
                tensor = tensor.pin_memory().to(self.device, non_blocking=True)
            images = recipe.normalize(tensor.to(self.device))
            found.append(moves.warp(images) if moves else images)
        return found

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        dtype = _AUTOCAST.get(self.settings.precision)
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None)


@dataclass(frozen=True)
class Part:
    """Rows to train on: their places among the images, and their labels as the network numbers them."""

    rows: Array
    y: Array


def batches(n: int, batch: int, *, seed: int, epoch: int) -> list[Array]:
    """Return the order of an epoch: the places 0 ... n - 1 shuffled, in equally large batches of at most `batch`."""
    order = np.random.default_rng([seed, epoch]).permutation(n)
    return np.array_split(order, -(-n // batch))


@torch.no_grad()
def predict(network: EndToEnd, work: Work, rows: Array) -> tuple[Array, Array]:
    """Return logits (n, outputs) and the attention each model receives (n, M), float64; ranks share the work."""
    network.to(work.device).eval()
    n, n_outputs, size = len(rows), network.n_outputs, work.machine.batch_size
    found = torch.zeros(n, n_outputs + len(network.backbones), dtype=torch.float64)
    mine = work.ranks.share(np.arange(n))
    cuts = [mine[start : start + size] for start in range(0, len(mine), size)]
    for places, pixels in ahead(cuts, lambda places: work.images.pixels(rows[places]), workers=work.workers):
        with work.autocast():
            logits, attention = network.with_attention(work.inputs(pixels, None))
        both = torch.cat([logits.float(), attention.float().mean(dim=(1, 2))], dim=1)
        found[torch.from_numpy(places)] = both.cpu().double()
    work.ranks.sum_([found])
    return found[:, :n_outputs].numpy(), found[:, n_outputs:].numpy()
