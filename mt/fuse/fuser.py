"""Answers a question with a method on several models: best single, average, concatenation, DVME."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mt.errors import InputError
from mt.fuse.aligned import AlignedFeatures
from mt.fuse.combined import CombinedProbes, mean_of, save_combined
from mt.fuse.dvme.fit import DVMEOptions, fit_dvme
from mt.fuse.dvme.recipes import CHOICES, recipes_of
from mt.fuse.saved import save_dvme
from mt.probe.budgets.draw import Draw, DrawSource
from mt.probe.protocols import Fitting
from mt.probe.questions import Pair, Question
from mt.probe.run import fit_probe, row_flags, versions
from mt.probe.saved import ModelFolder
from mt.results.store import Fit, ScoreStore
from mt.types import Array

REVISION = 5  # of fusion; raised whenever its numbers change


class Fuser:
    """Fits one method on every question it is asked; holds the features of one set of models at a time.

    probes: for every question on several models, the probe questions on each (their fits are in the store).
    folder: where every fitted model is saved, ablations aside (`--save`).
    """

    def __init__(
        self, fitting: Fitting, store: ScoreStore, draws: DrawSource, probes: Mapping[str, list[Question]],
        folder: ModelFolder | None = None,
    ) -> None:  # fmt: skip
        self.fitting, self.store, self.draws, self.probes, self.folder = fitting, store, draws, probes, folder
        self._loaded: tuple[Pair, AlignedFeatures] | None = None

    def __call__(self, questions: Sequence[Question]) -> Iterator[Fit]:
        """Yield the fits that answer the questions, in their order, without those of questions that repeat a draw."""
        for question in questions:
            joined = self._joined(question.pair)
            drawn = self.draws.draw(joined.first.train, question.budget, question.seed)
            if not self.draws.repeats(question, drawn.realised):
                yield self._fit(question, joined, drawn)

    def _fit(self, question: Question, joined: AlignedFeatures, drawn: Draw) -> Fit:
        """Return what is kept of a fit: its test probabilities, and how they came about."""
        fitting = self.fitting.on(joined.task, joined.first.n_classes)
        found = {
            "best-single": self._best_single, "average": self._average, "concat": self._concat,
        }.get(question.method, self._dvme)(question, joined, drawn.rows)  # fmt: skip
        probabilities, fitted = found.pop("probabilities"), found.pop("fitted", None)
        flags = [*found.pop("flags"), *row_flags(joined.first.pair, joined.first, probabilities)]
        outcome = {
            "task": fitting.task, "class_names": list(joined.first.train.class_names),
            "protocol": fitting.protocol.name, "solver": self.fitting.solver_name, "select": "folds", "flags": flags,
            "realised": drawn.realised, "n_labels": len(drawn.rows),
            "versions": {**versions(fitting), "fuse": REVISION}, **found,
        }  # fmt: skip
        pool, cases = self.store.add_cases(joined.first.pool), self.store.add_cases(joined.first.cases)
        fit = Fit(question.identity, pool, cases, drawn.rows, probabilities, outcome)
        if self.folder and isinstance(fitted, CombinedProbes):
            save_combined(self.folder, question, fitted, fit)
        elif self.folder and question.method == "dvme":
            save_dvme(self.folder, question, fitted, fit)
        return fit

    def _joined(self, pair: Pair) -> AlignedFeatures:
        if self._loaded is None or self._loaded[0] is not pair:
            self._loaded = None
            self._loaded = pair, AlignedFeatures.load(pair)
        return self._loaded[1]

    def _singles(self, question: Question) -> list[tuple[str, Fit]]:
        return [(probe.pair.model, self.store.fit(probe.identity)) for probe in self.probes[question.identity]]

    def _best_single(self, question: Question, joined: AlignedFeatures, rows: Array) -> dict[str, Any]:
        """Return the probe whose chosen penalty had the best score on held-out rows of the budget."""
        singles = self._singles(question)
        scores = {model: max(fit.outcome["selection"].get("scores", [-np.inf])) for model, fit in singles}
        best = max(range(len(singles)), key=lambda number: scores[singles[number][0]])
        model, fit = singles[best]
        known = {name: score for name, score in scores.items() if np.isfinite(score)}
        found = {"probabilities": fit.probabilities} | self._again("best-single", question, joined, rows, (best,))
        return {
            **found, "settings": {"model": model, **fit.outcome["settings"]},
            "selection": {"metric": "negative log_loss", "source": "folds", "models": known},
            "flags": [flag for flag in fit.outcome["flags"] if flag == "fixed_C"],
        }  # fmt: skip

    def _average(self, question: Question, joined: AlignedFeatures, rows: Array) -> dict[str, Any]:
        """Return the mean of the single models' probabilities."""
        singles = self._singles(question)
        found = {"probabilities": mean_of([fit.probabilities for _, fit in singles])}
        found |= self._again("average", question, joined, rows, range(len(singles)))
        settings = {model: fit.outcome["settings"] for model, fit in singles}
        return {**found, "settings": settings, "selection": {}, "flags": []}

    def _again(
        self, rule: str, question: Question, joined: AlignedFeatures, rows: Array, places: Sequence[int]
    ) -> dict[str, Any]:
        """Return some single models' probes, where they are to be saved, with their probabilities.

        The store keeps what a probe predicts, not the probe: it is fitted again, to the same numbers.
        """
        if self.folder is None:
            return {}
        budget, fitting = joined.drawn(rows), self.fitting.on(joined.task, joined.first.n_classes)
        probes = [
            fit_probe(budget.with_features(budget.X[place]), fitting, seed=question.seed).probe for place in places
        ]
        combined = CombinedProbes(rule, tuple(probes), tuple(places))
        return {"fitted": combined, "probabilities": combined.probabilities([joined.test[p] for p in places])}

    def _concat(self, question: Question, joined: AlignedFeatures, rows: Array) -> dict[str, Any]:
        """Return the probe on the concatenation of all embeddings."""
        budget = joined.drawn(rows)
        fitting = self.fitting.on(joined.task, joined.first.n_classes)
        fitted = fit_probe(budget.with_features(np.concatenate(budget.X, axis=1)), fitting, seed=question.seed)
        return {
            "probabilities": fitted.probe.probabilities(joined.concatenated_test), "settings": fitted.settings,
            "fitted": CombinedProbes("concat", (fitted.probe,), tuple(range(len(joined.test)))),
            "selection": fitted.selection, "flags": list(fitted.flags),
        }  # fmt: skip

    def _dvme(self, question: Question, joined: AlignedFeatures, rows: Array) -> dict[str, Any]:
        """Return DVME, with the attention that each model receives on the test cases."""
        budget = joined.drawn(rows)
        fitted = fit_dvme(
            budget.X, budget.y, task=joined.task, n_classes=joined.first.n_classes, groups=budget.groups,
            options=DVMEOptions(recipes_of(CHOICES[question.method])), seed=question.seed, device=self.fitting.device,
        )  # fmt: skip
        probabilities, received = fitted.predict(joined.test)
        choice = fitted.choice
        return {
            "probabilities": probabilities, "fitted": fitted, "flags": list(choice.flags), "selection": choice.scores,
            "settings": {"recipe": choice.recipe.settings(), "epochs": choice.epochs, "C": choice.C},
            "attention": attention_by_class(question.pair, joined, received),
        }  # fmt: skip


