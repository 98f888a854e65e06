"""Linear probes, and logistic regression whose C is chosen inside the budget.

A probe holds its scaling, its weights and the classes it knows.  It predicts with numpy and scipy alone, without torch
or scikit-learn.  Standardised entries are clipped, because a unit of a ReLU network may be almost always zero on a
small draw and active on a test image: standardised on 126 rows of scikit-learn's digits, embeddings of three
EfficientNet-Lites reached 400,000 standard deviations on test rows, and the accuracy of logistic regression fell from
0.90 to 0.83.

The folds of all draws are solved together, then the refits.  Each draw is one of five cases: its labels hold one class;
C is fixed; or C is chosen on a validation split, on folds, or on a hold-out of the budget.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mt.probe.budgets.draw import best, candidate_scores, carves, teachable
from mt.probe.method_settings import Logistic
from mt.probe.protocols import Fitted, Fitting, FoldPredictions
from mt.probe.solver.request import is_streamed
from mt.types import MISSING, Array, LabelledRows

if TYPE_CHECKING:
    from mt.probe.solver.fits import LogisticPath
    from mt.probe.solver.request import LogisticRequest, Rows, Solver

Floats = npt.NDArray[np.float64]
CLIP = 5.0  # standardised entries are clipped at this many standard deviations
_BLOCK = 128  # rows turned into float64 at once: they stay in a core's cache
_STREAMED = 4096  # rows read at once


@dataclass(frozen=True)
class Scaling:
    """Scaling of features: (x - mean) / scale, clipped to -clip ... clip, and divided by their length if `unit`.

    mean, scale (dim,).  widths: sizes of blocks of columns, each of which is divided by its own length instead.
    root (dim,): the columns that are replaced by their square roots first; values below zero count as zero.
    """

    mean: Floats
    scale: Floats
    unit: bool = False
    clip: float = np.inf
    root: npt.NDArray[np.bool_] | None = None
    widths: tuple[int, ...] = ()

    @classmethod
    def learn(cls, X: Array, kind: str, root: npt.NDArray[np.bool_] | None = None) -> Scaling:
        """Learn the scaling from a draw's rows, without labels.  A constant column is only centred.

        kind: "standardize", "l2" (unit length) or "none".
        """
        dim = X.shape[1]
        if kind != "standardize":
            return cls(np.zeros(dim), np.ones(dim), unit=kind == "l2")
        mean, squares = np.zeros(dim), np.zeros(dim)
        for rows in blocks(X, root):
            mean += rows.sum(axis=0) / len(X)
        for rows in blocks(X, root):
            squares += np.square(rows - mean).sum(axis=0) / len(X)
        scale = np.sqrt(squares)
        flat = scale <= 1e-7 * np.maximum(np.abs(mean), 1e-30)  # float32 rounding of a constant is not a spread
        return cls(mean, np.where(flat, 1.0, scale), clip=CLIP, root=root)

    def apply(self, X: Array, dtype: str = "float32") -> Array:
        """Return the scaled rows (n, dim) as a new array."""
        out = np.empty(X.shape, dtype=dtype)
        for start in range(0, len(X), _BLOCK):
            rows = X[start : start + _BLOCK].astype(np.float64)
            if self.root is not None:
                rooted(rows, self.root)
            rows = (rows - self.mean) / self.scale
            if self.clip < np.inf:
                np.clip(rows, -self.clip, self.clip, out=rows)
            if self.unit:
                for part in np.split(rows, np.cumsum(self.widths)[:-1], axis=1) if self.widths else (rows,):
                    part /= np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-12)
            out[start : start + _BLOCK] = rows
        return out


@dataclass(frozen=True)
class LinearProbe:
    """A linear classifier on scaled features, for the classes or labels that its draw could teach.

    outputs (m,): the classes, or the labels of a multilabel task, to which coef (m or 1, dim) and intercept belong.
    base (K,): the probabilities of all others: 0 for an absent class, the smoothed base rate for a constant label.
    """

    task: str
    n_classes: int
    scaling: Scaling
    coef: Floats
    intercept: Floats
    outputs: npt.NDArray[np.int64]
    base: Floats

    def probabilities(self, X: Array) -> npt.NDArray[np.float32]:
        """Return (n,) probabilities of class 1 for binary, else (n, K), computed in float64 and rounded to float32."""
        out = np.tile(self.base, (len(X), 1))
        weights = np.ascontiguousarray(self.coef.T)
        for start in range(0, len(X), _BLOCK) if self.coef.size else ():
            rows = self.scaling.apply(X[start : start + _BLOCK], "float64")
            out[start : start + _BLOCK, self.outputs] = link(rows @ weights + self.intercept, self.task)
        return (out[:, 1] if self.task == "binary" else out).astype(np.float32)


def blocks(X: Array, root: npt.NDArray[np.bool_] | None = None) -> Iterator[Floats]:
    """Yield blocks of consecutive rows in float64, with the columns of `root` replaced by their square roots."""
    for start in range(0, len(X), _BLOCK):
        rows = X[start : start + _BLOCK].astype(np.float64)
        if root is not None:
            rooted(rows, root)
        yield rows


def rooted(rows: Floats, columns: npt.NDArray[np.bool_]) -> None:
    """Replace some columns by their square roots, in place; values below zero count as zero."""
    rows[:, columns] = np.sqrt(np.maximum(rows[:, columns], 0.0))


def link(logits: Floats, task: str) -> Floats:
    """Return probabilities (n, outputs) of logits (n, m); one logit, the log-odds of class 1, gives two outputs."""
    from scipy.special import expit, softmax

    if task == "multilabel":
        return np.asarray(expit(logits))
    if logits.shape[1] == 1:
        positive = expit(logits)
        return np.hstack([1 - positive, positive])
    return np.asarray(softmax(logits, axis=1))


def known_outputs(y: Array, task: str, n_classes: int) -> tuple[npt.NDArray[np.int64], Floats]:
    """Return which classes (multilabel: labels) these labels can teach, and the probabilities (K,) of all others.

    An absent class has probability 0; if only one class is present, it has probability 1 and nothing is taught.  A
    multilabel column that is constant in the n rows where it is known has its smoothed base rate (count + 1) / (n + 2).
    """
    if task == "multilabel":
        counts, known = (y > 0).sum(axis=0), (y != MISSING).sum(axis=0)
        return np.flatnonzero((counts > 0) & (counts < known)), (counts + 1) / (known + 2)
    present = np.unique(y)
    base = np.zeros(n_classes)
    if len(present) == 1:
        base[present[0]] = 1.0
        return np.zeros(0, dtype=np.int64), base
    return present.astype(np.int64), base


# Logistic regression --------------------------------------------------------------------------------------------------


def fit_logistic_probes(
    draws: Sequence[tuple[LabelledRows[Array], int]],
    fitting: Fitting,
    method: Logistic,
    validation: LabelledRows[Array] | None,
    roots: Sequence[npt.NDArray[np.bool_] | None] | None = None,
) -> list[Fitted]:
    """Fit every C at once, choose one on held-out rows of each budget, and keep its fit on the whole budget.

    roots: for each draw, the columns whose square roots are taken.
    """
    from sklearn.exceptions import ConvergenceWarning

    budgets = [
        ScaledBudget.of(rows, seed, fitting, method, validation, root)
        for (rows, seed), root in zip(draws, roots or [None] * len(draws), strict=True)
    ]
    ways: dict[Callable[[list[ScaledBudget]], list[Fitted]], list[int]] = {}
    for number, budget in enumerate(budgets):
        ways.setdefault(budget.way(), []).append(number)
    fitted: dict[int, Fitted] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # an unconverged fit gets the flag "unconverged"
        for way, numbers in ways.items():
            fitted |= zip(numbers, way([budgets[number] for number in numbers]), strict=True)
    return [fitted[number] for number in range(len(draws))]


def _one_class(budgets: list[ScaledBudget]) -> list[Fitted]:
    """Fit nothing: every prediction is the one class, or each label's base rate."""
    return [Fitted(budget.probe, {"C": None}, {}, ("one_class",)) for budget in budgets]


