"""Out-of-fold probabilities of a budget's own rows, on which thresholds and scaling are chosen.

If a protocol chooses its setting on folds, they are the probabilities of the chosen setting.  For any other method,
five stratified group folds are fitted, each with the whole method, including its choices.  They are stored with the fit
in the score database; a fit that was stored without them is fitted again, to the same numbers.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mt.cache.names import digest
from mt.probe.budgets.draw import folds, teachable
from mt.probe.decisions.scaling import Scaled
from mt.results.store import Fit, ScoreStore
from mt.types import Array, LabelledRows

REVISION = 1  # raised whenever out-of-fold probabilities change
FOLDS = 5
Predict = Callable[[Any], Array]  # features -> probabilities
Refit = Callable[[LabelledRows[Any]], Predict]
Probabilities = npt.NDArray[np.float32]


@dataclass(frozen=True)
class BudgetTask:
    """The task of a budget's labels, the number of classes, and the seed of its draw."""

    task: str
    n_classes: int
    seed: int


class OutOfFold:
    """Stores and reads the out-of-fold probabilities of fits, for the rows of a budget in file order."""

    def __init__(self, store: ScoreStore) -> None:
        self.store = store

    def lacking(self, identities: Collection[str]) -> set[str]:
        """Return those of these fits for which nothing is stored."""
        return {identity for identity in identities if self.store.recall(_key(identity)) is None}

    def keep(
        self, identity: str, budget: LabelledRows[Any], problem: BudgetTask, own: Array | None, refit: Refit
    ) -> None:
        """Store the out-of-fold probabilities of a fit: its own or, without any, those of five folds by `refit`."""
        p = cross_fitted(budget, problem, refit) if own is None else own
        self.remember(identity, p)

    def keep_mean(self, identity: str, parts: Sequence[str]) -> None:
        """Store the mean of the probabilities of other fits on the same budget; None if one of them has none."""
        found = [self.of(part) for part in parts]
        known = [p.astype(np.float64) for p in found if p is not None]
        self.remember(identity, np.mean(known, axis=0) if len(known) == len(found) else None)

    def of(self, identity: str) -> Probabilities | None:
        """Return the probabilities, (n,), (n, K) or (n, L); NaN for rows never held out; None without any folds."""
        kept = self.store.recall(_key(identity))
        if not kept or kept["shape"] is None:
            return None
        return np.frombuffer(zlib.decompress(base64.b64decode(kept["p"])), "<f4").reshape(kept["shape"])

    def of_fit(self, fit: Fit) -> Probabilities | None:
        """Return the probabilities of a fit, scaled as its test probabilities are."""
        p = self.of(str(fit.outcome.get("unscaled", fit.identity)))
        if p is None or "calibration" not in fit.outcome:
            return p
        return Scaled.of(fit.outcome["calibration"]).apply(p, str(fit.outcome["task"]))

    def why_not(self, fit: Fit) -> str:
        """Return why a fit has no out-of-fold probabilities."""
        if fit.outcome.get("protocol") == "end-to-end":
            return "a network trained end to end has no out-of-fold scores"
        if self.store.recall(_key(str(fit.outcome.get("unscaled", fit.identity)))) is None:
            return "no out-of-fold scores are stored; fit again: mt probe or mt fuse with --threshold"
        return "a class has too few cases to hold some out"

    def rows(self, fit: Fit) -> LabelledRows[None]:
        """Return the labelled rows of a fit's budget, in the order of its out-of-fold probabilities."""
        return self.store.cases(fit.pool).take(np.sort(fit.rows))

    def remember(self, identity: str, p: Array | None) -> None:
        """Store these probabilities; None means that no row could be held out."""
        blob = b"" if p is None else zlib.compress(np.ascontiguousarray(p, dtype="<f4").tobytes(), 1)
        shape = None if p is None else list(p.shape)
        self.store.remember(_key(identity), {"shape": shape, "p": base64.b64encode(blob).decode()})


def cross_fitted(budget: LabelledRows[Any], problem: BudgetTask, refit: Refit) -> Probabilities | None:
    """Return every row's probabilities by a fit that saw no row of its fold; None if a class has too few rows.

    An entry is NaN if the rows of the other folds lack the row's class, or one of the label's two values.
    """
    several = problem.task == "multilabel"
    fold = folds(
        budget.y, task=problem.task, n_classes=problem.n_classes, k=FOLDS, groups=budget.groups, seed=problem.seed
    )
    if fold is None:
        return None
    shape = (len(budget),) if problem.task == "binary" else (len(budget), problem.n_classes)
    p = np.full(shape, np.nan, dtype=np.float32)
    for number in np.unique(fold):
        held = np.flatnonzero(fold == number)
        part = budget.take(np.flatnonzero(fold != number))
        p[held] = refit(part)(budget.take(held).X)
    p[~teachable(budget.y, fold, multilabel=several)] = np.nan
    return p


def _key(identity: str) -> str:
    return digest({"out of fold": identity, "revision": REVISION})
