"""One budget -> a fitted network: rate and epochs chosen on a fifth of it, then everything again on all of it.

Everything here sees the budget alone.  In the choice, the warm start too is fitted without the fifth held out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from mt.errors import FitError
from mt.fuse.dvme.fit import FittedDVME
from mt.fuse.dvme.problem import loss
from mt.fuse.end_to_end.checkpoint import Checkpoint
from mt.fuse.end_to_end.loop import Kept, Run
from mt.fuse.end_to_end.network import EndToEnd
from mt.fuse.end_to_end.warm_start import Budget, cached_stage, network_from
from mt.fuse.end_to_end.work import Part, Work, predict
from mt.probe.budgets.draw import stratified_split
from mt.terminal import progress

Array = npt.NDArray[Any]
HELD = 0.2  # of the budget, in whole groups


@dataclass(frozen=True)
class TunedFit:
    """A tuned network with its warm start, the chosen rate and epochs, and the held-out losses they were chosen by.

    network is None where the budget holds one class only: then the start's base rates predict.
    """

    network: EndToEnd | None
    start: FittedDVME
    settings: dict[str, Any]
    selection: dict[str, Any]
    flags: tuple[str, ...]


@dataclass(frozen=True)
class Chosen:
    """Learning rate and epochs, and each candidate's held-out log loss after 0, 1, ... epochs."""

    lr: float
    epochs: int
    histories: list[list[float]]
    flags: tuple[str, ...] = ()


class Fitter:
    """Fits one budget, from its checkpoint where there is one."""

    def __init__(self, budget: Budget, backbones: Sequence[nn.Module], work: Work, kept: Kept) -> None:
        self.budget, self.backbones, self.work, self.kept = budget, backbones, work, kept
        self.found: Checkpoint | None = kept.read()
        self.histories: list[list[float]] = self.found.facts["histories"] if self.found else []

    def fit(self) -> TunedFit:
        """Return the network that was tuned on the whole budget."""
        with torch.random.fork_rng(devices=[]):
            start = self._start(self.budget)
            recipe = {"name": "unfrozen", **self.work.settings.recipe(), "start": start.choice.recipe.name}
            if start.model is None:
                return TunedFit(None, start, {"recipe": recipe, "lr": None, "epochs": 0}, {}, start.choice.flags)
            chosen = self._choose()
            everything = np.arange(len(self.budget.y))
            network, _ = self._run(len(chosen.histories), start, everything, None, lr=chosen.lr, until=chosen.epochs)
        settings = {"recipe": recipe, "lr": chosen.lr, "epochs": chosen.epochs, "C": start.choice.C}
        rates = self.work.settings.learning_rates
        selection = {
            "metric": "log_loss", "source": f"{HELD:.0%} of the budget",
            "epochs": {f"{lr:g}": history for lr, history in zip(rates, chosen.histories, strict=False)},
        }  # fmt: skip
        flags = (*start.choice.flags, *chosen.flags, *(["start_kept"] if not chosen.epochs else []))
        return TunedFit(network.eval(), start, settings, selection if chosen.histories else {}, flags)

    def _start(self, budget: Budget) -> FittedDVME:
        """Fit the cached stage on the first rank, and tell the others."""
        work, start = self.work, None
        if work.ranks.first:
            start = cached_stage(budget, work.task, work.n_classes, seed=work.seed, device=str(work.device))
        return work.ranks.told(start)

    def _choose(self) -> Chosen:
        """Return the rate and the epoch with the lowest log loss on the rows held out; epoch 0 is the warm start."""
        settings = self.work.settings
        first = Chosen(settings.learning_rates[0], settings.epochs, [])
        if settings.fixed:
            return first
        split = held_out(self.budget, self.work)
        start = self._start(self.budget.take(split[0])) if split else None
        if split is None or start is None or start.model is None:
            return Chosen(first.lr, first.epochs, [], ("fixed_schedule",))
        for number, lr in enumerate(settings.learning_rates):
            if number >= len(self.histories):
                _, history = self._run(number, start, *split, lr=lr, until=settings.epochs)
                self.histories.append(history)
        best = min(
            ((value, number, epoch) for number, history in enumerate(self.histories)
             for epoch, value in enumerate(history))
        )  # fmt: skip
        return Chosen(settings.learning_rates[best[1]], best[2], list(self.histories))

    def _run(
        self, number: int, start: FittedDVME, rows: Array, held: Array | None, *, lr: float, until: int
    ) -> tuple[EndToEnd, list[float]]:
        """Train one network for `until` epochs of the whole schedule; returns the held-out loss after each."""
        work, settings = self.work, self.work.settings
        part, rest = self._part(start, rows), None if held is None else self._part(start, held)
        run = Run(network_from(start, self.backbones, settings), work, part, lr=lr, epochs=settings.epochs)
        history: list[float] = []
        if self.found and self.found.facts["run"] == number:
            self.kept.restore(run, self.found)
            history = self.found.facts["history"]
        elif rest is not None:
            history = [self._held_out_loss(run, rest)]
        label = "refit" if held is None else f"lr {lr:g}"
        with progress.bar(label, until if work.ranks.first else 0, unit="epochs", done=run.epoch) as advance:
            while run.epoch < until:
                self.kept.facts = {"run": number, "histories": self.histories, "history": history}
                run.train_epoch(self.kept)
                if rest is not None:
                    history.append(self._held_out_loss(run, rest))
                self.kept.write(run)
                advance(1)
        return run.network, history

    def _part(self, start: FittedDVME, rows: Array) -> Part:
        """Return those of the rows whose labels the start knows, numbered as it numbers them."""
        y, outputs = self.budget.y[rows], start.outputs
        if self.work.task == "multilabel":
            return Part(rows, y[:, outputs])
        known = np.isin(y, outputs)
        return Part(rows[known], np.searchsorted(outputs, y[known]))

    def _held_out_loss(self, run: Run, held: Part) -> float:
        logits, _ = predict(run.network, self.work, held.rows)
        y = torch.from_numpy(held.y).long()
        found = float(loss(torch.from_numpy(logits), y, self.work.task).mean())
        if not math.isfinite(found):  # before a checkpoint of such weights takes the place of a good one
            bad = held.rows[~np.isfinite(logits).all(axis=1)]
            raise FitError(run.not_a_number(f"held-out loss is not a number after epoch {run.epoch}", bad, self.kept))
        return found


def held_out(budget: Budget, work: Work) -> tuple[Array, Array] | None:
    """Return the rows to fit and a fifth to choose on, stratified, groups whole; None where that tells nothing."""
    parts = stratified_split(
        budget.y, task=work.task, n_classes=work.n_classes, fractions={"fit": 1 - HELD, "held": HELD},
        groups=None if budget.groups is None else list(budget.groups), seed=work.seed,
    )  # fmt: skip
    several = [len(np.unique(budget.y[rows], axis=0)) > 1 for rows in parts.values() if len(rows)]
    return (parts["fit"], parts["held"]) if len(several) == 2 and all(several) else None
