"""Which images each test fold holds, and the draws of labels from the other folds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mt.errors import InputError
from mt.probe.budgets.draw import Asked, Draw, DrawSource
from mt.probe.questions import Budget, Question, seeds_of
from mt.stratification import Ints, label_matrix, stratified_parts, unit_counts
from mt.types import CaseFeatures, LabelledRows, sortable

ALGORITHM = "mt.stratification.stratified_parts, revision 1"
REVISION = 1  # of joining splits and folds; raised whenever its numbers change
SEED = 0


@dataclass(frozen=True)
class Folds:
    """K test folds, drawn `repeats` times; repeat r is drawn with seed `seed` + r."""

    k: int
    repeats: int = 1
    seed: int = SEED

    @property
    def name(self) -> str:
        return f"{self.k}-fold" + (f" x {self.repeats}" if self.repeats > 1 else "")

    def facts(self, repeat: int) -> dict[str, Any]:
        """Return what identifies the folds of one repeat, in a score and in its fit's identity."""
        return {
            "name": self.name,
            "k": self.k,
            "repeats": self.repeats,
            "repeat": repeat,
            "seed": self.seed,
            "algorithm": ALGORITHM,
            "revision": REVISION,
        }

    def assigned(self, rows: LabelledRows[Any], repeat: int) -> Ints:
        """Return the fold of each row.  Rows are taken by sorted id, so their order in files has no effect."""
        by_id = np.argsort(sortable(rows.ids), kind="stable")
        groups = LabelledRows(None, rows.y, rows.groups).take(by_id).groups
        fold = np.empty(len(rows), dtype=np.int64)
        fold[by_id] = stratified_parts(rows.y[by_id], groups, [1 / self.k] * self.k, self.seed + repeat)
        return fold

    def check(self, rows: LabelledRows[Any], dataset: str) -> None:
        """Raise InputError if folds would lack a class.

        At least two classes must be in K units each; in multilabel, positives and negatives of at least one label.
        """
        unit = "images" if rows.groups is None else "patients (groups)"
        counts, _ = unit_counts(label_matrix(rows.y), rows.groups)
        held = (counts > 0).sum(axis=0)
        if rows.y.ndim == 2:
            absent = (unit_counts((rows.y == 0).astype(np.int64), rows.groups)[0] > 0).sum(axis=0)
            most = int(np.minimum(held[:-1], absent).max(initial=0))
            what = "positives and negatives of its most even label"
        else:
            most = int(np.sort(held)[-2]) if len(held) > 1 else 0
            what = "the second most frequent class"
        if most < self.k:
            hint = f"Use at most --test-folds {most}." if most > 1 else "Folds cannot test it."
            raise InputError(f"--test-folds {self.k}: '{dataset}' has {most} {unit} with {what}. {hint}")


class FoldDraws(DrawSource):
    """The draws of every repeat: seed s of repeat r gets the seed s · repeats + r, and each fold draws its own rows."""

    def __init__(self, folds: Folds, source: DrawSource) -> None:
        super().__init__()
        self.folds, self.source = folds, source

    def asked(self, fractions: Sequence[float], shots: Sequence[int], seeds: int) -> list[Asked]:
        """Return every draw of the budgets, for every repeat of the folds."""
        budgets = {budget: draw for budget, _, draw in self.source.asked(fractions, shots, seeds)}
        return [
            (budget, seed * self.folds.repeats + repeat, {**draw, "test_folds": self.folds.facts(repeat)})
            for budget, draw in budgets.items()
            for seed in seeds_of(budget, seeds)
            for repeat in range(self.folds.repeats)
        ]

    def repeats(self, question: Question, realised: Mapping[str, Any]) -> bool:
        """Return whether the draws took every training row, as an earlier question's draws on the same folds did."""
        if not realised.get("test_folds", {}).get("everything"):
            return False
        pair, repeat = question.pair, question.seed % self.folds.repeats
        model = f"{pair.model}, repeat {repeat}"
        asked = pair.dataset, pair.test_dataset, model, question.method, question.budget
        return self._whole.setdefault(asked, question.seed) != question.seed

    def draw(self, train: CaseFeatures, budget: Budget, seed: int) -> Draw:
        raise NotImplementedError("each fold draws from its own training part")


class PartDraws(DrawSource):
    """The draws inside one training part."""

    def __init__(self, source: DrawSource) -> None:
        super().__init__()
        self.source = source

    def repeats(self, question: Question, realised: Mapping[str, Any]) -> bool:
        return False  # `FoldDraws` decides this for all folds together

    def draw(self, train: CaseFeatures, budget: Budget, seed: int) -> Draw:
        return self.source.draw(train, budget, seed)
