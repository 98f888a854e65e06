"""Out-of-fold probabilities of methods on several models, on which thresholds and scaling are chosen.

Best single model and average combine those of each model's probe; concatenation and blend use those of their own probe;
DVME is fitted in five more folds, including its choice of a recipe.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mt.fuse.combined import fitting_of, mean_of
from mt.fuse.dvme.fit import DVMEOptions, fit_dvme
from mt.fuse.dvme.recipes import CHOICES, recipes_of
from mt.probe.decisions.out_of_fold import BudgetTask, Predict, cross_fitted
from mt.probe.protocols import Fitting
from mt.probe.questions import Question
from mt.probe.run import fit_probe
from mt.types import Array, LabelledRows

Joined = LabelledRows[tuple[Array, ...]]


def fused_out_of_fold(question: Question, budget: Joined, fitting: Fitting, places: Sequence[int]) -> Array | None:
    """Return the probabilities of a budget's rows by fits that did not see them; None if no fold can be held out.

    places: the models that a rule of single models is made of.
    """
    if question.method in ("best-single", "average"):
        found = [_of_probe(question, budget.with_features(budget.X[place]), fitting) for place in places]
        known = [p for p in found if p is not None]
        return mean_of(known) if len(known) == len(found) else None
    if question.method in ("concat", "blend"):
        own = fitting_of(question.method, fitting, budget.X)
        return _of_probe(question, budget.with_features(np.concatenate(budget.X, axis=1)), own)

    def refit(rows: Joined) -> Predict:
        fitted = fit_dvme(
            rows.X,
            rows.y,
            task=fitting.task,
            n_classes=fitting.n_classes,
            groups=rows.groups,
            options=DVMEOptions(recipes_of(CHOICES[question.method])),
            seed=question.seed,
            device=fitting.device,
        )
        return fitted.probabilities

    return cross_fitted(budget, _task(question, fitting), refit)


def _of_probe(question: Question, rows: LabelledRows[Array], fitting: Fitting) -> Array | None:
    """Return a probe's out-of-fold probabilities; it is fitted again, since the store has only its test predictions."""
    own = fit_probe(rows, fitting, seed=question.seed).held_out
    if own is not None:
        return own

    def refit(part: LabelledRows[Any]) -> Predict:
        return fit_probe(part, fitting, seed=question.seed).probe.probabilities

    return cross_fitted(rows, _task(question, fitting), refit)


def _task(question: Question, fitting: Fitting) -> BudgetTask:
    return BudgetTask(fitting.task, fitting.n_classes, question.seed)
