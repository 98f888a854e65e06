"""What the chosen thresholds achieve on the test cases, by table cell."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mt.probe.decisions.decided import Decisions, thresholds
from mt.probe.decisions.out_of_fold import OutOfFold
from mt.probe.decisions.thresholds import Threshold
from mt.probe.questions import Budget
from mt.probe.scores.calibration import Measure
from mt.probe.scores.operating import DecisionCurve, OperatingPoint, decision_curves, operating_points
from mt.probe.scores.score_tables import ScoreTable, score_tables, scored
from mt.probe.scores.scoring import Subject
from mt.results.store import Score, ScoreStore
from mt.types import MISSING, Array

CURVE = tuple(np.round(np.arange(1, 20) / 20, 2).tolist())  # threshold probabilities of the decision curves


@dataclass(frozen=True)
class Achieved:
    """One method at one budget on one label: its thresholds, what they achieve, and the decision curve.

    label: the label of a multilabel task, else empty.  positive: the name of the class that is called positive.
    chosen: one threshold per draw that has one.  omitted: the number of draws without one; reason: that of the first.
    n_test: labelled test cases.  point: None if no draw has a threshold.
    """

    subject: Subject
    row: str
    budget: Budget
    label: str
    positive: str
    chosen: tuple[Threshold, ...]
    omitted: int
    reason: str
    n_test: int
    point: OperatingPoint | None
    curve: DecisionCurve | None

    def json_row(self, decisions: Decisions) -> dict[str, Any]:
        """Return it as one JSON object; an undefined number is None, and an infinite ratio is "infinite"."""
        about = self.subject
        row: dict[str, Any] = {
            "operating_point": str(decisions.rule),
            "dataset": about.dataset,
            "test_dataset": about.test_dataset,
            "level": about.level,
            "by": about.by,
            "subgroup": about.subgroup,
            "row": self.row,
            "fraction": self.budget.fraction,
            "shots": self.budget.shots,
            "label": self.label or None,
            "positive": self.positive,
            "n_test": self.n_test,
            "draws": len(self.chosen),
            "draws_without_threshold": self.omitted,
            "reason": self.reason or None,
            "thresholds": [one.value for one in self.chosen],
            "out_of_fold": {name: [getattr(one, name) for one in self.chosen] for name in OUT_OF_FOLD},
        }
        if self.point is not None:
            row |= {name: getattr(self.point, name) for name in ("tp", "fp", "fn", "tn")}
            row |= {f"{name}_at_threshold": _numbers(one) for name, one in self.point.measures.items()}
            row |= {} if decisions.prevalence is None else {"prevalence": decisions.prevalence}
        if self.curve is not None:
            row["decision_curve"] = {name: np.asarray(values).tolist() for name, values in vars(self.curve).items()}
        return row


OUT_OF_FOLD = ("sensitivity", "specificity")


def achieved(
    scores: Iterable[Score],
    decisions: Decisions,
    store: ScoreStore,
    *,
    name: Callable[[Score], str] | None = None,
    curves: bool = True,
) -> Iterator[Achieved]:
    """Yield what thresholds achieve for every table cell of these scores, once for all metrics.

    name: of a score's row, as for `score_tables`.  curves: whether decision curves are computed too.
    """
    seen: set[tuple[Any, ...]] = set()
    for table in score_tables(scores, store, name=name):
        about = table.subject
        key = about.dataset, about.test_dataset, about.level, about.by, about.subgroup
        if key not in seen:
            seen.add(key)
            yield from _of_table(table, decisions, store, curves=curves)


def _of_table(table: ScoreTable, decisions: Decisions, store: ScoreStore, *, curves: bool) -> Iterator[Achieved]:
    assert decisions.rule is not None
    held = OutOfFold(store)
    for (row, budget), cell in table.cells.items():
        fits = [store.fit(score.fit) for score in cell.scores]
        chosen = [thresholds(decisions.rule, fit, held, level=table.subject.level) for fit in fits]
        cases = scored(cell.scores, store)
        names = list(fits[0].outcome["class_names"])
        several = fits[0].outcome["task"] == "multilabel"
        for k in range(len(names) if several else 1):
            label, positive = (names[k], names[k]) if several else ("", names[1])
            y = cases[0].y[:, k] if several else cases[0].y
            ps = [case.p[:, k] if several else case.p for case in cases]
            yield _achieved(
                (table.subject, row, budget, label, positive),
                [one[k] for one in chosen],
                y,
                ps,
                cases[0].groups,
                decisions.prevalence,
                curves=curves,
            )


def _achieved(
    place: tuple[Subject, str, Budget, str, str],
    chosen: Sequence[Threshold],
    y: Array,
    ps: Sequence[Array],
    groups: Any,
    prevalence: float | None,
    *,
    curves: bool,
) -> Achieved:
    known = y != MISSING
    kept = [draw for draw, one in enumerate(chosen) if one.value is not None]
    without = [one.reason for one in chosen if one.value is None]
    cases = None if groups is None else np.asarray(groups)[known]
    point = curve = None
    if known.any() and curves:
        curve = decision_curves(y[known], [p[known] for p in ps], groups=cases, thresholds=CURVE)
    if kept and known.any():
        shown, values = [ps[draw][known] for draw in kept], [float(chosen[draw].value or 0) for draw in kept]
        point = operating_points(y[known], shown, values, groups=cases, prevalence=prevalence)
    return Achieved(
        *place,
        tuple(chosen[draw] for draw in kept),
        len(without),
        without[0] if without else "",
        int(known.sum()),
        point,
        curve,
    )


def _numbers(found: Measure) -> dict[str, Any]:
    row = {name: value if np.isfinite(value) else None for name, value in vars(found).items() if name != "reason"}
    if np.isinf(found.value):
        row["value"] = "infinite"
    return row | ({"reason": found.reason} if found.reason else {})
