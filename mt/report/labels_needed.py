"""Labels needed: the number of labels with which a method scores as high as another does at its largest budget."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from mt.probe.scores.metrics import METRICS
from mt.report.panels import Panel, PanelCell
from mt.terminal.progress import counted


@dataclass(frozen=True)
class Needed:
    """A number of labels; `sign` is "≤" where the smallest budget was enough, ">" where the largest was not.

    draws: the number of shared draws that were compared, if any method has more draws; else 0.
    """

    labels: int
    sign: str = ""
    draws: int = 0

    def __str__(self) -> str:
        shared = f" ({counted(self.draws, 'draw')})" if self.draws else ""
        return f"{self.sign}{' ' if self.sign else ''}{self.labels:,}{shared}"


NOT_COMPARED = "not compared"


def labels_needed(panel: Panel, method: str, goal: str) -> Needed | None:
    """Return the labels that `method` needs to reach the mean score of `goal` at its largest budget.

    Means are over the draws that both have at every budget that is read.  A curve joins budgets of one kind only,
    fractions or shots.  None if the two cannot be compared: no draw in common, draws of two kinds, different train rows
    or test cases, or a score that is not defined.
    """
    return labels_to_reach(panel, panel.curve(method), panel.curve(goal)[-1])


def labels_to_reach(
    panel: Panel, curve: Sequence[PanelCell], target_cell: PanelCell, *, least: int = 0
) -> Needed | None:
    """Return the labels at which a curve, from `least` labels on, reaches a cell's mean score; as `labels_needed`."""
    curve = _same_kind(curve, target_cell)
    curve = [cell for cell in curve if cell.splits and cell.splits == target_cell.splits and cell.n_labels >= least]
    drawn = [set(cell.by_seed) for cell in (target_cell, *curve) if not cell.is_everything]
    shared = set.intersection(*drawn) - _of_other_rows(curve, panel.curve(target_cell.name)) if drawn else set()
    if not curve or (drawn and not shared):
        return None
    sign = 1 if METRICS[panel.metric].greater_is_better else -1
    target = sign * _mean(target_cell, shared)
    points = [(cell.n_labels, sign * _mean(cell, shared)) for cell in curve]
    points = [(labels, mean) for labels, mean in points if not math.isnan(mean)]
    if math.isnan(target) or not points:
        return None
    most = max((panel.most_draws(cell) for cell in (target_cell, *curve) if not cell.is_everything), default=0)
    return replace(_reached(points, target), draws=len(shared) if len(shared) < most else 0)


def rows(panel: Panel, names: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Return a row per goal: a method, and what each of the methods needs to reach it.

    Empty with one method or a single budget, where nothing can be interpolated.
    """
    if len(names) < 2 or all(len(panel.curve(name)) < 2 for name in names):
        return []
    return [(goal, [str(labels_needed(panel, name, goal) or NOT_COMPARED) for name in names]) for goal in names]


def _same_kind(curve: Sequence[PanelCell], goal: PanelCell) -> list[PanelCell]:
    """Return the cells of a curve that may be joined on the way to a goal: all labels, and budgets of one kind.

    The goal's kind; where the goal is all labels, the kind of most of the curve.
    """
    kinds = [cell.budget.kind for cell in curve if not cell.is_everything]
    kind = goal.budget.kind if not goal.is_everything or not kinds else max(dict.fromkeys(kinds), key=kinds.count)
    return [cell for cell in curve if cell.is_everything or cell.budget.kind == kind]


def _of_other_rows(curve: Sequence[PanelCell], other: Sequence[PanelCell]) -> set[int]:
    """Return the seeds whose draws differ between two curves: other rows at a budget that both have.

    Curves without a common budget are compared by the kind of their draws; all draws differ if the kinds do.
    """
    there = {cell.budget: cell for cell in other if not cell.is_everything}
    pairs = [(cell, there[cell.budget]) for cell in curve if not cell.is_everything and cell.budget in there]
    if not pairs and len({cell.how_drawn for cell in (*curve, *there.values()) if not cell.is_everything}) > 1:
        return {seed for cell in curve for seed in cell.by_seed}
    return {seed for a, b in pairs for seed, rows in a.drawn.items() if b.drawn.get(seed, rows) != rows}


def _mean(cell: PanelCell, shared: Collection[int]) -> float:
    """Return a cell's mean over the shared draws; all labels are one draw, which every draw shares."""
    values = list(cell.by_seed.values()) if cell.is_everything else [cell.by_seed[seed] for seed in sorted(shared)]
    return sum(values) / len(values)


def _reached(curve: Sequence[tuple[int, float]], target: float) -> Needed:
    """Return where a curve of (labels, score) first reaches a score, interpolated linearly in log(labels)."""
    if curve[0][1] >= target:
        return Needed(curve[0][0], "≤")
    for (n0, s0), (n1, s1) in itertools.pairwise(curve):
        if s1 >= target:
            share = (target - s0) / (s1 - s0)
            return Needed(math.ceil(math.exp(math.log(n0) + share * (math.log(n1) - math.log(n0))) - 1e-9))
    return Needed(curve[-1][0], ">")
