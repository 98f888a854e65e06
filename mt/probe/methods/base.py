"""How a probe is to be fitted, and what a fit gives."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any
from typing import Protocol as Interface

import numpy as np
import numpy.typing as npt

from mt.errors import InputError
from mt.probe.protocols.base import Logistic, Protocol
from mt.probe.solver.registry import Solver, check_solver, get_solver
from mt.types import Array


class Probe(Interface):
    """What predicts: embeddings (n, dim) -> float32 probabilities, (n,) for binary and (n, K) otherwise."""

    def probabilities(self, X: Array) -> npt.NDArray[np.float32]: ...


@dataclass(frozen=True)
class Fitting:
    """How probes are fitted: by which protocol, by which solver if it is a logistic regression, on which device.

    A run has one for all of its datasets; `on` says for which task, before anything is fitted.
    """

    protocol: Protocol
    solver_name: str = "torch"
    device: str = "cpu"
    task: str = ""
    n_classes: int = 0

    def on(self, task: str, n_classes: int) -> Fitting:
        """Return how to fit labels of this task."""
        return replace(self, task=task, n_classes=n_classes)

    @property
    def multilabel(self) -> bool:
        return self.task == "multilabel"

    @property
    def solver(self) -> Solver | None:
        """The solver, ready to be called; None if the protocol is not a logistic regression."""
        return get_solver(self.solver_name) if isinstance(self.protocol.method, Logistic) else None

    @property
    def batched(self) -> bool:
        """Whether several draws fitted together are less work than one after another."""
        return self.solver is not None and self.solver.batched

    def identity(self) -> dict[str, Any]:
        """Return what enters the identity of a question."""
        solver = check_solver(self.solver_name)
        if isinstance(self.protocol.method, Logistic):
            return {"protocol": self.protocol.fingerprint, "solver": [solver.name, solver.revision]}
        if solver.name != "torch":
            raise InputError(
                f"Protocol '{self.protocol.name}' does not use logistic regression; remove --solver {solver.name}, or "
                "take another protocol: mt probe --list-protocols"
            )
        return {"protocol": self.protocol.fingerprint, "solver": None}


@dataclass(frozen=True)
class Fitted:
    """A probe with what was chosen, the scores it was chosen by, and what a reader should know."""

    probe: Probe
    settings: dict[str, Any]
    selection: dict[str, Any]
    flags: tuple[str, ...] = ()
