"""Train networks side by side: each step is one step of all folds and recipes, each with its own rows and rate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from mt.fuse.dvme.coordinates import Directions
from mt.fuse.dvme.logistic_starts import FoldStart
from mt.fuse.dvme.module import DVME
from mt.fuse.dvme.network_inputs import NetworkInputs, most_rows
from mt.fuse.dvme.networks import Networks, build
from mt.fuse.dvme.optimizer import AdamWToStart
from mt.fuse.dvme.problem import DVMEProblem, loss
from mt.fuse.dvme.recipes import Recipe
from mt.system.device import one_thread
from mt.types import Array

EPOCH_STEPS = 10, 100  # an epoch is one pass over the rows, but at least and at most this many steps
EVALUATED = 1 << 24  # input values that are evaluated at once


@dataclass(frozen=True)
class Trainee:
    """One network to train: a recipe on a fold, for at most `epochs`.

    It stops where the loss on the fold's stopping rows is lowest; without such rows it trains for all `epochs`.
    """

    recipe: Recipe
    fold: FoldStart
    epochs: int

    @property
    def watched(self) -> bool:
        return len(self.fold.stopping) > 0


@dataclass
class Outcome:
    """The epoch with the lowest loss (0: the start), the logits (held rows, outputs) after it, and the history.

    history: the loss on the stopping rows after 0, 1, ... epochs.
    """

    epoch: int
    logits: Array
    history: list[float] = field(default_factory=list)

    def goes_on(self, patience: int) -> bool:
        return len(self.history) - self.epoch <= patience

    def look(self, stopping: float, logits: Array) -> None:
        """Remember the loss after an epoch, and the logits if it is the lowest so far."""
        self.history.append(stopping)
        if int(np.argmin(self.history)) == len(self.history) - 1:
            self.epoch, self.logits = len(self.history) - 1, logits


class Training:
    """Networks of one form and batch size in training, from their starts.

    They share their directions; each also sees the part of its own start that lies outside of them.
    steps: per epoch; by default from the number of the networks' rows (`steps_of`).
    """

    def __init__(
        self, problem: DVMEProblem, trainees: Sequence[Trainee], directions: Directions, *, steps: int | None = None
    ) -> None:
        self.problem, self.trainees = problem, list(trainees)
        folds = {id(one.fold): one.fold for one in trainees}
        seen = {key: directions.with_start(problem.X, fold.start) for key, fold in folds.items()}
        self.lenses = [seen[id(one.fold)] for one in trainees]
        self.inputs = NetworkInputs(self.lenses, problem.X, [one.recipe.input_dropout for one in trainees])
        shape = replace(problem.shape, dims=self.lenses[0].dims)
        models = [
            build(shape, one.recipe, lens.start(), problem.seed)
            for one, lens in zip(trainees, self.lenses, strict=True)
        ]
        self.networks = Networks(models, problem.device)
        self.steps = steps or steps_of(trainees)
        recipes = [one.recipe for one in trainees]
        self.optimizer = AdamWToStart(self.networks, recipes, self.steps, self.inputs.faster)
        self.running = list(range(len(trainees)))
        self._y = torch.from_numpy(problem.y).long().to(problem.device)
        self._weights = self._class_weights()

    def run(self) -> list[Outcome]:
        """Train all networks until each has stopped; return their outcomes, in order."""
        outcomes = self._started()
        orders = [_order(one, self.problem.seed) for one in self.trainees]
        noise = torch.Generator().manual_seed(self.problem.seed)
        epoch = 0
        while len(self._keep(outcomes, epoch)):
            rows, counts = self._epoch([orders[number] for number in self.running])
            for step in range(self.steps):
                self._step(rows[step], counts[step], noise)
            epoch += 1
            self._look(outcomes, epoch)
        return outcomes

    def model(self, number: int) -> DVME:
        """Return a network that still runs, or ran to the end, as a module on the features: float64, on the CPU."""
        one, place = self.trainees[number], self.running.index(number)
        return self.networks.model(place, self.problem.shape, one.recipe, self.lenses[number])

    def _started(self) -> list[Outcome]:
        """Return the outcomes after 0 epochs; a logistic start has its own logits, in float64."""
        outcomes = [Outcome(0, np.zeros((0, 0))) for _ in self.trainees]
        self._look(outcomes, 0)
        return outcomes

    def _keep(self, outcomes: Sequence[Outcome], epoch: int) -> Array:
        """Keep the networks that have not stopped; return their places among those that ran."""
        goes_on = []
        for number in self.running:
            one = self.trainees[number]
            patient = not one.watched or outcomes[number].goes_on(one.recipe.patience)
            goes_on.append(epoch < one.epochs and patient)
        which = np.flatnonzero(goes_on)
        if 0 < len(which) < len(self.running):
            kept = torch.from_numpy(which).to(self.problem.device)
            self.networks.keep(kept)
            self.optimizer.keep(kept)
            self.running = [self.running[place] for place in which]
        return which

    def _epoch(self, orders: Sequence[Iterator[Array]]) -> tuple[Tensor, Tensor]:
        """Return the rows (steps, networks, batch) of an epoch, shorter batches filled up, and their counts."""
        drawn = [[next(order) for order in orders] for _ in range(self.steps)]
        counts = np.array([[len(rows) for rows in step] for step in drawn])
        filled = np.zeros((*counts.shape, counts.max()), dtype=np.int64)
        for step, batches in enumerate(drawn):
            for network, rows in enumerate(batches):
                filled[step, network, : len(rows)] = rows
        device = self.problem.device
        return torch.from_numpy(filled).to(device), torch.from_numpy(counts).to(device)

    def _step(self, rows: Tensor, counts: Tensor, noise: torch.Generator) -> None:
        """Take one step: rows (networks, batch), of which the first `counts` (networks,) count."""
        which = self._running()
        inputs = self.inputs.dropped(self.inputs.take(which, rows), which, rows, noise, self._most())
        weights = None if self._weights is None else self._weights[which]
        losses = loss(self.networks.logits(inputs, noise=noise), self._y[rows], self.problem.task, weights)
        counted = torch.arange(rows.shape[1], device=rows.device) < counts[:, None]
        torch.autograd.backward(((losses * counted).sum(dim=1) / counts).sum())
        self.optimizer.step()

    @torch.no_grad()
    def _look(self, outcomes: Sequence[Outcome], epoch: int) -> None:
        """Evaluate together the networks that need it after an epoch: those that watch a loss, begin or end."""
        places = [
            place
            for place, number in enumerate(self.running)
            if self.trainees[number].watched or epoch == self.trainees[number].epochs or not epoch
        ]
        numbers = [self.running[place] for place in places]
        asked = [self.trainees[number].fold for number in numbers]
        if not asked:
            return
        found = self._logits(places, [np.concatenate([fold.stopping, fold.held]) for fold in asked], epoch)
        for number, fold, logits in zip(numbers, asked, found, strict=True):
            stopping = torch.from_numpy(self.problem.y[fold.stopping]).long()
            n = len(stopping)
            if n:
                value = float(loss(torch.from_numpy(logits[:n]), stopping, self.problem.task).mean())
                outcomes[number].look(value, logits[n:])
            else:
                outcomes[number].epoch, outcomes[number].logits = epoch, logits[n:]

    def _logits(self, places: Sequence[int], rows: Sequence[Array], epoch: int) -> list[Array]:
        """Return the logits (rows, outputs) of some running networks on rows of their own, float64."""
        starts = [self.trainees[self.running[place]] for place in places]
        if not epoch and all(one.recipe.start == "logistic" for one in starts):
            return [start_logits(self.problem.X, one.fold, some) for one, some in zip(starts, rows, strict=True)]
        longest = max(len(some) for some in rows)
        if not longest:
            return [np.zeros((0, self.problem.shape.n_outputs)) for _ in rows]
        filled = np.zeros((len(rows), longest), dtype=np.int64)
        for place, some in enumerate(rows):
            filled[place, : len(some)] = some
        device = self.problem.device
        index = torch.from_numpy(np.array(places)).to(device)
        which, at = self._running()[index], torch.from_numpy(filled).to(device)
        block = max(1, EVALUATED // (len(rows) * sum(self.lenses[0].dims)))
        parts = [
            self.networks.logits(self.inputs.take(which, at[:, first : first + block]), index)
            for first in range(0, longest, block)
        ]
        found = torch.cat(parts, dim=1).cpu().double().numpy()
        return [logits[: len(some)] for logits, some in zip(found, rows, strict=True)]

    def _running(self) -> Tensor:
        return torch.tensor(self.running, device=self.problem.device)

    def _most(self) -> int:
        return most_rows(self.trainees[0].recipe.batch)

    def _class_weights(self) -> Tensor | None:
        """Return the weights (networks, 1, classes) of each network's own rows."""
        found = [self.problem.weights(one.fold.rows) for one in self.trainees]
        weights = [one for one in found if one is not None]
        if not weights:
            return None
        return torch.from_numpy(np.stack(weights)).to(self.problem.device, torch.float32)[:, None]


