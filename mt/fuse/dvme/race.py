"""Recipes against each other on held-out rows of a budget, fold by fold.

In a fold everything that looks at a label (penalty and solution of the logistic start, stopping epoch) looks at the
fold's fitting rows alone: inner folds of them choose the penalty; a network trains on all but the first inner fold,
stops where the loss on that one is lowest, and predicts the rows that the fold holds out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from mt.fuse.dvme.problem import DVMEProblem, choose_penalty, logistic_start
from mt.fuse.dvme.recipes import Recipe
from mt.fuse.dvme.training import Linear, StandardRows, build, loss, predict, train

Array = npt.NDArray[Any]
PENALTIES = 10.0 ** np.linspace(-3, 3, 7)  # every other C of the protocol `default`


@dataclass(frozen=True)
class Candidate:
    """A recipe with the epoch at which each fold stopped, and logits (n, outputs) and losses (n,) of held-out rows.

    StandardRows of folds that it did not run have the loss NaN.
    """

    recipe: Recipe
    fold_epochs: list[int]
    logits: Array
    losses: Array

    @classmethod
    def new(cls, recipe: Recipe, problem: DVMEProblem) -> Candidate:
        n = len(problem.rows)
        return cls(recipe, [], np.full((n, problem.shape.n_outputs), np.nan), np.full(n, np.nan))

    @property
    def epochs(self) -> int:
        return int(np.median(self.fold_epochs))

    def run(self, fitting: FoldRows, problem: DVMEProblem, held: Array) -> None:
        """Train on a fold's fitting rows and predict those it holds out."""
        rows = problem.rows.take(held)
        stop, logits = fitting.predict(self.recipe, rows)
        self.fold_epochs.append(stop)
        self.logits[held] = logits.numpy()
        self.losses[held] = loss(logits, rows.y.cpu(), problem.task).numpy()

    def gain_over(self, first: Candidate, known: Array, groups: Array | None) -> tuple[float, float]:
        """Return by how much the mean loss is lower than the first's, and its standard error, rows of a group together.

        Over the known rows (n,) that this recipe predicted.
        """
        rows = known & np.isfinite(self.losses)
        difference = (first.losses - self.losses)[rows]
        if not len(difference):
            return 0.0, 0.0
        gain = float(difference.mean())
        unit = np.arange(len(difference)) if groups is None else np.unique(groups[rows], return_inverse=True)[1]
        sums = np.bincount(unit, weights=difference - gain)
        return gain, float(np.sqrt(np.square(sums).sum()) / len(difference))


def out_of_fold(problem: DVMEProblem, fold: Array, recipes: Sequence[Recipe], known: Array) -> list[Candidate]:
    """Return what each recipe did on the rows that folds hold out; `known` (n,): those that count.

    A recipe that has gained nothing over the first one after two folds or more runs no further; a first one that trains
    nothing does not run alone.
    """
    candidates = [Candidate.new(recipe, problem) for recipe in recipes]
    running = candidates
    for number in range(int(fold.max()) + 1):
        fitting = FoldRows.prepare(problem.take(np.flatnonzero(fold != number)))
        for candidate in running:
            candidate.run(fitting, problem, np.flatnonzero(fold == number))
        if number:
            first, *others = running
            running = [first, *(one for one in others if one.gain_over(first, known, problem.groups)[0] > 0)]
            if len(running) == 1 and not recipes[0].epochs:
                break
    return candidates


@dataclass(frozen=True)
class FoldRows:
    """A fold's fitting rows: those that networks train on, their logistic start, and those that say when to stop.

    `stopping` is None where the labels are too few to hold any out: then a logistic start stays as it is.
    """

    inner: DVMEProblem
    start: Linear
    stopping: StandardRows | None = None

    @classmethod
    def prepare(cls, problem: DVMEProblem) -> FoldRows:
        fold = problem.folds()
        if fold is None or problem.one_class:
            return cls(problem, logistic_start(problem, 1.0))
        C = choose_penalty(problem, fold, PENALTIES)
        inner = problem.take(np.flatnonzero(fold != 0))
        return cls(inner, logistic_start(inner, C), problem.rows.take(np.flatnonzero(fold == 0)))

    def predict(self, recipe: Recipe, held: StandardRows) -> tuple[int, torch.Tensor]:
        """Return the epoch (0: the start) of the lowest loss on the stopping rows, and its logits of held-out rows."""
        inner, task = self.inner, self.inner.task
        model = build(inner.shape, recipe, self.start, inner.seed).to(inner.rows.y.device)
        if self.stopping is None:
            epochs = 0 if recipe.start == "logistic" else recipe.epochs
            train(model, inner.rows, recipe, task, seed=inner.seed, epochs=epochs, class_weight=inner.weights())
            return epochs, self._logits(model, held)
        stopping = self.stopping
        history: list[float] = []
        best = torch.empty(0)

        def go_on() -> bool:
            nonlocal best
            history.append(float(loss(predict(model, stopping.X)[0], stopping.y, task).mean()))
            if int(np.argmin(history)) == len(history) - 1:
                best = self._logits(model, held)
            return len(history) - int(np.argmin(history)) <= recipe.patience

        go_on()
        train(model, inner.rows, recipe, task, seed=inner.seed, class_weight=inner.weights(), go_on=go_on)
        return int(np.argmin(history)), best

    @staticmethod
    def _logits(model: Any, rows: StandardRows) -> torch.Tensor:
        return predict(model, rows.X)[0].double().cpu()
