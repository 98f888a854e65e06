"""Questions on joined splits: they are answered fold by fold, and the answers are joined."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mt.cache.names import digest_of_cases
from mt.probe.budgets.draw import DrawSource
from mt.probe.cross_validation.fold_draws import FoldDraws, Folds, PartDraws
from mt.probe.cross_validation.joined_splits import JoinedSplits, PartEntry, open_part
from mt.probe.questions import Pair, Question
from mt.results.store import Fit, ScoreStore
from mt.types import LabelledRows

Answer = Callable[[Sequence[Question]], Iterable[Fit]]


class PartStore(ScoreStore):
    """The store that a method reads while it answers on one part; nothing is written to the database.

    Fits of single models, which best single and average need, are the parts of the stored whole fits.
    """

    def __init__(self, whole: ScoreStore) -> None:
        super().__init__(whole.path)
        self.whole = whole
        self._cases: dict[str, LabelledRows[None]] = {}
        self.parts: dict[str, tuple[str, int]] = {}  # by question on a part: the whole question, and the fold
        self.singles: dict[str, list[Question]] = {}  # by question on a part of several models: those on each model

    def add_cases(self, rows: LabelledRows[None]) -> str:
        key = digest_of_cases(rows)
        self._cases[key] = rows
        return key

    def cases(self, key: str) -> LabelledRows[None]:
        return self._cases[key] if key in self._cases else self.whole.cases(key)

    def fit(self, identity: str) -> Fit:
        """Return one fold of a whole fit: its rows number all images, its cases are those of the fold."""
        whole, fold = self.parts[identity]
        found = self.whole.fit(whole)
        outcomes = found.outcome["folds"]
        ends = np.cumsum([one["realised"]["n_rows"] for one in outcomes])
        rows = found.rows[ends[fold] - outcomes[fold]["realised"]["n_rows"] : ends[fold]]
        here = np.flatnonzero(np.asarray(found.outcome["test_fold"]) == fold)
        cases = self.add_cases(self.whole.cases(found.cases).take(here))
        return Fit(identity, found.pool, cases, rows, found.probabilities[here], outcomes[fold])


class CrossValidation:
    """Evaluation by test folds: which questions it asks, and how they are answered.

    draws: the draws of every budget and repeat, for the questions.  inner: the draws inside one training part.
    """

    opened = staticmethod(open_part)

    def __init__(self, folds: Folds, source: DrawSource) -> None:
        self.folds = folds
        self.draws = FoldDraws(folds, source)
        self.inner = PartDraws(source)
        self._joined: dict[tuple[str, ...], JoinedSplits] = {}

    def answering(
        self,
        store: ScoreStore,
        method: Callable[[PartStore, DrawSource], Answer],
        singles: Mapping[str, Sequence[Question]] | None = None,
    ) -> Answer:
        """Return the function that answers questions on joined splits.

        method: makes the function that answers questions on parts.  singles: for each question on several models, the
        questions on each model, whose fits are in the store.
        """
        parts = PartStore(store)
        answer = method(parts, self.inner)

        def answered(questions: Sequence[Question]) -> Iterator[Fit]:
            for question in questions:
                asked = [self._part(question, fold) for fold in range(self.folds.k)]
                for fold, one in enumerate(asked):
                    for single in (singles or {}).get(question.identity, ()):
                        part = self._part(single, fold)
                        parts.parts[part.identity] = single.identity, fold
                        parts.singles.setdefault(one.identity, []).append(part)
                fits = [fit for one in asked for fit in answer([one])]
                whole = self._whole(question, fits, store)
                if not self.draws.repeats(question, whole.outcome["realised"]):
                    yield whole

        return answered

    def _repeat(self, question: Question) -> int:
        return question.seed % self.folds.repeats

    def _part(self, question: Question, fold: int) -> Question:
        """Return the question on one fold."""
        pair, repeat = question.pair, self._repeat(question)
        splits = [self._splits(pair, number) for number in range(len(pair.train))]
        train, test = (
            tuple(PartEntry.of(one, repeat, fold, held_out=held) for one in splits) for held in (False, True)
        )
        inner = Pair(pair.dataset, pair.test_dataset, pair.model, train, test)
        return replace(question, pair=inner, draw={**question.draw, "fold": fold})

    def _splits(self, pair: Pair, number: int) -> JoinedSplits:
        """Return the joined splits of one of a pair's models; those of other datasets are dropped from memory."""
        entries = [split[number] for split in (pair.train, pair.val, pair.test) if split]
        key = tuple(str(entry.path) for entry in entries)
        if key not in self._joined:
            dataset = entries[0].fingerprints["dataset"]
            here = {k: one for k, one in self._joined.items() if one.entries[0].fingerprints["dataset"] == dataset}
            self._joined = {**here, key: JoinedSplits(entries, self.folds)}
        return self._joined[key]

    def _whole(self, question: Question, fits: Sequence[Fit], store: ScoreStore) -> Fit:
        """Return the fit that is stored for a question: the predictions of all folds, and each fold's outcome."""
        splits, repeat = self._splits(question.pair, 0), self._repeat(question)
        rows, fold = splits.features.rows, splits.fold(repeat)
        p = np.empty((len(rows), *fits[0].probabilities.shape[1:]), dtype=np.float32)
        drawn = []
        for number, fit in enumerate(fits):
            p[fold == number] = fit.probabilities
            drawn.append(np.flatnonzero(fold != number)[fit.rows])
        outcomes = [dict(fit.outcome) for fit in fits]
        outcome = {
            **{name: outcomes[0][name] for name in ("task", "class_names", "protocol", "solver", "select", "versions")},
            "settings": {"test_folds": [one["settings"] for one in outcomes]},
            "selection": {"test_folds": [one["selection"] for one in outcomes]},
            "flags": list(dict.fromkeys(flag for one in outcomes for flag in one["flags"])),
            "realised": realised_of([one["realised"] for one in outcomes], self.folds.facts(repeat)),
            "n_labels": round(sum(one["n_labels"] for one in outcomes) / len(outcomes)),
            "test_fold": fold.tolist(),
            "folds": outcomes,
        }
        if all("attention" in one for one in outcomes):
            outcome["attention"] = _mean_attention([one["attention"] for one in outcomes])
        plain = LabelledRows(None, rows.y, rows.groups, rows.ids)
        pool, cases = store.add_cases(plain), store.add_cases(replace(plain, columns=rows.columns))
        return Fit(question.identity, pool, cases, np.concatenate(drawn), p, outcome)


