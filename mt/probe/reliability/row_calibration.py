"""The calibration of a row: debiased error, intercept, slope and observed/expected ratio, as means over its draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mt.cache.names import digest
from mt.probe.scores import sample
from mt.probe.scores.calibration import MEASURES, EceFacts, Measure, ece_facts
from mt.probe.scores.metrics import linearised_over_cases
from mt.probe.scores.score_tables import scored
from mt.probe.scores.scoring import REVISION
from mt.results.store import Score, ScoreStore
from mt.types import MISSING, Array, LabelledRows, ScoredRows

TITLES = {"calibration_intercept": "intercept", "calibration_slope": "slope", "observed_expected": "observed/expected"}
READING = (
    "A calibrated model has intercept 0, slope 1 and observed/expected 1; slope below 1: probabilities are too "
    "extreme. [ ] 95 % interval over test cases. All are means over draws."
)


@dataclass(frozen=True)
class RowCalibration:
    """Means over draws.

    ece: the debiased error, and that of a calibrated model.  measures: by name, with intervals over test cases.
    """

    ece: EceFacts
    measures: dict[str, Measure]

    def texts(self) -> list[str]:
        """Return each measure with its interval, in the order of `TITLES`."""
        return [_text(self.measures[name]) for name in TITLES]

    def row(self) -> dict[str, Any]:
        """Return the numbers as one JSON object; an undefined one is null."""
        found: dict[str, Any] = {
            "ece_debiased": self.ece.debiased,
            "ece_if_calibrated": self.ece.if_calibrated,
            "ece_if_calibrated_95": [self.ece.low, self.ece.high],
        }
        for name, one in self.measures.items():
            value, low, high = (None if number != number else number for number in (one.value, one.low, one.high))
            found |= {name: value, f"{name}_95": None if low is None else [low, high], f"{name}_reason": one.reason}
        return found


def calibration_of(draws: Sequence[Score], store: ScoreStore, *, label: int | None = None) -> RowCalibration:
    """Return the calibration of the draws of one row, on the test cases of their scores; it is computed once.

    label: the number of the label of a multilabel task.
    """
    first = draws[0]
    view = [first.level, first.by, first.subgroup, label]
    key = digest({"row calibration": [score.fit for score in draws], "view": view, "revision": REVISION})
    found = store.recall(key)
    if found is None:
        made = _calibration([_of_label(one, label) for one in scored(draws, store)])
        found = {"ece": asdict(made.ece), "measures": {name: asdict(one) for name, one in made.measures.items()}}
        store.remember(key, found)
    return RowCalibration(EceFacts(**found["ece"]), {name: Measure(**found["measures"][name]) for name in TITLES})


def _of_label(cases: ScoredRows, label: int | None) -> ScoredRows:
    """Return the cases that know one label, with its probability."""
    if label is None:
        return cases
    known = cases.take(np.flatnonzero(cases.y[:, label] != MISSING))
    return ScoredRows(LabelledRows(None, known.y[:, label], known.groups), known.p[:, label], fold=known.fold)


def _calibration(draws: Sequence[ScoredRows]) -> RowCalibration:
    first = draws[0]
    folds: list[Array] = [draw.fold for draw in draws if draw.fold is not None]
    measures = {}
    for name in MEASURES:
        ps = [draw.p for draw in draws]
        estimate, interval = linearised_over_cases(name, first.y, ps, groups=first.groups, folds=folds)
        measures[name] = Measure(estimate.value, interval.low, interval.high, interval.reason)
    return RowCalibration(EceFacts.mean([ece_facts(*sample.checked(draw.y, draw.p)) for draw in draws]), measures)


def _text(one: Measure) -> str:
    if one.value != one.value:
        return "not defined"
    return f"{one.value:.2f}" if one.low != one.low else f"{one.value:.2f} [{one.low:.2f}, {one.high:.2f}]"
