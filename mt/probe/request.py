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

    cache_dir, scores: the folder of feature files and the score database; None takes the default places.
    models, datasets: all that the cache holds, if empty.
    fractions, shots: 1, 10 and 100 % of the labels, if both are empty.  seeds: draws per budget.
    draw: "stratified" on all train labels; "random" draws rows and "random-groups" patients without any label.
    draw_file: read the draws from this file if it exists, else write them to it.
    protocol: a name of `PROTOCOLS`.  solver: "torch", "sklearn" or "cuml".  device: "auto", "cpu", "cuda" or "mps".
    bag: the column whose value names a row's case, or "group"; None takes the column that imported instances have.
    pool: how the rows of a case become one: "mean", "max", "mean+std", "mean+max", or "attention".
    test_folds: instead of a test split, test every image once by K folds of all splits.  repeats: how often the folds
    are drawn.
    select: "folds" chooses settings inside the budget, "val" on the validation split, whose labels are then counted.
    metrics: each dataset's headline metric, if empty; "all" for all metrics of its task.
    primary: "METRIC@BUDGET", the score that decides the question; it is stored, and all other scores are exploratory.
    by: a metadata column, each of whose values is scored separately.  level: one prediction per "row" or per "group".
    files: use only these feature files, even where the cache holds newer ones.
    test_dataset: test on this dataset instead.  save: a folder for the fitted probes.
    everything: use superseded, limited and random-weight features too.
    threshold: the rule that chooses a threshold on out-of-fold scores: "youden", "sensitivity:0.95",
    "specificity:0.95" or "cost:10".  prevalence: that of another population, whose predictive values are shown.
    memory: bytes of features that may be held at once, read chunk by chunk; None reads all features into memory.
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
        """Return the number of test folds.  Raises InputError for options that test folds exclude."""
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

    n_fitted, n_stored: questions answered by a new fit, and from the store.  store: the path of the score database.
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
    "--draw-file": "lists rows of the train split, but each test fold draws from its own training part",
    "--save": "saves one model per draw, but test folds fit one per fold",
    "--bag": "turns rows into cases, which test folds do not support",
    "--pool": "turns rows into cases, which test folds do not support",
    "--threshold": "chooses one threshold per fit, but with test folds a score pools several fits",
    "--calibrate": "scales a fit on its out-of-fold scores, which are not stored for the fits of each test fold",
    "--unfreeze": "trains from images, once per draw",
}


def checked_folds(test_folds: int | None, repeats: int, others: Mapping[str, object]) -> int:
    """Return the number of test folds.

    others: options that test folds exclude, with their values.
    Raises InputError for fewer than 2 folds or 1 repeat, and for an excluded option that was given.
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
    """How much worse a row may be than a reference, in the metric's unit.

    reference: the name of a row, or of its model or method.
    """

    size: float
    reference: str

    @classmethod
    def of(cls, size: float | None, reference: str | None) -> Margin | None:
        """Return the margin that two options declare; None if neither is given.

        Raises InputError if only one is given, or for a size that is not above 0.
        """
        if size is None and reference is None:
            return None
        if size is None or reference is None:
            lacks = "--reference MODEL|METHOD" if reference is None else "--margin D"
            raise InputError(f"--margin and --reference go together. Add: {lacks}")
        if not size > 0:
            raise InputError(f"--margin must be above 0, in the metric's unit (0.02 in ROC AUC), got {size:g}.")
        return cls(size, reference)


def decisions_of(
    threshold: str | None, calibrate: str | None, prevalence: float | None, pairs: Sequence[Pair]
) -> Decisions | None:
    """Return the thresholds and the scaling that are asked for; None if none are.

    Raises InputError for a rule that does not exist, or that the pairs' tasks do not allow.
    """
    if (threshold, calibrate, prevalence) == (None, None, None):
        return None
    from mt.probe.decisions.decided import Decisions

    found = Decisions.of(threshold, calibrate, prevalence)
    if found is not None:
        found.check(pairs)
    return found