def _fixed(budgets: list[ScaledBudget]) -> list[Fitted]:
    """Fit at the protocol's only C, or at C = 1 if no rows can be held out to choose one."""
    from mt.probe.solver.api import solve_paths

    paths = solve_paths([budget.request(budget.fixed_Cs()) for budget in budgets], budgets[0].solver)
    return [budget.fitted(path) for budget, path in zip(budgets, paths, strict=True)]


def _by_validation_split(budgets: list[ScaledBudget]) -> list[Fitted]:
    """Fit the whole budget at every C and keep the best on the validation split."""
    from mt.probe.solver.api import solve_paths

    paths = solve_paths([budget.request(budget.method.Cs) for budget in budgets], budgets[0].solver)
    every = []
    for budget, path in zip(budgets, paths, strict=True):
        scores = budget.validation_scores(path)
        every.append(budget.fitted(path, budget.best(scores), budget.selection("val", scores)))
    return every


def _by_folds(budgets: list[ScaledBudget]) -> list[Fitted]:
    """Choose C by the pooled out-of-fold predictions, then fit the whole budget at that C."""
    from mt.probe.solver.api import solve_folds, solve_refits

    requests = [budget.request(budget.method.Cs) for budget in budgets]
    every = [request for request, budget in zip(requests, budgets, strict=True) for _ in budget.folds]
    solved = iter(solve_folds(every, [fold for budget in budgets for fold in budget.folds], budgets[0].solver))
    folded = [list(islice(solved, len(budget.folds))) for budget in budgets]
    choices = [budget.choose([path.oof for path in paths]) for budget, paths in zip(budgets, folded, strict=True)]
    chosen = [request.at(C) for request, (C, _) in zip(requests, choices, strict=True)]
    refits = solve_refits(chosen, [paths[0] for paths in folded], budgets[0].solver)
    held = [
        budget.predicted([one.oof for one in paths], C)
        for budget, paths, (C, _) in zip(budgets, folded, choices, strict=True)
    ]
    return [
        replace(budget.fitted(path, selection=selection), held_out=p, folded=by_fold)
        for budget, path, (p, by_fold), (_, selection) in zip(budgets, refits, held, choices, strict=True)
    ]


