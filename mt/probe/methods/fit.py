"""One draw, one protocol -> a fitted probe.  Everything here sees the budget and nothing else."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from typing import Protocol as Interface

import numpy as np
import numpy.typing as npt

from mt.probe.budgets.draw import folds, stratified_split
from mt.probe.methods.linear import LinearProbe, Scaling, known_outputs
from mt.probe.methods.selection import best, candidate_scores, teachable
from mt.probe.protocols.base import Logistic, Neighbours, Protocol

if TYPE_CHECKING:
    from mt.probe.solver.paths import FoldedPath, Job, LogisticPath
    from mt.probe.solver.registry import Solver

Array = npt.NDArray[Any]


class Probe(Interface):
    """What predicts: embeddings (n, dim) -> float32 probabilities, (n,) for binary and (n, K) otherwise."""

    def probabilities(self, X: Array) -> npt.NDArray[np.float32]: ...


@dataclass(frozen=True)
class Labelled:
    """Rows whose labels may be looked at: X (n, dim), y (n,) or (n, L), the group (n,) of each row or None."""

    X: Array
    y: Array
    groups: Array | None = None

    def take(self, rows: Array) -> Labelled:
        return Labelled(self.X[rows], self.y[rows], None if self.groups is None else self.groups[rows])


@dataclass(frozen=True)
class Setting:
    """How a probe is to be fitted, all of a dataset's draws alike.  solver: of logistic protocols, None for others."""

    protocol: Protocol
    task: str
    n_classes: int
    solver: Solver | None
    device: str = "cpu"

    @property
    def multilabel(self) -> bool:
        return self.task == "multilabel"

    @property
    def batched(self) -> bool:
        """Whether several draws fitted together are less work than one after another."""
        return self.solver is not None and self.solver.batched


@dataclass(frozen=True)
class Fitted:
    """A probe with what was chosen, the scores it was chosen by, and what a reader should know."""

    probe: Probe
    settings: dict[str, Any]
    selection: dict[str, Any]
    flags: tuple[str, ...] = ()


# Yields jobs, is sent their outcomes.
Steps = Generator["Job[Any]", Any, Fitted]


def fit_probe(budget: Labelled, setting: Setting, *, seed: int, validation: Labelled | None = None) -> Fitted:
    """Fit a protocol on a budget; `validation` holds rows of the validation split where it is to choose instead."""
    return fit_probes([(budget, seed)], setting, validation=validation)[0]


def fit_probes(
    draws: Sequence[tuple[Labelled, int]], setting: Setting, *, validation: Labelled | None = None
) -> list[Fitted]:
    """Fit a protocol on several budgets with their seeds, each as if it were alone.

    What they wait for at the same time is solved together.
    """
    method = setting.protocol.method
    if isinstance(method, Logistic):
        assert setting.solver is not None
        solver = setting.solver
        fits = [_fit_logistic(budget, setting, method, solver, seed, validation) for budget, seed in draws]
        return _side_by_side(fits, solver)
    if isinstance(method, Neighbours):
        from mt.probe.methods.neighbours import fit_neighbours

        return [fit_neighbours(budget, setting, method, seed, validation) for budget, seed in draws]
    from mt.probe.methods.gradient_heads import fit_head

    return [fit_head(budget, setting, method, seed, validation) for budget, seed in draws]


def _side_by_side(fits: Sequence[Steps], solver: Solver) -> list[Fitted]:
    """Run fits that yield the jobs they wait for and are sent what a job gives; all waiting jobs are solved at once."""
    fitted: dict[int, Fitted] = {}
    sent: dict[int, Any] = dict.fromkeys(range(len(fits)))
    while sent:
        waiting = {}
        for number, outcome in sent.items():
            try:
                waiting[number] = fits[number].send(outcome)
            except StopIteration as end:
                fitted[number] = end.value
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an unconverged fit is flagged in its row
            sent = dict(zip(waiting, solver.solve(list(waiting.values())), strict=True)) if waiting else {}
    return [fitted[number] for number in range(len(fits))]


def carve(budget: Labelled, setting: Setting, seed: int) -> Array | None:
    """Return the fold of every row, -1 for rows that are never held out; None where the labels are too few to hold out.

    Folds and hold-outs are stratified and keep groups together.
    """
    source = setting.protocol.validation
    names: dict[str, Any] = {"task": setting.task, "n_classes": setting.n_classes, "groups": budget.groups}
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


