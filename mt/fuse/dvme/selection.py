"""Choosing a recipe inside the budget, on the folds that the probes use; all recipes train on all folds at once.

In a fold, a network trains on the fitting rows without the first inner fold, stops where the loss on that one is
lowest, and predicts the rows that the fold holds out.  Over all folds together, a recipe replaces the first one, which
keeps the logistic start, if its log loss is lower by more than a standard error.

If blend is tried, the start is the logistic regression or blend, whichever has the lower log loss.  Each network then
gets the share of the prediction, beside blend, that has the lowest log loss.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from mt.fuse.dvme.coordinates import Directions
from mt.fuse.dvme.logistic_starts import FoldStart, LogisticStarts
from mt.fuse.dvme.module import DVME
from mt.fuse.dvme.networks import build
from mt.fuse.dvme.problem import DVMEProblem, Linear, loss
from mt.fuse.dvme.recipes import BLEND, Recipe
from mt.fuse.dvme.training import Outcome, Trainee, Training, start_logits, train
from mt.types import Array

MIN_ROWS = 100  # with fewer, held-out rows cannot show whether a network beats its logistic start: none is trained
SHARES = (0.25, 0.5, 0.75, 1.0)  # of a network in the prediction, beside blend


@dataclass(frozen=True)
class ChosenRecipe:
    """The choice made inside the budget: recipe, epochs, penalty of the start, and the scores it was chosen by.

    share: of the network in the prediction; the rest is blend's.
    """

    recipe: Recipe
    epochs: int
    C: float
    scores: dict[str, Any] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    share: float = 1.0


@dataclass(frozen=True)
class Candidate:
    """A recipe with the epoch at which each fold stopped, and logits (n, outputs) and losses (n,) of held-out rows.

    share: of the network in the prediction that the losses are of.
    """

    recipe: Recipe
    fold_epochs: list[int]
    logits: Array
    losses: Array
    share: float = 1.0

    @classmethod
    def of(
        cls, recipe: Recipe, problem: DVMEProblem, folds: Sequence[FoldStart], found: Sequence[Outcome]
    ) -> Candidate:
        """Join a recipe's results on all folds."""
        logits = np.empty((len(problem), problem.shape.n_outputs))
        for fold, outcome in zip(folds, found, strict=True):
            logits[fold.held] = outcome.logits
        losses = loss(torch.from_numpy(logits), torch.from_numpy(problem.y).long(), problem.task).numpy()
        return cls(recipe, [outcome.epoch for outcome in found], logits, losses)

    def beside(self, blend: Array, y: Array, share: float) -> Candidate:
        """Return the candidate with a share of the prediction; blend: probabilities (n, outputs) of the same rows."""
        powers = np.exp(self.logits - self.logits.max(axis=1, keepdims=True))
        p = share * powers / powers.sum(axis=1, keepdims=True) + (1 - share) * blend
        losses = -np.log(np.maximum(p[np.arange(len(y)), y], 1e-12))
        return replace(self, losses=losses, share=share)

    @property
    def epochs(self) -> int:
        return int(np.median(self.fold_epochs))

    def gain_over(self, first: Candidate, known: Array, groups: Array | None) -> tuple[float, float]:
        """Return how much lower the mean loss over known rows is than the first's, and the standard error of that.

        known: (n,) bool.  groups (n,): the standard error treats the rows of a group as one unit.
        """
        difference = (first.losses - self.losses)[known]
        if not len(difference):
            return 0.0, 0.0
        gain = float(difference.mean())
        unit = np.arange(len(difference)) if groups is None else np.unique(groups[known], return_inverse=True)[1]
        sums = np.bincount(unit, weights=difference - gain)
        return gain, float(np.sqrt(np.square(sums).sum()) / len(difference))