def _by_hold_out(budgets: list[ScaledBudget]) -> list[Fitted]:
    """Choose C on the held-out share of the budget, then fit the whole budget at that C."""
    from mt.probe.solver.api import solve_paths

    solver = budgets[0].solver
    kept = solve_paths([budget.request(budget.method.Cs, budget.folds[0] < 0) for budget in budgets], solver)
    choices = [budget.choose([budget.logits(path)]) for budget, path in zip(budgets, kept, strict=True)]
    paths = solve_paths([budget.request([C]) for budget, (C, _) in zip(budgets, choices, strict=True)], solver)
    return [
        budget.fitted(path, selection=selection)
        for budget, path, (_, selection) in zip(budgets, paths, choices, strict=True)
    ]


@dataclass(frozen=True)
class ScaledBudget:
    """A budget's scaled features, its labels numbered among the outputs that it can teach, and the fold of each row.

    probe: the probe without its weights.  folds: the fold of each row, one array per repeat; -1 for rows that are never
    held out; empty if C is not chosen on held-out rows.
    """

    X: Rows
    y: Array
    folds: tuple[Array, ...]
    probe: LinearProbe
    fitting: Fitting
    method: Logistic
    validation: LabelledRows[Array] | None

    @classmethod
    def of(
        cls,
        rows: LabelledRows[Array],
        seed: int,
        fitting: Fitting,
        method: Logistic,
        validation: LabelledRows[Array] | None,
        root: npt.NDArray[np.bool_] | None = None,
    ) -> ScaledBudget:
        """Scale a budget and, if held-out rows choose C, hold them out."""
        outputs, base = known_outputs(rows.y, fitting.task, fitting.n_classes)
        scaling = Scaling.learn(rows.X, fitting.protocol.scaling, root)
        nothing = np.zeros((0, rows.X.shape[1])), np.zeros(0)
        probe = LinearProbe(fitting.task, fitting.n_classes, scaling, *nothing, outputs, base)
        if not len(outputs):
            return cls(rows.X, rows.y, (), probe, fitting, method, validation)
        y = rows.y[:, outputs] if fitting.multilabel else np.searchsorted(outputs, rows.y)
        folds: tuple[Array, ...] = ()
        if len(method.Cs) > 1 and validation is None:
            folds = tuple(
                fold for fold in carves(rows, fitting, seed) if teachable(y, fold, multilabel=fitting.multilabel).any()
            )
        X: Rows = rows.X.scaled(scaling) if is_streamed(rows.X) else scaling.apply(rows.X, method.dtype)
        return cls(X, y, folds, probe, fitting, method, validation)

    @property
    def solver(self) -> Solver:
        solver = self.fitting.solver
        assert solver is not None
        return solver

    def way(self) -> Callable[[list[ScaledBudget]], list[Fitted]]:
        """Return the function that fits budgets of this case."""
        if not len(self.probe.outputs):
            return _one_class
        if len(self.method.Cs) > 1 and self.validation is not None:
            return _by_validation_split
        if not self.folds:
            return _fixed
        return _by_folds if self.fitting.protocol.validation.kind == "folds" else _by_hold_out

    def request(self, Cs: Sequence[float], rows: Array | None = None) -> LogisticRequest:
        """Return the solver's request for all rows, or for those of a mask, at these C."""
        from mt.probe.solver.request import LogisticRequest

        X, y = (self.X, self.y) if rows is None else (self.X[rows], self.y[rows])
        return LogisticRequest(
            X,
            y,
            Cs,
            task=self.fitting.task,
            n_classes=len(self.probe.outputs),
            class_weight=self.method.class_weight,
            tol=self.method.tol,
            max_iter=self.method.max_iter,
            dtype=self.method.dtype,
            device=self.fitting.device,
            memory=X.memory // 2 if is_streamed(X) else None,
        )

    def fixed_Cs(self) -> tuple[float, ...]:
        return self.method.Cs if len(self.method.Cs) == 1 else (1.0,)

    def logits(self, path: LogisticPath) -> Array:
        """Return logits (C, n, outputs) of all rows."""
        return _logits(self.X, path)

    def choose(self, logits: Sequence[Array]) -> tuple[float, dict[str, Any]]:
        """Return the C with the best score on all held-out rows together, and the stored account of the choice.

        logits: (C, n, outputs), one array per repeat of the folds; the scores of repeats are averaged.
        """
        n_outputs, multilabel = len(self.probe.outputs), self.fitting.multilabel
        pooled, by_fold = list[Array](), []
        for fold, candidates in zip(self.folds, logits, strict=True):
            known = teachable(self.y, fold, multilabel=multilabel)

            def scores(entries: Array, candidates: Array = candidates) -> Array:
                return candidate_scores(candidates, self.y, entries, self.metric, n_outputs, multilabel=multilabel)

            pooled.append(scores(known))
            for number in np.unique(fold[fold >= 0]):
                here = known & ((fold == number)[:, None] if multilabel else fold == number)
                by_fold.append(scores(here).tolist() if here.any() else None)
        mean = np.mean(pooled, axis=0)
        selection = self.selection(self.fitting.protocol.validation.kind, mean)
        return self.method.Cs[self.best(mean)], {**selection, "folds": by_fold}

    def predicted(self, logits: Sequence[Array], C: float) -> tuple[Array, FoldPredictions | None]:
        """Return the out-of-fold probabilities at this C, and the predictions of each repeat of the folds.

        In multilabel the second is None.
        """
        at, binary = self.method.Cs.index(C), self.fitting.task == "binary"
        if self.fitting.multilabel:
            return self.out_of_fold(logits[0][at]), None
        outputs = self.probe.outputs
        p = np.stack([link(one[at].astype(np.float64), self.fitting.task) for one in logits])
        known = np.stack([teachable(self.y, fold, multilabel=False) for fold in self.folds])
        folded = FoldPredictions(p, np.stack(self.folds), self.y, known)
        return folded.kept(outputs, self.fitting.n_classes, binary=binary), folded

    def out_of_fold(self, logits: Array) -> Array:
        """Return the out-of-fold probabilities (n, K) of several labels from logits (n, outputs).

        Entries that no fold can test are NaN.
        """
        outputs = self.probe.outputs
        known = teachable(self.y, self.folds[0], multilabel=True)
        held = np.full((len(self.y), len(self.probe.base)), np.nan)
        held[:, outputs] = np.where(known, link(logits.astype(np.float64), self.fitting.task), np.nan)
        return held.astype(np.float32)

    def validation_scores(self, path: LogisticPath) -> Array:
        """Return one score per C on the validation split, over the classes that the budget could teach."""
        assert self.validation is not None
        X, scaling = self.validation.X, self.probe.scaling
        logits = _logits(X.scaled(scaling) if is_streamed(X) else scaling.apply(X, "float64"), path)
        outputs, y = self.probe.outputs, self.validation.y
        if self.fitting.multilabel:
            y = y[:, outputs]
            known = y != MISSING
        else:
            known = np.isin(y, outputs)
            y = np.where(known, np.searchsorted(outputs, y).clip(max=len(outputs) - 1), 0)
        return candidate_scores(logits, y, known, self.metric, len(outputs), multilabel=self.fitting.multilabel)

    @property
    def metric(self) -> str:
        return self.fitting.protocol.selection_metric or "log_loss"

    def best(self, scores: Array) -> int:
        return best(scores, self.fitting.protocol.validation.ties)

    def selection(self, source: str, scores: Array) -> dict[str, Any]:
        """Return the account of a choice: the metric (greater is better), its source, and every candidate's score."""
        metric = f"negative {self.metric}" if self.metric == "log_loss" else self.metric
        return {"metric": metric, "source": source, "scores": scores.tolist()}

    def fitted(self, path: LogisticPath, chosen: int = 0, selection: dict[str, Any] | None = None) -> Fitted:
        """Return the probe with the path's weights at the chosen C."""
        flags = [] if selection is not None or len(self.method.Cs) == 1 else ["fixed_C"]
        if not path.converged[chosen]:
            flags.append("unconverged")
        probe = replace(self.probe, coef=path.coef[chosen], intercept=path.intercept[chosen])
        return Fitted(probe, {"C": float(path.Cs[chosen])}, selection or {}, tuple(flags))


def _logits(X: Any, path: LogisticPath) -> Array:
    """Return logits (C, n, outputs) of scaled rows; streamed rows are read in one pass."""
    if not is_streamed(X):
        return np.stack([X @ w.T + b for w, b in zip(path.coef, path.intercept, strict=True)])
    logits = X.empty((len(path.Cs), len(X), path.coef.shape[1]))
    for start in range(0, len(X), _STREAMED):
        rows = slice(start, start + _STREAMED)
        logits[:, rows] = X[rows] @ path.coef.transpose(0, 2, 1) + path.intercept[:, None]
    return logits
