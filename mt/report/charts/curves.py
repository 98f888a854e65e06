"""Stored predictions up close: ROC, precision-recall, calibration, net benefit and confusion, as points to draw.

Each is of a method's first draw at a budget, on the test cases.  Curves are thinned to what a screen can show.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from mt.probe.scores.calibration import calibration_curve
from mt.probe.scores.metrics import METRICS
from mt.probe.scores.operating import decision_curve
from mt.probe.scores.sample import predicted_class
from mt.report.panels import Panel, PanelCell
from mt.results.store import ScoreStore
from mt.types import MISSING, Array, LabelledRows

Table = dict[str, list[Any]]
MOST = 8  # methods per budget that are shown up close: the best ones
_POINTS = 80  # of a curve
_BINS = 10  # of a reliability diagram
_SMOOTH = 25  # points of a flexible calibration curve
_THRESHOLDS = [k / 20 for k in range(1, 20)]  # of a decision curve


@dataclass(frozen=True)
class Predicted:
    """The predictions of one cell's first draw: y (n,) or (n, L), p (n,), (n, K) or (n, L); groups: the patients."""

    cell: PanelCell
    y: Array
    p: Array
    groups: Array | None = None


@dataclass(frozen=True)
class TwoClasses:
    """One problem of two classes: a label, its truth y (n,), its probability p (n,), and the patients."""

    one: Predicted
    label: str
    y: Array
    p: Array
    groups: Array | None


def predictions(store: ScoreStore, panel: Panel) -> list[Predicted]:
    """Return the first draws of the best methods at every budget."""
    known: dict[str, LabelledRows[None]] = {}
    found = []
    for cell in close_up(panel):
        fit = store.fit(cell.scores[0].fit)
        if fit.cases not in known:
            known[fit.cases] = store.cases(fit.cases)
        cases = known[fit.cases]
        groups = None if cases.groups is None else np.asarray(cases.groups)
        found.append(Predicted(cell, cases.y, fit.probabilities.astype(np.float64), groups))
    return found


def close_up(panel: Panel) -> list[PanelCell]:
    """Return the cells whose predictions are shown: the best few methods of each budget."""
    sign = -1 if METRICS[panel.metric].greater_is_better else 1
    chosen = []
    for budget in dict.fromkeys(cell.budget for cell in panel.headline):
        cells = [cell for cell in panel.headline if cell.budget == budget and not np.isnan(cell.mean)]
        chosen += sorted(cells, key=lambda cell: sign * cell.mean)[:MOST]
    return chosen


def roc(panel: Panel, predicted: list[Predicted]) -> Table:
    """Return ROC curves: of class 1 for binary, of every label for multilabel."""
    from sklearn.metrics import roc_curve

    def points(y: Array, p: Array) -> tuple[Array, Array]:
        false_positive, true_positive, _ = roc_curve(y, p)
        return false_positive, true_positive

    return _curves(panel, predicted, points)


def precision_recall(panel: Panel, predicted: list[Predicted]) -> Table:
    """Return precision-recall curves: of class 1 for binary, of every label for multilabel."""
    from sklearn.metrics import precision_recall_curve

    def points(y: Array, p: Array) -> tuple[Array, Array]:
        precision, recall, _ = precision_recall_curve(y, p)
        # scikit-learn's last point, recall 0 at precision 1, belongs to no threshold.
        return recall[-2::-1], precision[-2::-1]

    return _curves(panel, predicted, points)


def reliability(panel: Panel, predicted: list[Predicted]) -> Table:
    """Return how often what was predicted came true, in bins of equal width of the predicted probability.

    Binary and multilabel: of class 1.  Several classes: of the predicted class.
    """

    def points(y: Array, p: Array) -> tuple[Array, Array, Array]:
        bins = np.clip((p * _BINS).astype(np.int64), 0, _BINS - 1)
        count = np.bincount(bins, minlength=_BINS)
        full = count > 0
        mean_p, mean_y = (np.bincount(bins, weights=v, minlength=_BINS)[full] / count[full] for v in (p, y))
        return mean_p, mean_y, count[full]

    table: Table = {name: [] for name in ("method", "budget", "label", "x", "y", "n")}
    for found in _binary_problems(panel, predicted):
        _extend(table, found.one.cell, found.label, **dict(zip(("x", "y", "n"), points(found.y, found.p), strict=True)))
    return table


