"""Feature files whose rows are read chunk by chunk, within a limit of memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from mt.cache.catalog import Entry
from mt.cache.feature_file.rows import is_unlabelled
from mt.errors import InputError
from mt.probe.labelled import LabelledFeatures
from mt.probe.method_settings import Logistic
from mt.probe.protocols import get_protocol
from mt.probe.questions import Bagging, Pair
from mt.probe.request import ProbeRequest
from mt.probe.solver.row_source import StreamedRows, Traffic
from mt.system.memory import check_memory, in_units
from mt.terminal import progress
from mt.types import CaseFeatures

# Matrices (dim, dim) of float64 at once: the Gram matrix, its eigenvectors, and twice their size to find these.
_MATRICES = 4
_TOGETHER = {
    "--bag": "groups rows into cases in memory",
    "--pool": "groups rows into cases in memory",
    "--test-folds": "joins all splits in memory",
}


@dataclass(frozen=True)
class Streaming:
    """Opens feature files so that fits may read them chunk by chunk, holding at most ``memory`` bytes at once."""

    memory: int
    traffic: Traffic = field(default_factory=Traffic)

    @classmethod
    def of(cls, request: ProbeRequest) -> Streaming | None:
        """Return what opens files within the request's limit; None for a protocol that holds its rows in memory.

        Raises InputError for options that exclude a limit.
        """
        assert request.memory is not None
        given = {"--bag": request.bag, "--pool": request.pool, "--test-folds": request.test_folds}
        for option, value in given.items():
            if value is not None:
                raise InputError(f"{option} {_TOGETHER[option]}. Remove {option}, or remove --memory.")
        recipe = get_protocol(request.protocol)
        if not isinstance(recipe.method, Logistic):
            return None
        if request.solver != "torch":
            raise InputError(f"Solver '{request.solver}' holds all rows. Use --solver torch, or remove --memory.")
        return cls(request.memory)

    def check(self, pairs: Sequence[Pair]) -> None:
        """Raise InputError for features so wide that their Gram matrix and its eigenvectors exceed the limit."""
        for pair in pairs:
            dim = pair.train[0].dim
            what = f"Reading '{pair.dataset}' ({pair.model}, {dim:,} columns) from disk in every step"
            least = _MATRICES * dim**2 * 8
            check_memory(what, least, f"Type at least --memory {-(-least >> 20)}MB.", limit=self.memory)

    def __call__(self, entry: Entry, bagging: Bagging | None) -> CaseFeatures:
        """Open the labelled rows of a feature file and verify every checksum; `bagging` is always None."""
        file = entry.open(verify=True)
        used = file.is_ok
        if entry.has_unlabelled:
            used = used.copy()
            used[used] = ~is_unlabelled(file.labels)
        rows = None if used.all() else np.flatnonzero(used)
        embeddings = StreamedRows(file.mapped, self.memory, self.traffic, rows)
        return StreamedFeatures(file, np.flatnonzero(used[file.is_ok]), embeddings)

    def note(self) -> None:
        """Print how often features were read, and how many bytes in all."""
        if self.traffic.passes:
            progress.note(f"Streamed within {in_units(self.memory)}: {self.traffic}.")


class StreamedFeatures(LabelledFeatures):
    """The labelled rows of features, by number; embeddings are read when they are used."""

    def __init__(self, every: CaseFeatures, rows: np.ndarray, embeddings: StreamedRows) -> None:
        super().__init__(every, rows)
        self.embeddings = embeddings