def attention_by_class(pair: Pair, joined: AlignedFeatures, received: Array) -> dict[str, Any]:
    """Return the mean attention that each model receives, over all test cases and over those of each class."""
    labels, names = joined.first.cases.y, joined.first.train.class_names
    members = labels == 1 if labels.ndim == 2 else labels[:, None] == np.arange(len(names))
    by_class = {
        name: [round(float(value), 6) for value in received[members[:, number]].mean(axis=0)]
        for number, name in enumerate(names)
        if members[:, number].any()
    }
    overall = [round(float(value), 6) for value in received.mean(axis=0)]
    return {"models": pair.model.split(" + "), "overall": overall, "classes": by_class}


def identity_of(method: str, fitting: Fitting, probes: list[Question]) -> dict[str, Any]:
    """Return what enters a question's identity: everything of the method that changes a number."""
    if method in ("best-single", "average"):
        return {"probes": [probe.identity for probe in probes]}
    if method == "concat":
        return {**fitting.identity(), "select": "folds"}
    if method not in CHOICES:
        raise InputError(f"No method '{method}'. Known: best-single, average, concat, {', '.join(CHOICES)}")
    recipes = [recipe.settings() for recipe in recipes_of(CHOICES[method])]
    return {"fuse": REVISION, "recipes": recipes, "solver": fitting.identity()["solver"]}