def train(problem: DVMEProblem, trainees: Sequence[Trainee], directions: Directions, *, threads: int) -> list[Outcome]:
    """Train networks of one form and batch size, each thread a share of them; return their outcomes, in order.

    Threads with networks of their own never wait for each other, unlike the threads of one product.
    """
    shares = min(threads, len(trainees)) if problem.device.type == "cpu" else 1
    steps = steps_of(trainees)
    trainings = [Training(problem, trainees[first::shares], directions, steps=steps) for first in range(shares)]
    with one_thread(wanted=shares > 1), ThreadPoolExecutor(shares) as pool:
        found = list(pool.map(Training.run, trainings))
    return [found[number % shares][number // shares] for number in range(len(trainees))]


def steps_of(trainees: Sequence[Trainee]) -> int:
    """Return the steps of an epoch of networks that train together."""
    rows = max(len(one.fold.rows) for one in trainees)
    return min(max(batches_of(rows, trainees[0].recipe.batch), EPOCH_STEPS[0]), EPOCH_STEPS[1])


def batches_of(n: int, batch: int) -> int:
    """Return how many batches of about `batch` rows one pass over n rows takes."""
    return max(1, round(n / batch))


def shuffled(n: int, batch: int, seed: int) -> Iterator[Array]:
    """Yield batches of row numbers without end, each pass in a new order, in batches of (almost) equal size."""
    rng = np.random.default_rng(seed)
    while True:
        yield from np.array_split(rng.permutation(n), batches_of(n, batch))


def _order(one: Trainee, seed: int) -> Iterator[Array]:
    return (one.fold.rows[batch] for batch in shuffled(len(one.fold.rows), one.recipe.batch, seed))


def start_logits(X: Sequence[Tensor], fold: FoldStart, rows: Array) -> Array:
    """Return the logits (rows, outputs) of a fold's logistic regression, float64."""
    index = torch.from_numpy(rows).to(X[0].device)
    coef = torch.from_numpy(fold.start.coef).to(X[0].device)
    parts = torch.split(coef, [x.shape[1] for x in X], dim=1)
    total = sum(x[index].double() @ part.T for x, part in zip(X, parts, strict=True))
    found: Array = (total + torch.from_numpy(fold.start.intercept).to(X[0].device)).cpu().numpy()
    return found


@torch.no_grad()
def predict(model: DVME, X: Sequence[Tensor], block: int = 4096) -> tuple[Tensor, Tensor]:
    """Return logits (n, outputs) and the attention each model receives (n, M): the mean over heads and tokens."""
    logits, received = [], []
    dtype = next(model.parameters()).dtype
    for start in range(0, len(X[0]), block):
        out, attention = model.with_attention([x[start : start + block].to(dtype) for x in X])
        logits.append(out)
        received.append(attention.mean(dim=(1, 2)))
    return torch.cat(logits), torch.cat(received)
