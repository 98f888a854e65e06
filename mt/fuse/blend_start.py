"""Blend over all models as a start of DVME: its probabilities, out of fold and from a fit on the whole budget.

DVME's prediction is s p(network) + (1 - s) p(blend) for a share s; at s = 0 it equals blend exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mt.probe.protocols import Fitting, Probe, get_protocol
from mt.probe.run import fit_probe, fit_probes
from mt.types import Array, LabelledRows


@dataclass(frozen=True)
class BlendStart:
    """The row `blend` of `mt fuse` on a budget: all embeddings side by side."""

    rows: LabelledRows[Array]
    fitting: Fitting
    seed: int

    @classmethod
    def of(
        cls, embeddings: Sequence[Array], rows: LabelledRows[Array], n_classes: int, *, seed: int, device: str
    ) -> BlendStart:
        """Put M embeddings (n, d_m) side by side; rows: their labels and groups."""
        widths = tuple(X.shape[1] for X in embeddings)
        fitting = Fitting(get_protocol("blend-four"), device=device, widths=widths).on("multiclass", n_classes)
        return cls(rows.with_features(np.concatenate(embeddings, axis=1)), fitting, seed)

    def whole(self) -> Probe:
        """Return the probe of the whole budget."""
        return fit_probe(self.rows, self.fitting, seed=self.seed).probe

    def out_of_fold(self, fold: Array) -> Array:
        """Return float64 probabilities (n, K) of all rows, each by a fit on the other folds; fold: (n,) numbers."""
        y, groups = self.rows.y, None if self.rows.groups is None else np.asarray(self.rows.groups)
        numbers = range(int(fold.max()) + 1)
        parts = [
            LabelledRows(self.rows.X[kept], y[kept], None if groups is None else groups[kept])
            for kept in (fold != number for number in numbers)
        ]
        found = np.empty((len(y), self.fitting.n_classes))
        for number, fitted in zip(
            numbers, fit_probes([(part, self.seed) for part in parts], self.fitting), strict=True
        ):
            held = fold == number
            found[held] = fitted.probe.probabilities(self.rows.X[held])
        return found
