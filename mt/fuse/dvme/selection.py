"""Choosing a recipe inside the budget, on the folds that the probes use.

Over all folds together, a recipe replaces the first one, which keeps the logistic start, if its log loss is lower by
more than a standard error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from mt.fuse.dvme.module import DVME
from mt.fuse.dvme.problem import DVMEProblem, choose_penalty
from mt.fuse.dvme.race import Candidate, out_of_fold
from mt.fuse.dvme.recipes import Recipe
from mt.fuse.dvme.training import Linear, build, train

Array = npt.NDArray[Any]
PENALTIES = 10.0 ** np.linspace(-3, 3, 13)  # the values of C of the protocol `default`
MIN_ROWS = 100  # with fewer, held-out rows cannot tell a network from its logistic start: none is trained


@dataclass(frozen=True)
class ChosenRecipe:
    """What the budget decided: the recipe, its epochs, the penalty of the start, and the scores it was chosen by."""

    recipe: Recipe
    epochs: int
    C: float
    scores: dict[str, Any] = field(default_factory=dict)
    flags: tuple[str, ...] = ()


def choose_recipe(problem: DVMEProblem, recipes: Sequence[Recipe]) -> ChosenRecipe:
    """Choose one of the recipes on held-out rows; where no fold can be made, the first with the penalty C = 1."""
    fold = problem.folds()
    if fold is None:
        first = recipes[0]
        return ChosenRecipe(first, first.epochs, 1.0, flags=("fixed_C",))
    C = choose_penalty(problem, fold, PENALTIES)
    if not recipes[0].epochs and (len(recipes) == 1 or len(problem.rows) < MIN_ROWS):
        return ChosenRecipe(recipes[0], 0, C, flags=() if len(recipes) == 1 else ("too_few_to_train",))
    known = problem.teachable(fold)
    known = np.any(known.reshape(len(known), -1), axis=1)
    candidates = out_of_fold(problem, fold, recipes, known)
    best = clearly_best(candidates, known, problem.groups)
    return ChosenRecipe(best.recipe, best.epochs, C, _account(candidates, known, problem.groups))


def trained(problem: DVMEProblem, recipe: Recipe, start: Linear, epochs: int) -> DVME:
    """Return a recipe's network after so many epochs on all rows of the problem."""
    model = build(problem.shape, recipe, start, problem.seed).to(problem.rows.y.device)
    train(model, problem.rows, recipe, problem.task, seed=problem.seed, epochs=epochs, class_weight=problem.weights())
    return model


def clearly_best(candidates: Sequence[Candidate], known: Array, groups: Array | None) -> Candidate:
    """Return the candidate that gains most over the first in all folds, if by more than its standard error."""
    first, best, most = candidates[0], candidates[0], 0.0
    for candidate in candidates[1:]:
        gain, error = candidate.gain_over(first, known, groups)
        if len(candidate.fold_epochs) == len(first.fold_epochs) and gain > max(most, error):
            best, most = candidate, gain
    return best


def _account(candidates: Sequence[Candidate], known: Array, groups: Array | None) -> dict[str, Any]:
    """Return what is kept of a choice: every recipe's out-of-fold log loss, its gain, and where its folds stopped."""
    account = {}
    for candidate in candidates:
        gain, error = candidate.gain_over(candidates[0], known, groups)
        account[candidate.recipe.name] = {
            "log_loss": float(np.nanmean(candidate.losses[known])), "gain": gain, "standard_error": error,
            "fold_epochs": candidate.fold_epochs, "epochs": candidate.epochs,
        }  # fmt: skip
    return {"metric": "log_loss", "source": "folds", "recipes": account}
