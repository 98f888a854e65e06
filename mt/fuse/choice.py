"""Choosing a recipe inside the budget, on the folds that the probes use.

In each fold, everything that looks at a label (penalty and solution of the logistic start, stopping epoch) looks at
the fold's fitting rows alone: the penalty by inner folds, the epoch on the first of them.  Then the recipe is trained
on all of the fold's fitting rows for that many epochs and predicts the rows held out.  Over all folds together, a
recipe replaces the first one, which keeps the logistic start, if its log loss is lower by more than a standard error.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from mt.fuse.recipes import Recipe
from mt.fuse.training import Linear, Rows, Shape, build, loss, predict, train
from mt.probe.budget import folds
from mt.probe.choose import log_loss, teachable
from mt.probe.linear import known_outputs
from mt.probe.logistic import fit_logistic, fit_path_folds

Array = npt.NDArray[Any]
PENALTIES = 10.0 ** np.linspace(-3, 3, 13)  # the values of C of the protocol `default`
INNER_PENALTIES = PENALTIES[::2]
MIN_ROWS = 100  # with fewer, held-out rows cannot tell a network from its logistic start: none is trained


@dataclass(frozen=True)
class Problem:
    """A budget ready to be learned: standardised rows whose labels are numbered 0 ... outputs - 1, and their groups."""

    rows: Rows
    groups: Array | None
    shape: Shape
    n_classes: int
    seed: int
    class_weight: Literal["balanced"] | None = None

    def take(self, rows: Array) -> Problem:
        groups = None if self.groups is None else self.groups[rows]
        return Problem(self.rows.take(rows), groups, self.shape, self.n_classes, self.seed, self.class_weight)

    @property
    def task(self) -> str:
        return self.shape.task

    @property
    def y(self) -> Array:
        return self.rows.y.cpu().numpy()

    def folds(self, k: int = 5) -> Array | None:
        groups = None if self.groups is None else self.groups.tolist()
        return folds(self.y, task=self.task, n_classes=self.n_classes, k=k, groups=groups, seed=self.seed)

    def concatenated(self) -> Array:
        return torch.cat(self.rows.X, dim=1).cpu().numpy()

    def weights(self) -> torch.Tensor | None:
        """Return the weight of each class, n / (K n_k); for multilabel the negatives a positive; None if unweighted."""
        if self.class_weight is None:
            return None
        y = self.y
        if self.task == "multilabel":
            positives = y.sum(axis=0)
            balance = (len(y) - positives) / np.maximum(positives, 1)
        else:
            counts = np.bincount(y, minlength=self.n_classes)
            balance = len(y) / (np.maximum(counts, 1) * (counts > 0).sum())
        return torch.tensor(balance, dtype=torch.float32, device=self.rows.y.device)


@dataclass(frozen=True)
class Candidate:
    """A recipe with the epoch at which each fold stopped, the out-of-fold logits (n, outputs) and losses (n,)."""

    recipe: Recipe
    fold_epochs: list[int]
    logits: Array
    losses: Array

    @property
    def epochs(self) -> int:
        return int(np.median(self.fold_epochs)) if self.fold_epochs else self.recipe.epochs


@dataclass(frozen=True)
class Choice:
    """What the budget decided: the recipe, its epochs, the penalty of the start, and the scores it was chosen by."""

    recipe: Recipe
    epochs: int
    C: float
    scores: dict[str, Any] = field(default_factory=dict)
    flags: tuple[str, ...] = ()


def choose_recipe(problem: Problem, recipes: Sequence[Recipe]) -> Choice:
    """Choose one of the recipes on held-out rows; where no fold can be made, the first with the penalty C = 1."""
    fold = problem.folds()
    if fold is None:
        first = recipes[0]
        return Choice(first, first.epochs, 1.0, flags=("fixed_C",))
    C = choose_penalty(problem, fold, PENALTIES)
    if not recipes[0].epochs and (len(recipes) == 1 or len(problem.rows) < MIN_ROWS):
        return Choice(recipes[0], 0, C, flags=() if len(recipes) == 1 else ("too_few_to_train",))
    candidates = out_of_fold(problem, fold, recipes)
    known = teachable(problem.y, fold, problem.n_classes, multilabel=problem.task == "multilabel")
    scored: Array = np.any(known.reshape(len(known), -1), axis=1)
    best = clearly_best(candidates, scored, problem.groups)
    return Choice(best.recipe, best.epochs, C, _account(candidates, scored, problem.groups))


def choose_penalty(problem: Problem, fold: Array, Cs: Array) -> float:
    """Return the C with the lowest pooled out-of-fold log loss of logistic regression on the concatenation."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folded = fit_path_folds(
            problem.concatenated(), problem.y, Cs, fold, task=problem.task, n_classes=problem.n_classes,
            class_weight=problem.class_weight,
        )  # fmt: skip
    multilabel = problem.task == "multilabel"
    known = teachable(problem.y, fold, problem.n_classes, multilabel=multilabel)
    if not known.any():
        return 1.0
    return float(Cs[int(np.argmin(log_loss(folded.oof, problem.y, known, multilabel=multilabel)))])


def logistic_start(problem: Problem, C: float) -> Linear:
    """Fit logistic regression on the concatenation; what these labels cannot teach gets weight 0 and a small chance.

    A class without rows gets the odds of half a row, a label that never varies its smoothed base rate.
    """
    X, y, multilabel = problem.concatenated(), problem.y, problem.task == "multilabel"
    taught, base = known_outputs(y, problem.task, problem.n_classes)
    start = Linear(np.zeros((problem.shape.n_outputs, X.shape[1])), np.zeros(problem.shape.n_outputs))
    if multilabel:
        start.intercept[:] = np.log(base / (1 - base))
    if not len(taught):
        return start
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = fit_logistic(
            X, y[:, taught] if multilabel else y, [C], task=problem.task,
            n_classes=None if multilabel else problem.n_classes, class_weight=problem.class_weight,
        )  # fmt: skip
    outputs = taught if multilabel else slice(None)
    start.coef[outputs], start.intercept[outputs] = path.coef[0], path.intercept[0]
    absent = ~np.isfinite(start.intercept)
    start.intercept[absent] = start.intercept[~absent].min(initial=0.0) - np.log(2 * len(y) + 1)
    return start