class DVMEFitter:
    """Chooses and fits on one budget; its logistic starts share a basis, its networks their directions.

    threads: the number that train at the same time, each its own networks.
    blend: returns the out-of-fold probabilities (n, outputs) of blend over all models; None if it is not tried.
    """

    def __init__(
        self, problem: DVMEProblem, *, threads: int = 1, blend: Callable[[Array], Array] | None = None
    ) -> None:
        self.problem, self.threads, self.blend = problem, threads, blend
        self.starts = LogisticStarts(problem)
        self._directions: Directions | None = None

    def fit(self, recipes: Sequence[Recipe]) -> tuple[ChosenRecipe, DVME]:
        """Choose one of the recipes on held-out rows, and train it on all rows for the median of the folds' epochs.

        If no fold can be made, the first recipe is taken, with the penalty C = 1.
        """
        fold = self.problem.folds(np.arange(len(self.problem)))
        C, start = self.starts.whole(fold)
        choice = self._choose(recipes, fold, C)
        return choice, self._network(choice.recipe, start, choice.epochs)

    def candidates(self, recipes: Sequence[Recipe], fold: Array) -> list[Candidate]:
        """Return each recipe's result on the held-out rows; networks of one form train together."""
        folds = self._starts(fold)
        found: dict[str, list[Outcome]] = {}
        for recipe in recipes:
            if not recipe.epochs and recipe.start == "logistic":
                found[recipe.name] = [Outcome(0, start_logits(self.problem.X, one, one.held)) for one in folds]
        by_form: dict[tuple[object, ...], list[Recipe]] = {}
        for recipe in recipes:
            if recipe.name not in found:
                by_form.setdefault(recipe.form, []).append(recipe)
        for alike in by_form.values():
            trainees = [Trainee(recipe, one, _epochs(recipe, one)) for recipe in alike for one in folds]
            outcomes = train(self.problem, trainees, self.directions, threads=self.threads)
            for number, recipe in enumerate(alike):
                found[recipe.name] = outcomes[number * len(folds) : (number + 1) * len(folds)]
        return [Candidate.of(recipe, self.problem, folds, found[recipe.name]) for recipe in recipes]

    def _starts(self, fold: Array) -> list[FoldStart]:
        """Return the folds' starts; a second thread finds the directions at the same time."""
        if self.threads == 1:
            return self.starts.of_folds(fold)
        with ThreadPoolExecutor(1) as aside:
            aside.submit(lambda: self.directions)
            return self.starts.of_folds(fold)

    @property
    def directions(self) -> Directions:
        """The directions of the budget's rows that networks see."""
        if self._directions is None:
            self._directions = Directions.of(self.problem.X, self.problem.seed)
        return self._directions

    def _choose(self, recipes: Sequence[Recipe], fold: Array | None, C: float) -> ChosenRecipe:
        problem, first = self.problem, recipes[0]
        if fold is None:
            return ChosenRecipe(first, first.epochs, C, flags=("fixed_C",))
        few = not first.epochs and len(recipes) > 1 and len(problem) < MIN_ROWS
        flags = ("too_few_to_train",) if few else ()
        recipes = recipes[:1] if few else recipes
        if not first.epochs and len(recipes) == 1 and self.blend is None:
            return ChosenRecipe(first, 0, C, flags=flags)
        known = problem.teachable(np.arange(len(problem)), fold)
        known = np.any(known.reshape(len(known), -1), axis=1)
        candidates = self.candidates(recipes, fold)
        if self.blend is not None:
            candidates = beside_blend(candidates, self.blend(fold), problem.y, known)
        best = clearly_best(candidates, known, problem.groups)
        account = _account(candidates, known, problem.groups)
        return ChosenRecipe(best.recipe, best.epochs, C, account, flags, best.share)

    def _network(self, recipe: Recipe, start: Linear, epochs: int) -> DVME:
        """Return a recipe's network after this many epochs on all rows, in float64 on the CPU."""
        if not epochs:
            linear = torch.from_numpy(start.coef), torch.from_numpy(start.intercept)
            return build(self.problem.shape, recipe, linear, self.problem.seed)
        none = np.zeros(0, dtype=np.int64)
        whole = FoldStart(np.arange(len(self.problem)), none, none, start)
        training = Training(self.problem, [Trainee(recipe, whole, epochs)], self.directions)
        training.run()
        return training.model(0)


def _epochs(recipe: Recipe, fold: FoldStart) -> int:
    """Return a recipe's most epochs on a fold: 0 for a logistic start without rows to stop on."""
    return 0 if recipe.start == "logistic" and not len(fold.stopping) else recipe.epochs


def beside_blend(candidates: Sequence[Candidate], blend: Array, y: Array, known: Array) -> list[Candidate]:
    """Return the better start first, then the other one, then each network with its best share beside blend.

    candidates: the logistic start, then the networks.  blend: out-of-fold probabilities (n, outputs).
    """
    start, *networks = candidates

    def mean(candidate: Candidate) -> float:
        return float(candidate.losses[known].mean()) if known.any() else 0.0

    alone = replace(start.beside(blend, y, 0.0), recipe=BLEND)
    mixed = [min((one.beside(blend, y, share) for share in SHARES), key=mean) for one in networks]
    return [*sorted((start, alone), key=mean), *mixed]


def clearly_best(candidates: Sequence[Candidate], known: Array, groups: Array | None) -> Candidate:
    """Return the candidate that gains most over the first by more than a standard error; else the first."""
    first, best, most = candidates[0], candidates[0], 0.0
    for candidate in candidates[1:]:
        gain, error = candidate.gain_over(first, known, groups)
        if gain > max(most, error):
            best, most = candidate, gain
    return best


def _account(candidates: Sequence[Candidate], known: Array, groups: Array | None) -> dict[str, Any]:
    """Return the stored record of a choice: each recipe's out-of-fold log loss, gain, and epochs of its folds."""
    account = {}
    for candidate in candidates:
        gain, error = candidate.gain_over(candidates[0], known, groups)
        account[candidate.recipe.name] = {
            "log_loss": float(candidate.losses[known].mean()),
            "gain": gain,
            "standard_error": error,
            "fold_epochs": candidate.fold_epochs,
            "epochs": candidate.epochs,
            **({} if candidate.share == 1 else {"share": candidate.share}),
        }
    return {"metric": "log_loss", "source": "folds", "recipes": account}
