"""Scores of each label or class against the rest, from the kept predictions: ROC AUC and average precision."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mt.probe.scores import metrics
from mt.report.charts.curves import Predicted
from mt.report.charts.figures import SideTable
from mt.report.panels import Panel
from mt.report.tables import number
from mt.terminal.spreadsheet import inert
from mt.types import MISSING

OMITTED = "omitted"


@dataclass(frozen=True)
class LabelScore:
    """One label of one method at one budget, from its first draw; NaN where all test cases or none hold the label."""

    method: str
    budget: str
    label: str
    positives: int
    cases: int
    auc: float
    ap: float


def label_scores(panel: Panel, predicted: Sequence[Predicted]) -> list[LabelScore]:
    """Return the scores of every label; none for a binary task, whose one label the main table holds."""
    found = []
    for one in predicted if panel.task != "binary" else ():
        aucs, aps = (metrics.per_class(name, one.y, one.p) for name in ("mean_auc", "mean_ap"))
        truth = one.y if one.y.ndim == 2 else one.y[:, None] == np.arange(len(panel.class_names))
        for k, name in enumerate(panel.class_names):
            positives, cases = int((truth[:, k] == 1).sum()), int((truth[:, k] != MISSING).sum())
            found.append(LabelScore(one.cell.name, str(one.cell.budget), name, positives, cases, aucs[k], aps[k]))
    return found


def by_label(panel: Panel, predicted: Sequence[Predicted]) -> SideTable | None:
    """Return the table of the largest budget, one row per label, one column per method; its file holds every budget."""
    scores = label_scores(panel, predicted)
    if not scores:
        return None
    largest = scores[-1].budget
    shown = [score for score in scores if score.budget == largest]
    methods = [name for name in panel.names if any(score.method == name for score in shown)]
    rows = []
    for label in panel.class_names:
        mine = {score.method: score for score in shown if score.label == label}
        first = next(iter(mine.values()))
        rows.append((label, f"{first.positives:,} of {first.cases:,}", *(_text(mine[name]) for name in methods)))
    what = "label" if panel.task == "multilabel" else "class, against the rest"
    text = (
        f"ROC AUC (average precision) of each {what} at {largest}, from the first draw of the labels. "
        "What no test case holds, or every one, has no such score and is omitted from means over labels."
    )
    return SideTable(
        "labels", "Label by label", text, ("label", "test cases", *methods), rows, methods=methods, file=_csv(scores)
    )


def _text(score: LabelScore) -> str:
    return OMITTED if math.isnan(score.auc) else f"{number(score.auc)} ({number(score.ap)})"


def _csv(scores: Sequence[LabelScore]) -> str:
    """Return all scores as CSV, numbers in full, nothing where a label is omitted."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["method", "budget", "label", "positives", "cases", "roc_auc", "average_precision"])
    for score in scores:
        numbers = ["" if math.isnan(value) else repr(float(value)) for value in (score.auc, score.ap)]
        writer.writerow([inert(score.method), score.budget, inert(score.label), score.positives, score.cases, *numbers])
    return out.getvalue()
