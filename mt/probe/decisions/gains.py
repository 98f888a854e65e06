"""What scaling gains: log loss before and after, out of fold and on the test cases, and paired differences."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mt.probe.decisions.out_of_fold import OutOfFold
from mt.probe.questions import Budget
from mt.probe.scores.comparisons import Comparison
from mt.probe.scores.metrics import METRICS
from mt.probe.scores.score_tables import comparisons, row_name, score_tables, scored
from mt.probe.scores.scoring import Subject
from mt.results.store import Fit, Score, ScoreStore
from mt.types import MISSING, Array


@dataclass(frozen=True)
class Gain:
    """The mean log loss over draws before and after scaling; lower is better.

    slope: the factor of the logits, 1 / temperature: its mean over draws, and over labels in multilabel.
    held_out, test: log loss (before, after) out of fold and on the test cases.
    scaled: the number of draws whose probabilities changed, out of `draws`.
    """

    subject: Subject
    row: str
    budget: Budget
    slope: float
    held_out: tuple[float, float]
    test: tuple[float, float]
    scaled: int
    draws: int

    def json_row(self) -> dict[str, Any]:
        """Return the gain as one JSON object."""
        about = self.subject
        return {
            "scaling": self.row,
            "dataset": about.dataset,
            "test_dataset": about.test_dataset,
            "level": about.level,
            "by": about.by,
            "subgroup": about.subgroup,
            "fraction": self.budget.fraction,
            "shots": self.budget.shots,
            "slope": self.slope,
            "log_loss_out_of_fold": list(self.held_out),
            "log_loss_test": list(self.test),
            "draws_scaled": self.scaled,
            "draws": self.draws,
        }


def gains(scores: Iterable[Score], store: ScoreStore, *, name: Callable[[Score], str] = row_name) -> list[Gain]:
    """Return the gain of every scaled row at every budget, once for all metrics.  name: of a score's row."""
    found: dict[tuple[Any, ...], Gain] = {}
    for table in score_tables(scores, store, name=name):
        about = table.subject
        place = about.dataset, about.test_dataset, about.level, about.by, about.subgroup
        for (row, budget), cell in table.cells.items():
            if cell.scores[0].scaling and (*place, row, budget) not in found:
                found[(*place, row, budget)] = _gain(about, row, budget, cell.scores, store)
    return list(found.values())


def differences(scores: Iterable[Score], store: ScoreStore) -> list[Comparison]:
    """Return the paired difference of each scaled row and the row it scales, in the metrics that scaling changes."""
    moved = [score for score in scores if not METRICS[score.metric].of_ranks]
    pairs: dict[tuple[str, str, str], list[Score]] = {}
    for score in moved:
        row = row_name(score).removesuffix(f", {score.scaling}") if score.scaling else row_name(score)
        pairs.setdefault((score.dataset, score.test_dataset, row), []).append(score)
    return [pair for some in pairs.values() for pair in comparisons(score_tables(some, store), store)]


def _gain(about: Subject, row: str, budget: Budget, scores: Sequence[Score], store: ScoreStore) -> Gain:
    fits = [store.fit(score.fit) for score in scores]
    after = scored(scores, store)
    before = [store.fit(fit.outcome.get("unscaled", fit.identity)) for fit in fits]
    held = np.mean([_held_out(one, two, store) for one, two in zip(before, fits, strict=True)], axis=0)
    plain = scored([replace(score, fit=fit.identity) for score, fit in zip(scores, before, strict=True)], store)
    test = [np.mean([_log_loss(case.y, case.p) for case in cases]) for cases in (plain, after)]
    slopes = [np.mean(fit.outcome.get("calibration", {}).get("slope", [1.0])) for fit in fits]
    count = sum("calibration" in fit.outcome for fit in fits)
    return Gain(
        about,
        row,
        budget,
        float(np.mean(slopes)),
        (float(held[0]), float(held[1])),
        (float(test[0]), float(test[1])),
        count,
        len(fits),
    )


def _held_out(plain: Fit, scaled: Fit, store: ScoreStore) -> tuple[float, float]:
    held = OutOfFold(store)
    before, after, y = held.of_fit(plain), held.of_fit(scaled), held.rows(plain).y
    if before is None or after is None:
        return np.nan, np.nan
    return _log_loss(y, before), _log_loss(y, after)


def _log_loss(y: Array, p: Array) -> float:
    """Return the mean log loss of the entries that have a label and a probability; in multilabel over all labels."""
    p = p.astype(np.float64)
    if p.ndim == 2 and y.ndim == 1:
        known = np.isfinite(p).all(axis=1)
        own = p[known, y[known]]
    else:
        known = np.isfinite(p) & (y != MISSING)
        own = np.where(y[known] == 1, p[known], 1 - p[known])
    return float(np.mean(-np.log(np.maximum(own, 1e-7)))) if len(own) else np.nan