def out_of_fold(problem: Problem, fold: Array, recipes: Sequence[Recipe]) -> list[Candidate]:
    """Return each recipe's stopping epochs and the loss of every row while it was held out."""
    logits = {recipe.name: np.zeros((len(problem.rows), problem.shape.n_outputs)) for recipe in recipes}
    epochs: dict[str, list[int]] = {recipe.name: [] for recipe in recipes}
    for number in range(int(fold.max()) + 1):
        held = np.flatnonzero(fold == number)
        fitting = Fitting.prepare(problem.take(np.flatnonzero(fold != number)))
        for recipe in recipes:
            stop, predicted = fitting.predict(recipe, problem.rows.take(held))
            epochs[recipe.name].append(stop)
            logits[recipe.name][held] = predicted
    return [
        Candidate(recipe, epochs[recipe.name], logits[recipe.name], _losses(problem, logits[recipe.name]))
        for recipe in recipes
    ]


@dataclass(frozen=True)
class Fitting:
    """The fitting rows of one fold with their logistic start, and the rows among them that say when to stop.

    `inner` and `stopping` are None where the labels are too few to hold any out: then nothing is trained.
    """

    problem: Problem
    start: Linear
    inner: Problem | None = None
    inner_start: Linear | None = None
    stopping: Rows | None = None

    @classmethod
    def prepare(cls, problem: Problem) -> Fitting:
        fold = problem.folds()
        if fold is None or _one_class(problem):
            return cls(problem, logistic_start(problem, 1.0))
        C = choose_penalty(problem, fold, INNER_PENALTIES)
        inner = problem.take(np.flatnonzero(fold != 0))
        stopping = problem.rows.take(np.flatnonzero(fold == 0))
        return cls(problem, logistic_start(problem, C), inner, logistic_start(inner, C), stopping)

    def predict(self, recipe: Recipe, held: Rows) -> tuple[int, Array]:
        """Return the epoch to stop at and the logits of the held-out rows."""
        stop = self.stopping_epoch(recipe)
        model = trained(self.problem, recipe, self.start, stop)
        return stop, predict(model, held.X)[0].double().cpu().numpy()

    def stopping_epoch(self, recipe: Recipe) -> int:
        """Return the epoch (0 is the start) after which the loss on the stopping rows is lowest."""
        if self.inner is None or self.stopping is None:
            return 0 if recipe.start == "logistic" else recipe.epochs
        stopping, task = self.stopping, self.problem.task
        model = build(self.problem.shape, recipe, self.inner_start, self.problem.seed)
        history: list[float] = []

        def go_on() -> bool:
            history.append(float(loss(predict(model, stopping.X)[0], stopping.y, task).mean()))
            return len(history) - int(np.argmin(history)) <= recipe.patience

        go_on()
        train(
            model, self.inner.rows, recipe, task, seed=self.problem.seed, class_weight=self.inner.weights(), go_on=go_on
        )
        return int(np.argmin(history))


def trained(problem: Problem, recipe: Recipe, start: Linear, epochs: int) -> Any:
    """Return a recipe's network after so many epochs on all rows of the problem."""
    model = build(problem.shape, recipe, start, problem.seed)
    train(model, problem.rows, recipe, problem.task, seed=problem.seed, epochs=epochs, class_weight=problem.weights())
    return model


def _one_class(problem: Problem) -> bool:
    return not len(known_outputs(problem.y, problem.task, problem.n_classes)[0])


def _losses(problem: Problem, logits: Array) -> Array:
    found = loss(torch.from_numpy(logits), problem.rows.y.cpu(), problem.task)
    return found.numpy()


def clearly_best(candidates: Sequence[Candidate], known: Array, groups: Array | None) -> Candidate:
    """Return the candidate that gains most over the first, if by more than its standard error; else the first."""
    first, best, most = candidates[0], candidates[0], 0.0
    for candidate in candidates[1:]:
        gain, error = gain_over(first, candidate, known, groups)
        if gain > max(most, error):
            best, most = candidate, gain
    return best


def gain_over(first: Candidate, other: Candidate, known: Array, groups: Array | None) -> tuple[float, float]:
    """Return by how much the mean loss is lower than the first's, and the standard error, rows of a group together."""
    difference = (first.losses - other.losses)[known]
    gain = float(difference.mean())
    unit = np.arange(len(difference)) if groups is None else np.unique(groups[known], return_inverse=True)[1]
    sums = np.bincount(unit, weights=difference - gain)
    return gain, float(np.sqrt(np.square(sums).sum()) / len(difference))


def _account(candidates: Sequence[Candidate], known: Array, groups: Array | None) -> dict[str, Any]:
    """Return what is kept of a choice: every recipe's out-of-fold log loss, its gain, and where its folds stopped."""
    account = {}
    for candidate in candidates:
        gain, error = gain_over(candidates[0], candidate, known, groups)
        account[candidate.recipe.name] = {
            "log_loss": float(candidate.losses[known].mean()), "gain": gain, "standard_error": error,
            "fold_epochs": candidate.fold_epochs, "epochs": candidate.epochs,
        }  # fmt: skip
    return {"metric": "log_loss", "source": "folds", "recipes": account}