def realised_of(several: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the draws of all folds got: means of counts, and the classes that a draw forced or lacks."""

    def mean(name: str) -> Any:
        values = [one[name] for one in several]
        if values[0] is None:
            return None
        found = np.rint(np.mean(values, axis=0)).astype(int)
        return found.tolist()

    counts = {name: mean(name) for name in ("n_units", "n_rows", "n_groups", "rows", "groups")}
    classes = {name: sorted({k for one in several for k in one[name]}) for name in ("forced", "missing", "constant")}
    everything = all(one["everything"] for one in several)
    how = {"draw": several[0]["draw"]} if "draw" in several[0] else {}
    return {
        "unit": several[0]["unit"],
        **how,
        **counts,
        **classes,
        "everything": False,
        "test_folds": {**facts, "everything": everything},
    }


def _mean_attention(several: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the mean over folds of the attention that each model receives."""

    def mean(values: Sequence[Sequence[float]]) -> list[float]:
        return [round(float(value), 6) for value in np.mean(values, axis=0)]

    names = dict.fromkeys(name for one in several for name in one["classes"])
    classes = {name: mean([one["classes"][name] for one in several if name in one["classes"]]) for name in names}
    return {"models": several[0]["models"], "overall": mean([one["overall"] for one in several]), "classes": classes}
