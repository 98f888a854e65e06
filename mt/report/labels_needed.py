"""Labels needed: how many labels a method needs to score as high as another does with all of its labels."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from mt.probe.scores.metrics import METRICS
from mt.report.panels import Panel


@dataclass(frozen=True)
class Needed:
    """A number of labels; `sign` is "≤" where the smallest budget was enough, ">" where the largest was not."""

    labels: int
    sign: str = ""

    def __str__(self) -> str:
        return f"{self.sign}{' ' if self.sign else ''}{self.labels:,}"


def labels_needed(panel: Panel, method: str, goal: str) -> Needed | None:
    """Return the labels that `method` needs to reach the mean score of `goal` at its largest budget.

    None where a score that this takes is not defined.
    """
    sign = 1 if METRICS[panel.metric].greater_is_better else -1
    target = sign * panel.curve(goal)[-1].mean
    curve = [(cell.n_labels, sign * cell.mean) for cell in panel.curve(method) if not math.isnan(cell.mean)]
    return None if math.isnan(target) or not curve else _reached(curve, target)


def rows(panel: Panel, names: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Return a row a goal: a method, and what each of the methods needs to reach it; a dash: not defined.

    None with one method, or with a single budget: then there is nothing to read between.
    """
    if len(names) < 2 or all(len(panel.curve(name)) < 2 for name in names):
        return []
    return [(goal, [str(labels_needed(panel, name, goal) or "–") for name in names]) for goal in names]


def _reached(curve: Sequence[tuple[int, float]], target: float) -> Needed:
    """Return where a curve of (labels, score) first reaches a score, straight between points on the log axis."""
    if curve[0][1] >= target:
        return Needed(curve[0][0], "≤")
    for (n0, s0), (n1, s1) in itertools.pairwise(curve):
        if s1 >= target:
            share = (target - s0) / (s1 - s0)
            return Needed(math.ceil(math.exp(math.log(n0) + share * (math.log(n1) - math.log(n0))) - 1e-9))
    return Needed(curve[-1][0], ">")
