"""The training loop: AdamW with a rate per block, warm-up and cosine, mixed precision, accumulation, several ranks.

The weights at the end are the mean of those after each of the last steps (stochastic weight averaging, Izmailov et al.,
UAI 2018): with few labels the last steps fluctuate around their mean.

Everything that decides a run's numbers is in its state: weights, optimizer, scaler and the position in the global order
of samples.  That order depends on seed and epoch alone, a sample's moves and dropout also on the sample.  A batch is
divided among the ranks, and each rank's share into parts that fit the device, so neither changes what a step sees.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mt.errors import FitError
from mt.fuse.dvme.optimizer import MOST_NORM, schedule
from mt.fuse.end_to_end.augment import Moves
from mt.fuse.end_to_end.checkpoint import Checkpoint, Checkpoints
from mt.fuse.end_to_end.images import ahead
from mt.fuse.end_to_end.network import EndToEnd, checkpoint_blocks
from mt.fuse.end_to_end.trainable.families import CandidateRates, parameter_groups
from mt.fuse.end_to_end.trainable.lora import merge
from mt.fuse.end_to_end.work import Part, Work, batches, dropout, smooth_loss
from mt.types import Array

AVERAGED = 0.2  # the share of the steps, the last ones, whose weights are averaged
WRITING = 0.05  # the share of the time that checkpoints at the ends of epochs may take


class Run:
    """One network in training, from its start or from a checkpoint, one epoch at a time.

    epochs: the length of the schedule.
    """

    def __init__(self, network: EndToEnd, work: Work, part: Part, candidate: CandidateRates, *, epochs: int) -> None:
        self.network, self.work, self.part, self.candidate, self.epochs = network, work, part, candidate, epochs
        with work.computing():
            network.to(work.device)
        self.n_steps = epochs * -(-len(part.rows) // work.settings.batch)
        heads, decay = (network.head, network.own), work.settings.weight_decay
        groups = parameter_groups(network.backbones, heads, candidate, weight_decay=decay)
        self.optimizer = torch.optim.AdamW(groups, lr=candidate.head, fused=work.device.type in ("cpu", "cuda"))
        self.scaler = torch.amp.GradScaler(work.device.type, enabled=work.settings.precision == "float16")
        self.parameters = [parameter for group in groups for parameter in group["params"]]
        self.averaged: list[Tensor] = []
        self._frozen = {name for name, one in network.named_parameters() if not one.requires_grad}
        self.epoch = self.step = self.place = 0
        if work.machine.checkpoint_grad:
            checkpoint_blocks(network)

    def train_epoch(self, kept: Kept) -> None:
        """Train from the current place in the epoch to its end, with a checkpoint every `checkpoint_every` steps.

        Raises FitError if the loss or its gradient is not a number, MtError if a batch does not fit in memory.
        """
        self.network.train()
        order = batches(len(self.part.rows), self.work.settings.batch, seed=self.work.seed, epoch=self.epoch)
        todo = [(batch, part) for batch in order[self.place :] for part in self._parts(batch)]
        total = torch.zeros((), device=self.work.device)
        for (batch, part), made in ahead(todo, self._made, workers=self.work.workers):
            if part.begins:
                self.optimizer.zero_grad()
                total.zero_()
            total += self._backward(made, part.places, len(batch))
            if part.ends:
                self._finish_step(total, batch, kept)
        self.epoch, self.place = self.epoch + 1, 0

    def _parts(self, batch: Array) -> Iterator[_Part]:
        share = self.work.ranks.share(batch)
        size = self.work.machine.batch_size
        cuts = range(0, max(1, len(share)), size)
        for start in cuts:
            yield _Part(share[start : start + size], begins=start == 0, ends=start == cuts[-1])

    def _made(self, item: tuple[Array, _Part]) -> _Made:
        """Decode and turn the images of one part, and draw their dropout, on a thread."""
        work, rows = self.work, self.part.rows[item[1].places]
        pixels, moves = work.images.pixels(rows), work.augmentation.draw(work.seed, self.epoch, rows)
        for array in pixels:
            moves.turn(array)
        p = work.settings.dropout
        return _Made(pixels, moves, dropout(self.network.widths, p, seed=work.seed, epoch=self.epoch, samples=rows))

    def _backward(self, made: _Made, places: Array, n: int) -> Tensor:
        """Add the gradient of a part's share of the batch's mean loss; return that share."""
        if not len(places):
            return torch.zeros((), device=self.work.device)
        y = torch.from_numpy(self.part.y[places]).long().to(self.work.device)
        with self.work.computing():
            kept = [torch.from_numpy(array).to(self.work.device) for array in made.dropout]
            with self.work.autocast():
                logits = self.network.every_logits(self.work.inputs(made.pixels, made.moves), kept)
            share = self._loss(logits, y) / n
            torch.autograd.backward(self.scaler.scale(share))
        return share.detach()

    def _loss(self, logits: Sequence[Tensor], y: Tensor) -> Tensor:
        """Return the summed loss of all models together, plus the mean of their own."""
        task, smoothing = self.work.task, self.work.settings.label_smoothing
        together, *own = (smooth_loss(part.float(), y, task, smoothing).sum() for part in logits)
        return together + torch.stack(own).mean() if own else together

    def _finish_step(self, total: Tensor, batch: Array, kept: Kept) -> None:
        here = f"at epoch {self.epoch + 1}, step {self.step + 1}"
        self.work.ranks.sum_([total])
        if not torch.isfinite(total):
            raise FitError(self.not_a_number(f"loss is not a number {here}", self.part.rows[batch], kept))
        self.work.ranks.sum_([_gradient(parameter) for parameter in self.parameters])
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.parameters, MOST_NORM)
        if not (self.scaler.is_enabled() or torch.isfinite(norm)):  # the scaler leaves such a step out, and scales less
            raise FitError(self.not_a_number(f"gradient is not a number {here}", self.part.rows[batch], kept))
        share = schedule(self.step, self.n_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = group["rate"] * share
        with self.work.computing():
            self.scaler.step(self.optimizer)
        self.scaler.update()
        self.step, self.place = self.step + 1, self.place + 1
        self._average()
        if self.step % self.work.machine.checkpoint_every == 0:
            kept.write(self)

    @torch.no_grad()
    def _average(self) -> None:
        """Add the weights after a step to the mean, if the step is one of the last."""
        n = self.step - math.floor(self.n_steps * (1 - AVERAGED))
        if n == 1:
            self.averaged = [parameter.detach().clone() for parameter in self.parameters]
        elif n > 1:
            for mean, parameter in zip(self.averaged, self.parameters, strict=True):
                mean.lerp_(parameter, 1 / n)

    @torch.no_grad()
    def finished(self) -> EndToEnd:
        """Return the network with its averaged weights, adapters merged, as it predicts.

        The run cannot be resumed after this.
        """
        for mean, parameter in zip(self.averaged, self.parameters, strict=True):
            parameter.copy_(mean)
        merge(self.network)
        return self.network

    def outcome(self) -> dict[str, Tensor]:
        """Return what `finished` needs of a run that is done, under the names of `state`: mean weights, and buffers."""
        parameters = dict(self.network.named_parameters())
        state = self.network.state_dict()
        tensors = {f"network.{name}": value for name, value in state.items() if name not in parameters}
        tensors |= {f"mean.{number}": value for number, value in enumerate(self.averaged)}
        return {name: tensor.cpu() for name, tensor in tensors.items()}

    def images_per_second(self) -> float:
        """Return the images per second that this process trains on, from two steps; the run is of no use afterwards."""
        self.network.train()
        places = np.arange(len(self.part.rows))
        batch = _Part(places[: self.work.machine.batch_size], begins=True, ends=True)
        seconds = 0.0
        for _ in range(2):  # the first pass prepares memory and kernels
            began = time.perf_counter()
            self.optimizer.zero_grad()
            self._backward(self._made((places, batch)), batch.places, len(places))
            nn.utils.clip_grad_norm_(self.parameters, MOST_NORM)
            with self.work.computing():
                self.optimizer.step()
            if self.work.device.type == "cuda":
                torch.cuda.synchronize(self.work.device)
            seconds = time.perf_counter() - began
        return len(batch.places) / max(seconds, 1e-9)

    def not_a_number(self, what: str, rows: Array, kept: Kept) -> str:
        """Return the message about a value that is not a number on some rows, with the checkpoint to resume from."""
        ids = ", ".join(self.work.images.ids[row] for row in rows)
        last = kept.files.last
        where = f"The last good checkpoint is {last}." if last else "There is no checkpoint yet."
        lower = self.candidate.lower
        return f"The {what}, on the images {ids}. {where} Look at these images, or lower the rate: {lower}"

    def state(self) -> dict[str, Tensor]:
        """Return what training changes as tensors by name: weights, their mean, the optimizer."""
        state = self.network.state_dict()
        tensors = {f"network.{name}": value for name, value in state.items() if name not in self._frozen}
        tensors |= {f"mean.{number}": value for number, value in enumerate(self.averaged)}
        for number, values in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{name}": value for name, value in values.items()}
        return tensors

    def position(self) -> dict[str, Any]:
        """Return the run's position as JSON; the learning rates follow from the step."""
        return {"epoch": self.epoch, "step": self.step, "place": self.place, "scaler": self.scaler.state_dict()}

    def restore(self, tensors: Mapping[str, Tensor], position: dict[str, Any]) -> None:
        """Resume from what `state` and `position` returned, which do not depend on the number of ranks."""
        network = {name.removeprefix("network."): t for name, t in tensors.items() if name.startswith("network.")}
        self.network.load_state_dict({**self.network.state_dict(), **network})
        kept = sum(name.startswith("mean.") for name in tensors)
        self.averaged = [tensors[f"mean.{number}"].to(self.work.device) for number in range(kept)]
        held: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith("optimizer."):
                _, number, key = name.split(".", 2)
                held.setdefault(int(number), {})[key] = _laid_out_like(self.parameters[int(number)], tensor)
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": held, "param_groups": groups})
        self.scaler.load_state_dict(position["scaler"])
        self.epoch, self.step, self.place = position["epoch"], position["step"], position["place"]


