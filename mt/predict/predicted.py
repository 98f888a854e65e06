"""Predictions for new cases: one row per case, written as CSV."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

THRESHOLD = 0.5  # a label of a multilabel task is predicted above it


@dataclass(frozen=True)
class Predictions:
    """ids (n,), probabilities (n, K) in the order of class_names, and the predicted class (labels) of each."""

    ids: list[str]
    probabilities: npt.NDArray[np.float32]
    class_names: tuple[str, ...]
    task: str

    @property
    def predicted(self) -> list[str]:
        """The most probable class; for multilabel the labels above one half, joined by ';'."""
        if self.task != "multilabel":
            return [self.class_names[k] for k in self.probabilities.argmax(axis=1)]
        return [
            ";".join(name for name, p in zip(self.class_names, row, strict=True) if p > THRESHOLD)
            for row in self.probabilities
        ]

    def write_csv(self, file: TextIO) -> None:
        """Write id, a probability a class, and the prediction; numbers read back to the same float32."""
        out = csv.writer(file, lineterminator="\n")
        out.writerow(["id", *self.class_names, "prediction"])
        for name, row, predicted in zip(self.ids, self.probabilities, self.predicted, strict=True):
            out.writerow([name, *(str(p) for p in row), predicted])
