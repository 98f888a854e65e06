"""What a run decides beside its fits: a threshold for each, and scaled copies (`--threshold`, `--calibrate`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mt.errors import CacheError, InputError
from mt.probe.decisions import out_of_fold
from mt.probe.decisions.out_of_fold import BudgetTask, OutOfFold
from mt.probe.decisions.scaling import Scaled, check_kind, fit_scaling, revision
from mt.probe.decisions.thresholds import Threshold, ThresholdRule, choose
from mt.probe.protocols import Fitted, Fitting
from mt.probe.questions import Pair, Question
from mt.probe.scores.scoring import by_group
from mt.results.store import Fit, ScoreStore
from mt.types import Array, LabelledRows, ScoredRows


@dataclass(frozen=True)
class Decisions:
    """Which threshold to choose, and how to scale; None if not asked for.

    calibrate: "temperature" or "platt".  prevalence: that of another population, whose predictive values are shown.
    """

    rule: ThresholdRule | None = None
    calibrate: str | None = None
    prevalence: float | None = None

    @classmethod
    def of(cls, threshold: str | None, calibrate: str | None, prevalence: float | None) -> Decisions | None:
        """Return what the options ask for; None if they ask for nothing.

        Raises InputError for a rule that does not exist, and for a prevalence outside (0, 1) or without a threshold.
        """
        if prevalence is not None and threshold is None:
            raise InputError("--prevalence needs a threshold for its predictive values. Add one: --threshold youden")
        if prevalence is not None and not 0 < prevalence < 1:
            raise InputError(f"--prevalence is between 0 and 1 (0.02 is 2 %), got {prevalence:g}.")
        if threshold is None and calibrate is None:
            return None
        return cls(ThresholdRule.parse(threshold) if threshold else None, calibrate, prevalence)

    def shown(self, metrics: Sequence[str]) -> Sequence[str]:
        """Return the metrics to show: those asked for, and the log loss if probabilities are scaled."""
        if self.calibrate is None or "all" in metrics:
            return metrics
        return (*(metrics or ("headline",)), "log_loss")

    def decider(self, store: ScoreStore) -> Decider:
        """Return the decider for the fits of a store."""
        return Decider(self, store)

    def check(self, pairs: Sequence[Pair]) -> None:
        """Raise InputError for tasks that have no threshold, or no scaling of this kind."""
        for pair in pairs:
            if self.rule is not None and pair.task not in ("binary", "multilabel"):
                raise InputError(
                    f"--threshold is defined for two classes and for labels, and {pair.dataset} is {pair.task}: with "
                    "several classes the most probable one is predicted. Name other datasets: --dataset NAME"
                )
            if self.calibrate is not None:
                check_kind(self.calibrate, pair.task, pair.dataset)


class Decider:
    """Thresholds and scaled copies of the fits of one store."""

    def __init__(self, asked: Decisions, store: ScoreStore) -> None:
        self.asked, self.store, self.out_of_fold = asked, store, OutOfFold(store)
        self._unscaled: dict[str, Question] = {}  # by the identity of the scaled question

    def keep_probe(
        self,
        question: Question,
        budget: LabelledRows[Any],
        fitting: Fitting,
        fitted: Fitted,
        refit: Callable[[LabelledRows[Any]], Fitted],
    ) -> None:
        """Store the out-of-fold probabilities of a fitted probe.

        refit: fits the same protocol on other rows, for a probe that has none.
        """
        problem = BudgetTask(fitting.task, fitting.n_classes, question.seed)
        self.out_of_fold.keep(
            question.identity, budget, problem, fitted.held_out, lambda rows: refit(rows).probe.probabilities
        )

    def remember(self, questions: Sequence[Question]) -> None:
        """Store the rule and the prevalence for the datasets of these questions, unless the database is read-only."""
        if self.asked.rule is None:
            return
        facts = {"threshold": str(self.asked.rule), "prevalence": self.asked.prevalence}
        for dataset in dict.fromkeys(question.pair.dataset for question in questions):
            if self.store.recall(_key(dataset)) != facts:
                with suppress(CacheError):
                    self.store.remember(_key(dataset), facts)

    def scaled_question(self, question: Question) -> Question:
        """Return the question that asks for the scaled fit, which has scores of its own."""
        revisions = [revision(question.pair.task), out_of_fold.REVISION]
        recipe = {**question.recipe, "calibrate": [self.asked.calibrate, *revisions]}
        found = replace(question, recipe=recipe)
        self._unscaled[found.identity] = question
        return found

    def __call__(self, questions: Sequence[Question]) -> Iterator[Fit]:
        """Yield the scaled fits that answer the questions; fits nothing but the scaling."""
        plain = {question.identity: self._unscaled[question.identity] for question in questions}
        there = self.store.has_fits([one.identity for one in plain.values()])
        for question in questions:
            if plain[question.identity].identity in there:  # absent: the draw repeats another
                yield self.scaled(question, self.store.fit(plain[question.identity].identity))

    def scaled(self, question: Question, fit: Fit) -> Fit:
        """Return a fit with its probabilities scaled, and the scaling in its outcome.

        With too few cases out of fold the probabilities stay as they are, and a flag says so.
        """
        outcome, kind = dict(fit.outcome), str(self.asked.calibrate)
        task, p, y = str(outcome["task"]), self.out_of_fold.of(fit.identity), self.out_of_fold.rows(fit).y
        scaling = None if p is None else fit_scaling(kind, y, p, task)
        outcome |= {"protocol": f"{outcome['protocol']}, {kind}", "unscaled": fit.identity}
        if revision(task) > 1:  # absent from rows of revision 1, which stay apart
            outcome["versions"] = {**outcome["versions"], "scaling": revision(task)}
        if p is None or scaling is None or not scaling.fitted:
            outcome["flags"] = [*outcome["flags"], "not scaled: fewer than two cases per class out of fold"]
            return replace(fit, identity=question.identity, outcome=outcome)
        outcome["calibration"] = scaling.facts()
        return replace(
            fit, identity=question.identity, outcome=outcome, probabilities=scaling.apply(fit.probabilities, task)
        )

    def saved_question(self, question: Question) -> Question:
        """Return the question that a saved model answers."""
        return question if self.asked.calibrate is None else self.scaled_question(question)

    def to_save(self, question: Question, fit: Fit) -> tuple[Question, Fit, dict[str, Any]]:
        """Return what to save: the question and its fit, scaled if that is asked for, and the decisions as JSON."""
        facts: dict[str, Any] = {}
        question = self.saved_question(question)
        if self.asked.calibrate is not None:
            fit = self.scaled(question, fit)
            if "calibration" in fit.outcome:
                facts["calibration"] = fit.outcome["calibration"]
        if self.asked.rule is not None:
            chosen = [one.facts() for one in thresholds(self.asked.rule, fit, self.out_of_fold)]
            facts["decision"] = {"rule": str(self.asked.rule), "thresholds": chosen}
        return question, fit, facts


def last_rule(dataset: str, store: ScoreStore) -> Decisions | None:
    """Return the rule and the prevalence that were last asked for on a dataset; None if none were."""
    kept = store.recall(_key(dataset))
    return Decisions.of(kept["threshold"], None, kept["prevalence"]) if kept else None


def _key(dataset: str) -> str:
    return f"decided: {dataset}"  # `ScoreStore.forget` keeps these


def thresholds(rule: ThresholdRule, fit: Fit, held: OutOfFold, *, level: str = "row") -> list[Threshold]:
    """Return the threshold of a fit, or one per label of a multilabel task.

    level: "group" chooses it on the mean out-of-fold probability of each group.
    """
    p, several = held.of_fit(fit), fit.outcome["task"] == "multilabel"
    count = len(fit.outcome["class_names"]) if several else 1
    if p is None:
        return [Threshold(None, reason=held.why_not(fit))] * count
    rows = held.rows(fit)
    if not several:
        return [_chosen(rule, rows, rows.y, p, level)]
    return [_chosen(rule, rows, rows.y[:, k], p[:, k], level) for k in range(count)]


def _chosen(rule: ThresholdRule, rows: LabelledRows[None], y: Array, p: Array, level: str) -> Threshold:
    if level != "group":
        return choose(rule, y, p)
    known = np.flatnonzero(np.isfinite(p))
    one = LabelledRows(None, y[known], None if rows.groups is None else np.asarray(rows.groups)[known])
    grouped = by_group(ScoredRows(one, p[known]), "binary")
    return choose(rule, grouped.y, grouped.p)


def facts_of_decision(about: Mapping[str, Any]) -> tuple[Scaled | None, list[Threshold] | None]:
    """Return the scaling and the thresholds that a saved model's JSON states."""
    scaling = Scaled.of(about["calibration"]) if "calibration" in about else None
    decision = about.get("decision")
    return scaling, None if decision is None else [Threshold.of(one) for one in decision["thresholds"]]
