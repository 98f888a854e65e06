"""Answers a question with a method on several models: best single, average, concatenation, blend, DVME."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mt.errors import InputError
from mt.fuse.aligned import AlignedFeatures, order_of
from mt.fuse.combined import CombinedProbes, fitting_of, mean_of, save_combined
from mt.fuse.dvme.fit import DVMEOptions, fit_dvme
from mt.fuse.dvme.recipes import CHOICES, recipes_of
from mt.fuse.saved import save_dvme
from mt.probe.budgets.draw import Draw, DrawSource
from mt.probe.protocols import Fitting, Probe, get_protocol
from mt.probe.questions import Pair, Question
from mt.probe.run import Opening, fit_probe, open_cases
from mt.probe.saved import ModelFolder
from mt.probe.scores.scoring import row_flags
from mt.results.store import Fit, ScoreStore
from mt.types import Array

if TYPE_CHECKING:
    from mt.probe.decisions.decided import Decider

REVISION = 7  # of fusion; raised whenever its numbers change


@dataclass(frozen=True)
class Single:
    """One model's probe on a draw: its probabilities on the joined test cases, and how it was chosen.

    probe: the fitted probe; None if the store had its probabilities.
    """

    model: str
    probabilities: Array
    settings: Mapping[str, Any]
    selection: Mapping[str, Any]
    flags: tuple[str, ...]
    probe: Probe | None = None


class Fuser:
    """Fits the method of each question; holds the features of one set of models at a time.

    probes: for every question on several models, the probe questions on each (their fits are in the store).
    folder: where fitted models are saved, except ablations (`--save`).  opened: opens one feature file.
    decider: takes the out-of-fold probabilities of every fit.
    """

    def __init__(
        self,
        fitting: Fitting,
        store: ScoreStore,
        draws: DrawSource,
        probes: Mapping[str, list[Question]],
        folder: ModelFolder | None = None,
        decider: Decider | None = None,
        opened: Opening = open_cases,
    ) -> None:
        self.fitting, self.store, self.draws, self.probes, self.folder = fitting, store, draws, probes, folder
        self.decider, self.opened = decider, opened
        self._loaded: tuple[Pair, AlignedFeatures] | None = None
        self._digests = "", ""  # of the pool and the test cases that are loaded

    def __call__(self, questions: Sequence[Question]) -> Iterator[Fit]:
        """Yield the fits that answer the questions, in their order, without those of questions that repeat a draw."""
        for question in questions:
            joined = self._joined(question.pair)
            drawn = self.draws.draw(joined.first.train, question.budget, question.seed)
            if not self.draws.repeats(question, drawn.realised):
                yield self._fit(question, joined, drawn)

    def _fit(self, question: Question, joined: AlignedFeatures, drawn: Draw) -> Fit:
        """Return the fit to store: its test probabilities, and how they were made."""
        fitting = self.fitting.on(joined.task, joined.first.n_classes)
        found = {
            "best-single": self._best_single,
            "average": self._average,
            "concat": self._concat,
            "blend": self._concat,
        }.get(question.method, self._dvme)(question, joined, drawn.rows)
        probabilities, fitted = found.pop("probabilities"), found.pop("fitted", None)
        if self.decider:
            self._keep_out_of_fold(self.decider, question, joined, drawn.rows, found["settings"])
        flags = [*found.pop("flags"), *row_flags(joined.first, probabilities)]
        outcome = {
            "task": fitting.task,
            "class_names": list(joined.first.train.class_names),
            "protocol": fitting.protocol.name,
            "solver": self.fitting.solver_name,
            "select": "folds",
            "flags": flags,
            "realised": drawn.realised,
            "n_labels": len(drawn.rows),
            "versions": {**fitting.versions(), **also_fitted(question.method, found["selection"]), "fuse": REVISION},
            **found,
        }
        fit = Fit(question.identity, *self._digests, drawn.rows, probabilities, outcome)
        if self.folder and isinstance(fitted, CombinedProbes):
            save_combined(self.folder, question, fitted, fit)
        elif self.folder and question.method == "dvme":
            save_dvme(self.folder, question, fitted, fit)
        return fit

    def _keep_out_of_fold(
        self, decider: Decider, question: Question, joined: AlignedFeatures, rows: Array, settings: Mapping[str, Any]
    ) -> None:
        """Keep the out-of-fold probabilities of a fit."""
        from mt.fuse.fused_folds import fused_out_of_fold

        models = [probe.pair.model for probe in self.probes[question.identity]]
        places = [models.index(settings["model"])] if question.method == "best-single" else range(len(models))
        fitting = self.fitting.on(joined.task, joined.first.n_classes)
        p = fused_out_of_fold(question, joined.drawn(rows), fitting, places)
        decider.out_of_fold.remember(question.identity, p)

    def _joined(self, pair: Pair) -> AlignedFeatures:
        if self._loaded is None or self._loaded[0] is not pair:
            self._loaded = None
            joined = AlignedFeatures.load(pair, self.opened)
            self._digests = self.store.add_cases(joined.first.pool), self.store.add_cases(joined.first.cases)
            self._loaded = pair, joined
        return self._loaded[1]

    def _singles(self, question: Question, joined: AlignedFeatures, rows: Array) -> list[Single]:
        """Return each model's probe on this draw, its predictions in the order of the joined test cases.

        The store's probe is used if it was fitted on the same cases.  Otherwise, or to save the probes, one is fitted
        on the joined rows.
        """
        probes = self.probes[question.identity]
        if self.folder is not None:
            return [self._fitted(question, joined, rows, place) for place in range(len(probes))]
        return [
            self._kept(probe.identity, probe.pair.model, joined, rows) or self._fitted(question, joined, rows, place)
            for place, probe in enumerate(probes)
        ]

    def _kept(self, identity: str, model: str, joined: AlignedFeatures, rows: Array) -> Single | None:
        """Return the stored probe, None if it was fitted on other cases."""
        fit, (pool, cases) = self.store.fit(identity), self._digests
        outcome, probabilities = fit.outcome, fit.probabilities
        if fit.pool != pool:
            ids = self.store.cases(fit.pool).ids
            if {ids[row] for row in fit.rows.tolist()} != {joined.first.pool.ids[row] for row in rows.tolist()}:
                return None
        if fit.cases != cases:
            probabilities = probabilities[order_of(joined.first.cases.ids, self.store.cases(fit.cases).ids)]
        return Single(model, probabilities, outcome["settings"], outcome["selection"], tuple(outcome["flags"]))

    def _fitted(self, question: Question, joined: AlignedFeatures, rows: Array, place: int) -> Single:
        """Fit a probe on one model's embeddings; rows in the stored order give exactly the stored numbers."""
        budget, fitting = joined.drawn(rows), self.fitting.on(joined.task, joined.first.n_classes)
        fitted = fit_probe(budget.with_features(budget.X[place]), fitting, seed=question.seed)
        return Single(
            self.probes[question.identity][place].pair.model,
            fitted.probe.probabilities(joined.test[place]),
            fitted.settings,
            fitted.selection,
            tuple(fitted.flags),
            fitted.probe,
        )

    def _best_single(self, question: Question, joined: AlignedFeatures, rows: Array) -> dict[str, Any]:
        """Return the probe whose chosen penalty had the best score on held-out rows of the budget."""
        singles = self._singles(question, joined, rows)
        scores = [max(single.selection.get("scores", [-np.inf])) for single in singles]
        place = max(range(len(singles)), key=lambda number: scores[number])
        best = singles[place]
        known = {one.model: score for one, score in zip(singles, scores, strict=True) if np.isfinite(score)}
        return {
            "probabilities": best.probabilities,
            "fitted": _combined("best-single", [best], [place]),
            "settings": {"model": best.model, **best.settings},
            "selection": {"metric": "negative log_loss", "source": "folds", "models": known},
            "flags": [*(flag for flag in best.flags if flag == "fixed_C"), *(["first_model"] if not known else [])],
        }

    def _average(self, question: Question, joined: AlignedFeatures, rows: Array) -> dict[str, Any]:
        """Return the mean of the single models' probabilities."""
        singles = self._singles(question, joined, rows)
        return {
            "probabilities": mean_of([single.probabilities for single in singles]),
            "fitted": _combined("average", singles, range(len(singles))),
            "settings": {single.model: dict(single.settings) for single in singles},
            "selection": {},
            "flags": [],
        }

    def _concat(self, question: Question, joined: AlignedFeatures, rows: Array) -> dict[str, Any]:
        """Return the probe on the concatenation of all embeddings, by the method's protocol."""
        budget, fitting = joined.drawn(rows), fitting_of(question.method, self.fitting, joined.train)
        fitting = fitting.on(joined.task, joined.first.n_classes)
        fitted = fit_probe(budget.with_features(np.concatenate(budget.X, axis=1)), fitting, seed=question.seed)
        selection = dict(fitted.selection)
        if fitted.folded is not None:
            selection["log_loss"] = float(np.nanmean(fitted.folded.losses()))
        return {
            "probabilities": fitted.probe.probabilities(joined.concatenated_test),
            "settings": fitted.settings,
            "fitted": CombinedProbes(question.method, (fitted.probe,), tuple(range(len(joined.test)))),
            "selection": selection,
            "flags": list(fitted.flags),
        }

    def _dvme(self, question: Question, joined: AlignedFeatures, rows: Array) -> dict[str, Any]:
        """Return DVME, with the attention that each model receives on the test cases."""
        budget = joined.drawn(rows)
        fitted = fit_dvme(
            budget.X,
            budget.y,
            task=joined.task,
            n_classes=joined.first.n_classes,
            groups=budget.groups,
            options=DVMEOptions(recipes_of(CHOICES[question.method])),
            seed=question.seed,
            device=self.fitting.device,
        )
        probabilities, received = fitted.predict(joined.test)
        choice = fitted.choice
        return {
            "probabilities": probabilities,
            "fitted": fitted,
            "flags": list(choice.flags),
            "selection": choice.scores,
            "settings": {
                "recipe": choice.recipe.settings(),
                "epochs": choice.epochs,
                "C": choice.C,
                **({} if choice.share == 1 else {"share": choice.share}),
            },
            "attention": attention_by_class(question.pair, joined, received),
        }


def also_fitted(method: str, selection: Mapping[str, Any]) -> dict[str, str]:
    """Return the hash of protocol `blend-four`, by its name, if the method fits it beside or instead of its own."""
    if method != "blend" and "blend" not in selection.get("recipes", ()):
        return {}
    return {"blend-four": get_protocol("blend-four").fingerprint[:12]}


def _combined(rule: str, singles: Sequence[Single], places: Sequence[int]) -> CombinedProbes | None:
    """Return the rule on probes that were fitted now, to be saved; the store keeps predictions, not probes."""
    probes = tuple(single.probe for single in singles if single.probe is not None)
    return CombinedProbes(rule, probes, tuple(places)) if len(probes) == len(singles) else None


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
    if method in ("concat", "blend"):
        own = {"fuse": REVISION} if method == "blend" else {}
        return {**fitting_of(method, fitting).identity(), "select": "folds", **own}
    if method not in CHOICES:
        raise InputError(f"No method '{method}'. Known: best-single, average, concat, blend, {', '.join(CHOICES)}")
    recipes = [recipe.settings() for recipe in recipes_of(CHOICES[method])]
    return {"fuse": REVISION, "recipes": recipes, "solver": fitting.identity()["solver"]}
