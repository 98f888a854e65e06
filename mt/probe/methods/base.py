"""What all methods share: how a probe is to be fitted, what a fit gives, and how a setting is chosen inside the budget.

Candidates' scores are in the protocol's metric.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any
from typing import Protocol as Interface

import numpy as np
import numpy.typing as npt

from mt.errors import InputError
from mt.probe.budgets.draw import folds, stratified_split
from mt.probe.protocols import Logistic, Protocol
from mt.probe.solver.request import Solver, check_solver, get_solver
from mt.types import MISSING, Array, LabelledRows


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


# Selection: which rows are held out, and candidates' scores on them ---------------------------------------------------

Floats = npt.NDArray[np.float64]


def carve(budget: LabelledRows[Array], fitting: Fitting, seed: int) -> Array | None:
    """Return the fold of every row, -1 for rows that are never held out; None if there are too few labels to hold out.

    Folds and hold-outs are stratified and keep groups together.
    """
    source = fitting.protocol.validation
    names: dict[str, Any] = {"task": fitting.task, "n_classes": fitting.n_classes, "groups": budget.groups}
    if source.kind == "none":
        return None
    if source.kind == "folds":
        return folds(budget.y, k=source.folds, seed=seed, **names)
    if folds(budget.y, k=2, seed=seed, **names) is None:
        return None
    shares = {"fit": 1 - source.fraction, "held": source.fraction}
    parts = stratified_split(budget.y, fractions=shares, seed=seed if source.seed is None else source.seed, **names)
    if not len(parts["held"]) or len(np.unique(budget.y[parts["fit"]])) < 2:
        return None  # few groups: one part took them all, or all of a class
    fold = np.full(len(budget.y), -1)
    fold[parts["held"]] = 0
    return fold


def teachable(y: Array, fold: Array, n_outputs: int, *, multilabel: bool) -> npt.NDArray[np.bool_]:
    """Return which held-out entries (n,) or (n, L) can be scored: those whose class the fold's fitting labels hold.

    For multilabel both values of a label must be among the fitting labels, and the entry itself known.  A fold that
    never saw a class predicts 0 for it whatever the setting, so such rows would only drown the choice.
    """
    known = np.zeros(y.shape, dtype=bool)
    for number in np.unique(fold[fold >= 0]):
        held = fold == number
        fitting = y[~held]
        if multilabel:
            both = (fitting == 0).any(axis=0) & (fitting == 1).any(axis=0)
            known[held] = both & (y[held] != MISSING)
        else:
            known[held] = np.isin(y[held], fitting)
    return known


def log_loss(logits: Array, y: Array, known: Array, *, multilabel: bool) -> Floats:
    """Return the mean log loss of each candidate: logits (C, n, outputs) -> (C,), over the known entries.

    One output for two classes is the log-odds of class 1; several are a softmax, or one sigmoid per label.
    """
    losses = np.empty(len(logits))
    for number, candidate in enumerate(logits):
        z = np.asarray(candidate, dtype=np.float64)
        if multilabel:
            loss = np.logaddexp(0, z) - y * z
        elif z.shape[1] == 1:
            loss = np.logaddexp(0, z[:, 0]) - y * z[:, 0]
        else:
            top = z.max(axis=1)
            loss = top + np.log(np.exp(z - top[:, None]).sum(axis=1)) - z[np.arange(len(y)), y]
        losses[number] = loss[known].mean() if known.any() else np.nan
    return losses


def agreement(votes: Array, y: Array, metric: str, n_outputs: int) -> Floats:
    """Return accuracy, balanced accuracy or macro F1 of each candidate: votes (C, n) of classes -> (C,)."""
    if metric == "accuracy":
        return np.asarray((votes == y).mean(axis=1))
    scores = np.empty(len(votes))
    for number, vote in enumerate(votes):
        counts = np.bincount(y * n_outputs + vote, minlength=n_outputs**2).reshape(n_outputs, n_outputs)
        right, true, said = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
        if metric == "balanced_accuracy":
            scores[number] = (right[true > 0] / true[true > 0]).mean()
        else:
            there = (true + said) > 0
            scores[number] = (2 * right[there] / (true + said)[there]).mean()
    return scores


def votes_of(logits: Array) -> Array:
    """Return the predicted class of each candidate and row: logits (C, n, outputs) -> (C, n)."""
    return np.asarray((logits[..., 0] > 0) if logits.shape[-1] == 1 else logits.argmax(axis=-1)).astype(np.int64)


def candidate_scores(logits: Array, y: Array, known: Array, metric: str, n_outputs: int, *, multilabel: bool) -> Floats:
    """Return one score per candidate, greater is better, over the known entries."""
    if metric == "log_loss":
        return -log_loss(logits, y, known, multilabel=multilabel)
    return agreement(votes_of(logits)[:, known], y[known], metric, n_outputs)


def best(scores: Floats, ties: str = "smaller") -> int:
    """Return the best of candidates in ascending order; of equals the first, or with ties "larger" the last."""
    known = np.where(np.isfinite(scores), scores, -np.inf)
    return int(np.argmax(known)) if ties == "smaller" else len(known) - 1 - int(np.argmax(known[::-1]))