@dataclass(frozen=True)
class _Part:
    """What one device computes at a time: places in the training set; whether it begins or ends a step."""

    places: Array
    begins: bool
    ends: bool


@dataclass(frozen=True)
class _Made:
    """The images of a part, their moves, and their dropout for each embedding that a head reads."""

    pixels: list[Array]
    moves: Moves
    dropout: list[Array]


class Kept:
    """Writes a run's checkpoints, with what is known of the fit around it.

    facts, tensors: what the fit adds (which run of it this is, what earlier runs found), as JSON and by name.
    """

    def __init__(self, files: Checkpoints, work: Work) -> None:
        self.files, self.work = files, work
        self.facts: dict[str, Any] = {}
        self.tensors: dict[str, Tensor] = {}
        self._due = 0.0  # when the next checkpoint at the end of an epoch is

    def write(self, run: Run) -> None:
        """Write a checkpoint from the first rank."""
        if self.work.ranks.first:
            began = time.monotonic()
            facts = {**self.facts, "position": run.position()}
            self.files.write(Checkpoint({**run.state(), **self.tensors}, facts))
            self._due = time.monotonic() + (time.monotonic() - began) / WRITING

    def end_epoch(self, run: Run) -> None:
        """Write a checkpoint, unless the last one is so recent that writing would take too much of the time.

        An epoch of 100 labels takes less than a second, and a checkpoint of a small network a third of one.
        """
        if time.monotonic() >= self._due:
            self.write(run)


def _gradient(parameter: Tensor) -> Tensor:
    """Return a parameter's gradient; zeros if no image of this rank reached it, so that all ranks sum the same list."""
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


def _laid_out_like(parameter: Tensor, tensor: Tensor) -> Tensor:
    """Return a saved moment in its parameter's memory layout, which the fused optimizer expects."""
    if tensor.shape != parameter.shape:
        return tensor
    return torch.empty_like(parameter, requires_grad=False).copy_(tensor)
