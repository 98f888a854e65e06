"""What every run of a fit shares: copying images to a device, the global order of samples, joint prediction."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mt.errors import MtError
from mt.fuse.dvme.problem import loss
from mt.fuse.end_to_end.augment import Augmentation, Moves
from mt.fuse.end_to_end.blended import Blended
from mt.fuse.end_to_end.images import Images, ahead
from mt.fuse.end_to_end.network import EndToEnd
from mt.fuse.end_to_end.request import Machine, Settings
from mt.fuse.end_to_end.trainable.depthwise import SmallMaps
from mt.system.device import autocast, tf32
from mt.system.ranks import Ranks
from mt.types import MISSING, Array

_DROPOUT = 1  # the stream of random numbers beside that of a sample's moves


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
    n_classes: int
    seed: int

    def inputs(self, pixels: list[Array], moves: Moves | None) -> list[Tensor]:
        """Return one normalised image tensor (n, 3, S, S) per backbone, on the device."""
        found = []
        for recipe, array in zip(self.images.recipes, pixels, strict=True):
            tensor = torch.from_numpy(array)
            if self.device.type == "cuda":
                tensor = tensor.pin_memory().to(self.device, non_blocking=True)
            images = recipe.normalize(tensor.to(self.device))
            images = moves.warp(images) if moves else images
            found.append(images.contiguous(memory_format=torch.channels_last))
        return found

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        return autocast(self.device, self.settings.precision)

    @contextlib.contextmanager
    def computing(self) -> Iterator[None]:
        """Compute without TF32, and turn an out-of-memory error into one line with settings that need less."""
        try:
            with tf32(allowed=False), SmallMaps():
                yield
        except (RuntimeError, MemoryError) as error:
            if not _no_memory(error):
                raise
            raise MtError(memory_advice(self.settings, self.machine, self.device)) from error


@dataclass(frozen=True)
class Part:
    """Rows to train on: their places among the images, and their labels as the network numbers them."""

    rows: Array
    y: Array


def batches(n: int, batch: int, *, seed: int, epoch: int) -> list[Array]:
    """Return the order of an epoch: the places 0 ... n - 1 shuffled, in equally large batches of at most `batch`."""
    order = np.random.default_rng([seed, epoch]).permutation(n)
    return np.array_split(order, -(-n // batch))


def dropout(widths: Sequence[int], p: float, *, seed: int, epoch: int, samples: Array) -> list[Array]:
    """Return what embeddings of some samples are multiplied by, (n, width) for each width: 0 or 1 / (1 - p), float32.

    As a sample's moves (`mt.fuse.end_to_end.augment`), its numbers depend on seed, epoch and sample alone.
    """
    if not p:
        return []
    drawn = [
        np.random.default_rng([seed, epoch, int(sample), _DROPOUT]).random(sum(widths), np.float32)
        for sample in samples
    ]
    kept = (np.array(drawn, np.float32).reshape(-1, sum(widths)) >= p) / np.float32(1 - p)
    return np.split(kept, np.cumsum(widths)[:-1], axis=1)


@torch.no_grad()
def predict(network: EndToEnd | Blended, work: Work, rows: Array) -> tuple[Array, Array]:
    """Return logits (n, outputs) and the attention each model receives (n, M), float64; ranks share the work."""
    network.to(work.device).eval()
    n, n_outputs, size = len(rows), network.n_outputs, work.machine.batch_size
    found = torch.zeros(n, n_outputs + network.n_models, dtype=torch.float64)
    mine = work.ranks.share(np.arange(n))
    cuts = [mine[start : start + size] for start in range(0, len(mine), size)]
    for places, pixels in ahead(cuts, lambda places: work.images.pixels(rows[places]), workers=work.workers):
        with work.computing(), work.autocast():
            logits, attention = network.with_attention(work.inputs(pixels, None))
        both = torch.cat([logits.float(), attention.float().mean(dim=(1, 2))], dim=1)
        found[torch.from_numpy(places)] = both.cpu().double()
    work.ranks.sum_([found])
    return found[:, :n_outputs].numpy(), found[:, n_outputs:].numpy()


def smooth_loss(logits: Tensor, y: Tensor, task: str, smoothing: float) -> Tensor:
    """Return the log loss of each row with label smoothing; `mt.fuse.dvme.problem.loss` describes the shapes."""
    found = loss(logits, y, task)
    if not smoothing:
        return found
    if task == "multilabel":
        both = [loss(logits, torch.where(y == MISSING, y, value), task) for value in (0, 1)]
        uniform = (both[0] + both[1]) / 2
    else:
        several = torch.cat([torch.zeros_like(logits), logits], dim=-1) if logits.shape[-1] == 1 else logits
        uniform = -torch.log_softmax(several, dim=-1).mean(dim=-1)
    return (1 - smoothing) * found + smoothing * uniform


def _no_memory(error: Exception) -> bool:
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)


def memory_advice(settings: Settings, machine: Machine, device: torch.device) -> str:
    """Return the message for a batch that does not fit: settings that need less memory and are not in use yet."""
    half, odd = divmod(machine.batch_size, 2)
    same = f" --accumulate {2 * machine.accumulate} (the same steps)" if not odd else " --accumulate 2"
    ways = [f"--batch-size {half}{same if not settings.train_batch_norm else ''}"] * (machine.batch_size > 1)
    ways += ["--checkpoint-grad"] * (not machine.checkpoint_grad)
    ways += ["--precision bfloat16"] * (settings.precision == "float32" and device.type == "cuda")
    ways += [f"--unfreeze-last {max(1, settings.last // 2) if settings.last else 2}"] * (settings.last != 1)
    said = f"{device} has no memory for a step on {machine.batch_size} images. "
    if not ways:
        return f"{said}Nothing is left that needs less of it: take a smaller backbone, see: mt models"
    return f"{said}Use less: {', or '.join(ways)}. The same steps resume from the last checkpoint."
