"""Answers questions with probes: the features of a (dataset, backbone) are read once, then drawn, fitted, predicted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from mt.errors import FitError
from mt.probe.methods.base import Fitted, Fitting
from mt.probe.methods.fit import fit_probes
from mt.probe.questions import Pair, Question
from mt.probe.saved import ModelFolder, parts_of_probe
from mt.probe.scores.sample import collapsed
from mt.results.store import Fit, ScoreStore
from mt.types import MISSING, Array, LabelledRows

if TYPE_CHECKING:
    from mt.cache.feature_file.read import FeatureFile
    from mt.probe.budgets.draw import Draw, DrawSource

# Fit draws together only if they hold at most this many numbers in all; larger ones gain nothing, and are kept at once.
TOGETHER = 4 << 20


@dataclass(frozen=True)
class Features:
    """The opened feature files of a pair: verified once, mapped into memory, shared by all of its draws."""

    pair: Pair
    train: FeatureFile
    test: FeatureFile
    val: FeatureFile | None

    @classmethod
    def load(cls, pair: Pair) -> Features:
        """Open the files and check every block's checksum.

        Raises DamagedError naming the damaged rows, FitError for a task with one class in all of its train labels.
        """
        val = pair.val[0].open(verify=True) if pair.val else None
        features = cls(pair, pair.train[0].open(verify=True), pair.test[0].open(verify=True), val)
        labels = features.pool.y
        if not len(labels) or (labels.max(axis=0) <= np.where(labels == MISSING, 1, labels).min(axis=0)).all():
            raise FitError(
                f"'{pair.dataset}' has only one class in its {len(labels)} train labels: expected at least two. "
                "See: mt datasets check"
            )
        return features

    @property
    def n_classes(self) -> int:
        return len(self.train.class_names)

    @cached_property
    def pool(self) -> LabelledRows[None]:
        """The rows that draws are taken from."""
        return LabelledRows(None, self.train.labels, self.train.groups, self.train.ids)

    @cached_property
    def cases(self) -> LabelledRows[None]:
        """The test cases, with the columns that subgroups are made of."""
        return LabelledRows(None, self.test.labels, self.test.groups, self.test.ids, self.test.columns)

    @cached_property
    def validation(self) -> LabelledRows[Array] | None:
        """The rows of the validation split, if it is to choose."""
        return None if self.val is None else LabelledRows(self.val.embeddings, self.val.labels)

    @cached_property
    def shared_groups(self) -> int:
        """How many groups of the test split are also in the split that trains, or that chooses."""
        if self.pair.test_dataset != self.pair.dataset or self.cases.groups is None:
            return 0  # the same name is another patient in another dataset
        used = set(self.pool.groups or ()) | set((self.val.groups if self.val else None) or ())
        return len(used & set(self.cases.groups))

    def drawn(self, rows: Array) -> LabelledRows[Array]:
        """Return a budget: some rows of the train split, in file order; all of them are a view of the file."""
        every = self.pool.with_features(self.train.embeddings)
        return every if len(rows) == len(every) else every.take(np.sort(rows))


class Prober:
    """Fits one protocol on every question it is asked; holds one pair's features at a time.

    folder: where every fitted probe is saved (`--save`).
    """

    def __init__(
        self, fitting: Fitting, store: ScoreStore, draws: DrawSource, folder: ModelFolder | None = None
    ) -> None:
        self.fitting, self.store, self.draws, self.folder = fitting, store, draws, folder
        self._loaded: tuple[Features, str, str] | None = None

    def __call__(self, questions: Sequence[Question]) -> Iterator[Fit]:
        """Yield the fits that answer the questions, in their order, without those of questions that repeat a draw.

        Small draws of one budget that follow one another are fitted together.
        """
        for _, same in groupby(questions, key=lambda question: (id(question.pair), question.budget)):
            yield from self._fits(list(same))

    def _fits(self, questions: list[Question]) -> Iterator[Fit]:
        """Yield the fits of one budget's draws."""
        features = self._features(questions[0].pair)[0]
        fitting = self.fitting.on(features.train.task, features.n_classes)
        drawn = [(question, self.draws.draw(features.train, question.budget, question.seed)) for question in questions]
        wanted = [(question, draw) for question, draw in drawn if not self.draws.repeats(question, draw.realised)]
        numbers = features.train.dim * max((len(draw.rows) for _, draw in wanted), default=1)
        at_once = max(1, TOGETHER // numbers) if fitting.batched else 1
        for start in range(0, len(wanted), at_once):
            some = wanted[start : start + at_once]
            fits = fit_probes(
                [(features.drawn(draw.rows), question.seed) for question, draw in some], fitting,
                validation=features.validation,
            )  # fmt: skip
            for (question, draw), fitted in zip(some, fits, strict=True):
                yield self._fit(question, draw, fitting, fitted)

    def _fit(self, question: Question, drawn: Draw, fitting: Fitting, fitted: Fitted) -> Fit:
        """Return what is kept of a fitted probe: its test probabilities, and how they came about."""
        features, pool, cases = self._features(question.pair)
        probabilities = fitted.probe.probabilities(features.test.embeddings)
        n_val = 0 if features.validation is None else len(features.validation.y)
        outcome = {
            "task": fitting.task,
            "class_names": list(features.train.class_names),
            "protocol": fitting.protocol.name,
            "solver": fitting.solver.name if fitting.solver else fitting.protocol.name,
            "select": "val" if n_val else fitting.protocol.validation.kind,
            "settings": fitted.settings,
            "selection": fitted.selection,
            "flags": [*fitted.flags, *row_flags(question.pair, features, probabilities)],
            "realised": drawn.realised,
            "n_labels": len(drawn.rows) + n_val,
            "versions": versions(fitting),
        }
        fit = Fit(question.identity, pool, cases, drawn.rows, probabilities, outcome)
        if self.folder:
            self.folder.write(question, fit, *parts_of_probe(question, features.train, fitted))
        return fit

    def _features(self, pair: Pair) -> tuple[Features, str, str]:
        if self._loaded is None or self._loaded[0].pair is not pair:
            self._loaded = None
            features = Features.load(pair)
            self._loaded = features, self.store.add_cases(features.pool), self.store.add_cases(features.cases)
        return self._loaded


def versions(fitting: Fitting) -> dict[str, Any]:
    """Return what computed a fit: our revisions, and the libraries' versions."""
    ours: dict[str, Any] = {"mt": version("medical-transfer"), "protocol": fitting.protocol.fingerprint[:12]}
    if fitting.solver:
        ours["solver"] = fitting.solver.revision
    return ours | {name: version(name) for name in ("numpy", "torch", "scikit-learn")}


def row_flags(pair: Pair, features: Features, p: Array) -> list[str]:
    """Return what a reader of the score should know about its data and its predictions."""
    flags = [
        word for flag, word in (("random", "random weights"), ("limited", "limited")) if flag in pair.train[0].flags
    ]
    if features.pool.groups is None:
        flags.append("no patient grouping known")
    if features.shared_groups:
        flags.append("groups shared with the test split")
    labels = features.cases.y
    if collapsed(labels, p) and (labels != labels[0]).any():
        flags.append("collapsed")
    return flags
