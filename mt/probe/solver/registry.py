"""The solvers of logistic regression by name, with their revisions.  Imports no solver before one is called.

`torch` is ours; `sklearn` is the reference, fitted cold to a tight tolerance in float64, one problem at a time; `cuml`
is NVIDIA's, on a GPU.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mt.errors import MissingExtraError, unknown

if TYPE_CHECKING:
    import numpy as np

    from mt.probe.solver.paths import FoldedPath, LogisticPath
    from mt.probe.solver.request import LogisticRequest


@dataclass(frozen=True)
class Solver:
    """Fits logistic regressions along C; several requests at once, each to the numbers that it gets alone.

    ``revision`` is raised whenever the solver's numbers change; scores remember it.  ``batched``: requests are solved
    together, which is less work than one after another.
    """

    name: str
    revision: int
    batched: bool

    def paths(self, requests: Sequence[LogisticRequest]) -> list[LogisticPath]:
        """Fit all rows of each request at every C."""
        from mt.probe.solver import api, reference

        return api.solve_paths(requests) if self.batched else reference.solve_paths(requests, self.name)

    def folds(self, requests: Sequence[LogisticRequest], folds: Sequence[np.ndarray]) -> list[FoldedPath]:
        """Fit the rows outside each fold at every C and predict the fold; ``folds`` as in api.solve_folds."""
        from mt.probe.solver import api, reference

        return api.solve_folds(requests, folds) if self.batched else reference.solve_folds(requests, folds, self.name)

    def refits(self, requests: Sequence[LogisticRequest], folded: Sequence[FoldedPath]) -> list[LogisticPath]:
        """Fit all rows of each request at its one C, which its folds have chosen."""
        from mt.probe.solver import api, reference

        return api.solve_refits(requests, folded) if self.batched else reference.solve_refits(requests, self.name)


SOLVERS = {
    solver.name: solver
    for solver in (
        Solver("torch", revision=7, batched=True),
        Solver("sklearn", revision=1, batched=False),
        Solver("cuml", revision=1, batched=False),
    )
}


def check_solver(name: str) -> Solver:
    """Return the solver of that name, installed or not.  Raises InputError for an unknown name."""
    if name not in SOLVERS:
        raise unknown("solver", name, SOLVERS, see="mt probe --help")
    return SOLVERS[name]


def get_solver(name: str) -> Solver:
    """Return the solver of that name, ready to be called.

    Raises InputError for an unknown name and MissingExtraError where it is not installed.
    """
    solver = check_solver(name)
    if name == "cuml" and importlib.util.find_spec("cuml") is None:
        raise MissingExtraError(
            "Solver 'cuml' needs the package cuml and an NVIDIA GPU, and cuml is not installed. "
            "Install it: pip install 'medical-transfer[gpu]', or take --solver torch"
        )
    return solver
