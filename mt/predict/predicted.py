"""Predictions for new cases: one row per case, written as CSV."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from mt.terminal.spreadsheet import inert

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

THRESHOLD = 0.5  # a label of a multilabel task is predicted above it, unless it has a threshold of its own


@dataclass(frozen=True)
class Predictions:
    """The predictions for n cases: ids, and probabilities (m, K) of the m cases that were not skipped.

    class_names: of the K columns.  problems: the reason of each skipped id; None if skipping was not asked for.
    thresholds: the smallest probability at which class 1, or each label, is predicted; None: it has no threshold.
    """

    ids: list[str]
    probabilities: npt.NDArray[np.float32]
    class_names: tuple[str, ...]
    task: str
    problems: Mapping[str, str] | None = None
    thresholds: Sequence[float | None] = ()

    @property
    def predicted(self) -> list[str]:
        """The most probable class of each row of probabilities; for multilabel the labels above 0.5, joined by ';'.

        With a threshold, class 1 or the label is predicted at probabilities of at least the threshold.
        """
        own = list(self.thresholds) or [None] * len(self.class_names)
        if self.task == "binary" and own[0] is not None:
            return [self.class_names[int(p >= own[0])] for p in self.probabilities[:, 1].tolist()]
        if self.task != "multilabel":
            return [self.class_names[k] for k in self.probabilities.argmax(axis=1)]
        return [
            ";".join(
                name
                for name, p, t in zip(self.class_names, row, own, strict=True)
                if (p > THRESHOLD if t is None else p >= t)
            )
            for row in self.probabilities.tolist()
        ]

    def write_csv(self, file: TextIO) -> None:
        """Write id, a probability per class, and the prediction; numbers read back to the same float32.

        A skipped case has empty cells there, and its reason in the column `problem`.
        """
        out = csv.writer(file, lineterminator="\n")
        more = ["problem"] if self.problems is not None else []
        out.writerow([*map(inert, ("id", *self.class_names)), "prediction", *more])
        made = zip(self.probabilities, self.predicted, strict=True)
        for name in self.ids:
            problem = (self.problems or {}).get(name)
            if problem is not None:
                out.writerow([inert(name), *("" for _ in self.class_names), "", inert(problem)])
                continue
            row, predicted = next(made)
            out.writerow([inert(name), *(str(p) for p in row), inert(predicted), *("" for _ in more)])