def _fit_logistic(
    budget: Labelled, setting: Setting, method: Logistic, solver: Solver, seed: int, validation: Labelled | None
) -> Steps:
    """Fit every C at once, choose one on held-out rows of the budget, and keep its fit on the whole budget."""
    outputs, base = known_outputs(budget.y, setting.task, setting.n_classes)
    scaling = Scaling.learn(budget.X, setting.protocol.scaling)
    probe = LinearProbe(
        setting.task, setting.n_classes, scaling, np.zeros((0, budget.X.shape[1])), np.zeros(0), outputs, base
    )
    if not len(outputs):
        return Fitted(probe, {"C": None}, {}, ("one_class",))
    X = scaling.apply(budget.X, method.dtype)
    y = budget.y[:, outputs] if setting.multilabel else np.searchsorted(outputs, budget.y)
    problem = _Problem(X, y, len(outputs), setting, method, solver)
    Cs, selection = np.asarray(method.Cs), dict[str, Any]()
    flags, ties = list[str](), setting.protocol.validation.ties
    if len(Cs) == 1:
        path, chosen = (yield problem.path(Cs)), 0
    elif validation is not None:
        path = yield problem.path(Cs)
        scores = _validation_scores(probe, path, validation, setting)
        chosen = best(scores, ties)
        selection = _selection(setting, "val", scores)
    elif (fold := carve(budget, setting, seed)) is None or not teachable(
        y, fold, len(outputs), multilabel=setting.multilabel
    ).any():
        path, chosen = (yield problem.path(np.ones(1))), 0
        flags.append("fixed_C")
    elif setting.protocol.validation.kind == "folds":
        folded = yield problem.folds(Cs, fold)
        scores, selection = problem.choose(folded.oof, fold)
        path, chosen = (yield folded.refit_job(Cs[best(scores, ties)])), 0
    else:
        kept = yield problem.path(Cs, np.flatnonzero(fold < 0))
        scores, selection = problem.choose(problem.logits(kept), fold)
        path, chosen = (yield problem.path(Cs[[best(scores, ties)]])), 0
    if not path.converged[chosen]:
        flags.append("unconverged")
    fitted = replace(probe, coef=path.coef[chosen], intercept=path.intercept[chosen])
    return Fitted(fitted, {"C": float(path.Cs[chosen])}, selection, tuple(flags))


@dataclass(frozen=True)
class _Problem:
    """Scaled features with labels numbered among the outputs that the draw can teach."""

    X: Array
    y: Array
    n_outputs: int
    setting: Setting
    method: Logistic
    solver: Solver

    def path(self, Cs: Array, rows: Array | None = None) -> Job[LogisticPath]:
        """Return the job of fitting all rows, or these, at every C."""
        X, y = (self.X, self.y) if rows is None else (self.X[rows], self.y[rows])
        return self.solver.path(X, y, Cs, **self._options())

    def folds(self, Cs: Array, fold: Array) -> Job[FoldedPath]:
        """Return the job of fitting the rows outside each fold at every C."""
        return self.solver.folds(self.X, self.y, Cs, fold, **self._options())

    def logits(self, path: LogisticPath) -> Array:
        """Return logits (C, n, outputs) of all rows."""
        return np.stack([self.X @ w.T + b for w, b in zip(path.coef, path.intercept, strict=True)])

    def choose(self, logits: Array, fold: Array) -> tuple[Array, dict[str, Any]]:
        """Return one score a C pooled over all held-out rows, and what is kept of how it came about."""
        multilabel = self.setting.multilabel
        known = teachable(self.y, fold, self.n_outputs, multilabel=multilabel)
        metric = self.setting.protocol.selection_metric or "log_loss"

        def scores(entries: Array) -> Array:
            return candidate_scores(logits, self.y, entries, metric, self.n_outputs, multilabel=multilabel)

        pooled = scores(known)
        by_fold = []
        for number in np.unique(fold[fold >= 0]):
            here = known & ((fold == number)[:, None] if multilabel else fold == number)
            by_fold.append(scores(here).tolist() if here.any() else None)
        kind = self.setting.protocol.validation.kind
        return pooled, {**_selection(self.setting, kind, pooled), "folds": by_fold}

    def _options(self) -> dict[str, Any]:
        return {
            "task": self.setting.task, "n_classes": self.n_outputs, "class_weight": self.method.class_weight,
            "tol": self.method.tol, "max_iter": self.method.max_iter, "dtype": self.method.dtype,
            "device": self.setting.device,
        }  # fmt: skip


def _validation_scores(probe: LinearProbe, path: LogisticPath, validation: Labelled, setting: Setting) -> Array:
    """Return one score a C on the validation split, over the classes that the budget could teach."""
    X = probe.scaling.apply(validation.X, "float64")
    logits = np.stack([X @ w.T + b for w, b in zip(path.coef, path.intercept, strict=True)])
    outputs, y = probe.outputs, validation.y
    if setting.multilabel:
        y, known = y[:, outputs], np.ones((len(y), len(outputs)), dtype=bool)
    else:
        known = np.isin(y, outputs)
        y = np.where(known, np.searchsorted(outputs, y).clip(max=len(outputs) - 1), 0)
    metric = setting.protocol.selection_metric or "log_loss"
    return candidate_scores(logits, y, known, metric, len(outputs), multilabel=setting.multilabel)


def _selection(setting: Setting, source: str, scores: Array) -> dict[str, Any]:
    """Return what is kept of a choice: the metric (greater is better), its source, and every candidate's score."""
    metric = setting.protocol.selection_metric or "log_loss"
    return {
        "metric": f"negative {metric}" if metric == "log_loss" else metric,
        "source": source,
        "scores": scores.tolist(),
    }