def calibrated(panel: Panel, predicted: list[Predicted]) -> Table:
    """Return flexible calibration curves with their 95 % bands; none where predictions separate the classes."""
    table: Table = {name: [] for name in ("method", "budget", "label", "x", "y", "low", "high")}
    for found in _binary_problems(panel, predicted):
        if found.y.min() == found.y.max():
            continue
        curve = calibration_curve(found.y, np.clip(found.p, 0, 1), groups=found.groups, points=_SMOOTH)
        x, y, low, high = (curve[name] for name in ("p", "observed", "low", "high"))
        if len(x) and np.isfinite(np.concatenate([low, high])).all():
            _extend(table, found.one.cell, found.label, x=x, y=y, low=low, high=high)
    return table


def net_benefits(panel: Panel, predicted: list[Predicted]) -> tuple[Table, Table]:
    """Return decision curves with their 95 % bands, and those of calling every case positive."""
    table: Table = {name: [] for name in ("method", "budget", "label", "x", "y", "low", "high")}
    everybody: Table = {name: [] for name in ("label", "x", "y")}
    for found in _binary_problems(panel, predicted):
        curve = decision_curve(found.y, np.clip(found.p, 0, 1), groups=found.groups, thresholds=_THRESHOLDS)
        ends = {"x": curve.thresholds, "y": curve.model, "low": curve.low, "high": curve.high}
        _extend(table, found.one.cell, found.label, **ends)
        if found.label not in everybody["label"]:
            for x, y in zip(curve.thresholds.tolist(), curve.treat_all.tolist(), strict=True):
                for column, value in zip(everybody.values(), (found.label, round(x, 4), round(y, 4)), strict=True):
                    column.append(value)
    return table, everybody


def confusion(panel: Panel, predicted: list[Predicted]) -> Table:
    """Return the counts of true and predicted classes, and their share of the true class."""
    names = panel.class_names
    table: Table = {name: [] for name in ("method", "budget", "truth", "guess", "n", "share")}
    for one in predicted:
        places = one.y * len(names) + predicted_class(one.p)
        counts = np.bincount(places, minlength=len(names) ** 2).reshape(len(names), -1)
        shares = np.round(counts / np.maximum(1, counts.sum(axis=1, keepdims=True)), 4)
        for i, j in np.ndindex(counts.shape):
            count, share = int(counts[i, j]), float(shares[i, j])
            row = (one.cell.name, str(one.cell.budget), names[i], names[j], count, share)
            for column, value in zip(table.values(), row, strict=True):
                column.append(value)
    return table


def _curves(panel: Panel, predicted: list[Predicted], points: Callable[[Array, Array], tuple[Array, Array]]) -> Table:
    table: Table = {name: [] for name in ("method", "budget", "label", "x", "y", "i")}
    for found in _binary_problems(panel, predicted):
        if found.y.min() == found.y.max():
            continue
        x, height = _thinned(*points(found.y, found.p))
        _extend(table, found.one.cell, found.label, x=x, y=height, i=np.arange(len(x)))
    return table


def _binary_problems(panel: Panel, predicted: list[Predicted]) -> Iterator[TwoClasses]:
    """Yield one problem per method and label; several classes as "is it right?"."""
    for one in predicted:
        if panel.task == "multilabel":
            for k, name in enumerate(panel.class_names):
                known = one.y[:, k] != MISSING
                if known.any():
                    groups = None if one.groups is None else one.groups[known]
                    yield TwoClasses(one, name, one.y[known, k], one.p[known, k], groups)
        elif panel.task == "binary":
            yield TwoClasses(one, panel.class_names[1], one.y, one.p, one.groups)
        else:
            right = (predicted_class(one.p) == one.y).astype(int)
            yield TwoClasses(one, "the predicted class", right, one.p.max(axis=1), one.groups)


def _thinned(x: Array, y: Array) -> tuple[Array, Array]:
    """Return at most `_POINTS` of a curve's points: the nearest to even steps along its length, ends included."""
    if len(x) <= _POINTS:
        return x, y
    length = np.concatenate([[0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
    kept = np.unique(np.searchsorted(length, np.linspace(0, length[-1], _POINTS)).clip(0, len(x) - 1))
    kept = np.union1d(kept, [0, len(x) - 1])
    return x[kept], y[kept]


def _extend(table: Table, cell: PanelCell, label: str, **columns: Array) -> None:
    n = len(columns["x"])
    for name, value in (("method", cell.name), ("budget", str(cell.budget)), ("label", label)):
        table[name] += [value] * n
    for name, values in columns.items():
        table[name] += np.round(values, 4).tolist()
