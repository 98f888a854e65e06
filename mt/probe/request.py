"""What `mt probe` asks and what it answers; imports nothing heavy."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from mt.errors import InputError

if TYPE_CHECKING:
    from mt.probe.decisions.decided import Decisions
    from mt.probe.questions import Pair
    from mt.results.store import Score


@dataclass(frozen=True)
class ProbeRequest:
    """Which cached features to probe, how, on which draws, and where to read and write.

    models, datasets: all that the cache holds, if empty.
    fractions, shots: 1, 10 and 100 % of the labels, if both are empty.  seeds: draws per budget.
    draw: "stratified" on all train labels, "random" looks at none, "random-groups" draws patients so.
    draw_file: read the draws from this file if it exists, else write them to it.
    bag: the column whose value is the case of a row, or "group"; None for what imported instances say.
    pool: how the rows of a case become one: "mean", "max", "mean+std", "mean+max", or "attention".
    test_folds: instead of a test split, test every image once by K folds of all splits; repeats: of the folds.
    select: "folds" chooses settings inside the budget, "val" on the validation split, whose labels are then counted.
    metrics: each dataset's headline metric, if empty; "all" for all of its task.
    primary: "METRIC@BUDGET", which the question is decided by; it is kept, and all else is exploratory.
    by: a metadata column, to score each of its values apart.  level: one prediction per "row" or per "group".
    files: only these feature files, where newer ones must not take their place.
    test_dataset: test on this dataset instead.  save: a folder for the fitted probes.
    everything: use superseded, limited and random-weight features too.
    threshold: the rule that chooses one on out-of-fold scores: "youden", "sensitivity:0.95", "specificity:0.95" or
    "cost:10".  prevalence: of another population, for its predictive values.
    memory: bytes that the solver may hold of features that it reads chunk by chunk; None reads them into memory.
    calibrate: also score probabilities scaled by "temperature" or "platt", fitted out of fold.
    """

    cache_dir: str | os.PathLike[str] | None = None
    models: Sequence[str] = ()
    datasets: Sequence[str] = ()
    fractions: Sequence[float] = ()
    shots: Sequence[int] = ()
    seeds: int = 5
    draw: str = "stratified"
    draw_file: str | os.PathLike[str] | None = None
    protocol: str = "default"
    solver: str = "torch"
    bag: str | None = None
    pool: str | None = None
    select: str = "folds"
    metrics: Sequence[str] = ()
    by: str | None = None
    level: str = "row"
    test_dataset: str | None = None
    save: str | os.PathLike[str] | None = None
    scores: str | os.PathLike[str] | None = None
    everything: bool = False
    files: frozenset[Path] | None = None
    device: str = "auto"
    test_folds: int | None = None
    repeats: int = 1
    primary: str | None = None
    threshold: str | None = None
    prevalence: float | None = None
    calibrate: str | None = None
    memory: int | None = None

    def checked_folds(self) -> int:
        """Return the number of test folds.  Raises InputError for options that do not go with them."""
        return checked_folds(
            self.test_folds,
            self.repeats,
            {
                "--test-dataset": self.test_dataset,
                "--select val": self.select == "val",
                "--draw-file": self.draw_file,
                "--save": self.save,
                "--bag": self.bag,
                "--pool": self.pool,
                "--threshold": self.threshold,
                "--calibrate": self.calibrate,
            },
        )


@dataclass(frozen=True)
class Answers:
    """The scores that were asked for, in the order of the questions, and where they came from.

    decisions: the thresholds and the scaling that were asked for.
    """

    scores: list[Score]
    n_fitted: int
    n_stored: int
    store: Path
    decisions: Decisions | None = None


class Foldable(Protocol):
    """A request that may ask for test folds."""

    @property
    def test_folds(self) -> int | None: ...
    @property
    def repeats(self) -> int: ...
    def checked_folds(self) -> int: ...


_WHY_NOT = {
    "--test-dataset": "tests on another dataset",
    "--select val": "chooses on the validation split, whose images are tested here",
    "--draw-file": "lists rows of the train split, and here each fold draws from its own training part",
    "--save": "keeps the model of a draw, of which there is one per fold here",
    "--bag": "makes cases of rows, which folds do not know",
    "--pool": "makes cases of rows, which folds do not know",
    "--threshold": "is one per fit, and here a score pools the fits of several folds",
    "--calibrate": "scales the scores of one fit, and here a score pools the fits of several folds",
    "--unfreeze": "trains from images, once per draw",
}


def checked_folds(test_folds: int | None, repeats: int, others: Mapping[str, object]) -> int:
    """Return the number of test folds.

    Raises InputError where there cannot be as many, and for an option that was given and excludes them.
    """
    if test_folds is None:
        raise InputError(f"--repeats {repeats} repeats test folds. Add them: --test-folds 5")
    if test_folds < 2:
        raise InputError(f"--test-folds must be at least 2, got {test_folds}.")
    if repeats < 1:
        raise InputError(f"--repeats must be at least 1, got {repeats}.")
    for option, given in others.items():
        if given:
            raise InputError(f"{option} {_WHY_NOT[option]}. Remove {option}, or remove --test-folds.")
    return test_folds


@dataclass(frozen=True)
class Margin:
    """How much worse a row may be than a reference, in the metric's unit; the reference is a row, model or method."""

    size: float
    reference: str

    @classmethod
    def of(cls, size: float | None, reference: str | None) -> Margin | None:
        """Return the margin that two options declare, None without.  Raises InputError where one of them is missing."""
        if size is None and reference is None:
            return None
        if size is None or reference is None:
            lacks = "--reference MODEL|METHOD" if reference is None else "--margin D"
            raise InputError(f"--margin and --reference go together. Add: {lacks}")
        if not size > 0:
            raise InputError(f"--margin is above 0, in the metric's unit (0.02 in ROC AUC), got {size:g}.")
        return cls(size, reference)


def decisions_of(
    threshold: str | None, calibrate: str | None, prevalence: float | None, pairs: Sequence[Pair]
) -> Decisions | None:
    """Return the thresholds and the scaling that are asked for, None without.  Raises InputError."""
    if (threshold, calibrate, prevalence) == (None, None, None):
        return None
    from mt.probe.decisions.decided import Decisions

    found = Decisions.of(threshold, calibrate, prevalence)
    if found is not None:
        found.check(pairs)
    return found
