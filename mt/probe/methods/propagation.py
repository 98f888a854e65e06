"""Label propagation over the whole train split, most of it without labels, averaged with logistic regression.

Zhou et al. (NIPS 2003): A is the graph that joins two rows if either is among the other's nearest neighbours, D its
degrees and Y the one-hot labels of the budget (zero elsewhere),

    F = (1 - alpha) (I - alpha S)^-1 Y,    S = D^-1/2 A D^-1/2

Neighbours have the highest cosine similarity, computed on square roots of the features if none is negative.  A new
image gets the mean of the shares of its neighbours among the train rows.  In a fold, the held-out rows have no label,
and get the mean of their neighbours as a new image does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from mt.errors import InputError
from mt.probe.method_settings import Propagate
from mt.probe.methods.blend import MeanProbe, columns_of, on_validation, roots
from mt.probe.methods.linear import Floats, LinearProbe, Scaling, fit_logistic_probes
from mt.probe.methods.neighbours import nearest
from mt.probe.protocols import Fitted, Fitting, FoldPredictions
from mt.types import Array, LabelledRows

Draws = Sequence[tuple[LabelledRows[Array], int]]
MOST = 1 << 29  # bytes of train embeddings that a saved model may hold
_GAP = 1e-6  # relative residual at which the linear system counts as solved
_FLOOR = 1e-6  # probabilities are at least this before their logarithms are divided by a temperature


@dataclass(frozen=True)
class UnlabelledPool:
    """The embeddings of all train rows with their ids, and the graph of their neighbours; holds no label."""

    X: Array
    ids: Sequence[str]

    @cached_property
    def scaling(self) -> Scaling:
        dim = self.X.shape[1]
        return Scaling(np.zeros(dim), np.ones(dim), unit=True, root=roots(self.X))

    @cached_property
    def bank(self) -> npt.NDArray[np.float32]:
        """The rows among which neighbours are searched: unit length, float32."""
        return np.asarray(self.scaling.apply(self.X), dtype=np.float32)

    @cached_property
    def place(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.ids)}

    def neighbours(self, k: int, device: str = "cpu") -> npt.NDArray[np.int64]:
        """Return the numbers of each row's nearest other rows (n, k); fewer columns if there are fewer rows."""
        if k not in self._found:
            n, most = len(self.bank), min(k + 1, len(self.bank))
            found = np.empty((n, most), dtype=np.int64)
            for rows, _, near in nearest(self.bank, self.bank, most, device):
                found[rows] = near
            own = found == np.arange(n)[:, None]
            own[~own.any(axis=1), -1] = True  # a row with more duplicates than neighbours does not find itself
            self._found[k] = found[~own].reshape(n, most - 1)
        return self._found[k]

    @cached_property
    def _found(self) -> dict[int, npt.NDArray[np.int64]]:
        return {}

    def checked(self, *, saving: bool) -> UnlabelledPool:
        """Return the pool.  Raises InputError if a saved model would hold too many train embeddings."""
        if saving and self.X.size * 4 > MOST:
            raise InputError(
                f"--save: protocol 'propagate' keeps all {len(self.X):,} train embeddings, "
                f"{self.X.size * 4 / (1 << 30):.1f} GiB; expected at most {MOST / (1 << 30):g}. "
                "Save another protocol: mt probe --protocol default --save DIR"
            )
        return self


@dataclass(frozen=True)
class PropagatedProbe:
    """Predicts the mean of the class shares of the nearest rows of a bank.

    bank (n_bank, dim) float32 of unit length; shares (n_bank, K) float32, each row summing to 1.
    """

    task: str
    n_classes: int
    scaling: Scaling
    bank: npt.NDArray[np.float32]
    shares: npt.NDArray[np.float32]
    k: int
    temperature: float
    device: str = "cpu"

    def probabilities(self, X: Array) -> npt.NDArray[np.float32]:
        """Return (n,) probabilities of class 1 for binary, else (n, K)."""
        p = np.empty((len(X), self.n_classes))
        for rows, _, near in nearest(X, self.bank, self.k, self.device, self.scaling):
            p[rows] = self.shares[near].mean(axis=1)
        p = tempered(p, self.temperature)
        return np.asarray(p[:, 1] if self.task == "binary" else p, dtype=np.float32)


def fit_propagations(
    draws: Draws,
    fitting: Fitting,
    method: Propagate,
    validation: LabelledRows[Array] | None,
    pool: UnlabelledPool | None,
) -> list[Fitted]:
    """Fit logistic regression, propagate the budget's labels over the pool, and choose how to average the two.

    pool: all train rows; None propagates over the rows of each budget alone.
    """
    linear = fit_logistic_probes(draws, fitting, method.logistic, validation)
    found = []
    for (rows, _), one in zip(draws, linear, strict=True):
        ids = rows.ids or [str(row) for row in range(len(rows))]
        here = pool or UnlabelledPool(rows.X, ids)
        budget = np.array([here.place[name] for name in ids])
        found.append(_with_propagation(one, rows, budget, fitting, method, validation, here))
    return found


def _with_propagation(
    fitted: Fitted,
    rows: LabelledRows[Array],
    budget: Array,
    fitting: Fitting,
    method: Propagate,
    validation: LabelledRows[Array] | None,
    pool: UnlabelledPool,
) -> Fitted:
    """Return the weighted mean of a logistic regression and propagation; budget: the rows' numbers in the pool."""
    linear = fitted.probe
    assert isinstance(linear, LinearProbe)
    fitted = replace(fitted, flags=(*fitted.flags, "uses_unlabelled"))
    if not len(linear.outputs) or len(pool.X) < 2:
        return fitted
    y = np.searchsorted(linear.outputs, rows.y)
    graph = _Graph(pool.neighbours(method.neighbours, fitting.device), method.alpha)
    shares = np.zeros((len(pool.X), fitting.n_classes), dtype=np.float32)
    shares[:, linear.outputs] = graph.propagate([budget], [y], len(linear.outputs))[0]
    near = PropagatedProbe(
        fitting.task,
        fitting.n_classes,
        pool.scaling,
        pool.bank,
        shares,
        min(method.neighbours, len(pool.X)),
        1.0,
        fitting.device,
    )
    if validation is not None:
        folded = on_validation(linear, validation)
        spread = columns_of(near.probabilities(validation.X), linear)[None]
    elif (of_folds := fitted.folded) is not None:
        folded, spread = of_folds, _out_of_fold(of_folds, graph, budget)
    else:
        probe = MeanProbe((linear, near), (0.5, 0.5))
        settings = {**fitted.settings, "weight": 0.5, "temperature": 1.0}
        return replace(fitted, probe=probe, settings=settings, flags=(*fitted.flags, "fixed_weight"))
    scores, held = {}, {}
    for T in method.temperatures:
        warm = tempered(spread, T)
        for weight in method.weights:
            held[weight, T] = replace(folded, p=(1 - weight) * folded.p + weight * warm)
            scores[weight, T] = float(np.nanmean(held[weight, T].losses()))
    weight, T = best = min(scores, key=lambda chosen: (scores[chosen], chosen[0]))
    selection = {**fitted.selection, "weights": [[*chosen, score] for chosen, score in scores.items()]}
    settings = {**fitted.settings, "weight": weight, "temperature": T}
    both = MeanProbe((linear, replace(near, temperature=T)), (1 - weight, weight))
    fitted = replace(fitted, probe=both if weight else linear, settings=settings, selection=selection)
    if validation is not None:
        return fitted
    kept = held[best].kept(linear.outputs, fitting.n_classes, binary=fitting.task == "binary")
    return replace(fitted, held_out=kept, folded=held[best])


def tempered(p: Floats, temperature: float) -> Floats:
    """Return probabilities (..., K) with their logarithms divided by a temperature."""
    logs = np.log(np.maximum(p, _FLOOR)) / temperature
    powers = np.exp(logs - logs.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def _out_of_fold(folded: FoldPredictions, graph: _Graph, budget: Array) -> Floats:
    """Return propagation's probabilities (repeats, n, outputs) of each row without the labels of its fold."""
    parts = [(repeat, fold != number) for repeat, fold in enumerate(folded.fold) for number in np.unique(fold)]
    shares = graph.propagate(
        [budget[inside] for _, inside in parts], [folded.y[inside] for _, inside in parts], folded.p.shape[2]
    )
    p = np.empty_like(folded.p)
    for (repeat, inside), one in zip(parts, shares, strict=True):
        p[repeat, ~inside] = one[graph.neighbours[budget[~inside]]].mean(axis=1)
    return p


class _Graph:
    """The graph of neighbours (n, k) and the linear system of propagation on it."""

    def __init__(self, neighbours: npt.NDArray[np.int64], alpha: float) -> None:
        from scipy import sparse

        self.neighbours, self.alpha = neighbours, alpha
        n, k = neighbours.shape
        ones, starts = np.ones(n * k), np.arange(0, n * k + 1, k)
        one_way = sparse.csr_matrix((ones, neighbours.ravel(), starts), shape=(n, n))
        either = one_way.maximum(one_way.T).tocsr()
        scale = sparse.diags(1 / np.sqrt(np.maximum(np.asarray(either.sum(axis=1)).ravel(), 1e-12)))
        self.S: Any = (scale @ either @ scale).tocsr()

    def propagate(self, rows: Sequence[Array], labels: Sequence[Array], n_outputs: int) -> list[Floats]:
        """Return for each set of labelled rows the shares (n, outputs) of each class at every row.

        Rows that no label reaches get the class shares of the labelled rows.
        """
        n = len(self.neighbours)
        Y = np.zeros((n, len(rows), n_outputs))
        for number, (some, y) in enumerate(zip(rows, labels, strict=True)):
            Y[some, number, y] = 1 - self.alpha
        F = np.maximum(self._solve(Y.reshape(n, -1)), 0).reshape(Y.shape)
        found = []
        for number, y in enumerate(labels):
            total = F[:, number].sum(axis=1, keepdims=True)
            prior = np.bincount(y, minlength=n_outputs) / len(y)
            found.append(np.where(total > 1e-9, F[:, number] / np.maximum(total, 1e-12), prior))
        return found

    def _solve(self, B: Floats) -> Floats:
        """Return (I - alpha S)^-1 B by conjugate gradients, all columns side by side, each with its own steps."""
        x, r = np.zeros_like(B), B.copy()
        p, size = r.copy(), np.square(r).sum(axis=0)
        goal = size * _GAP**2
        for _ in range(1_000):
            going = size > goal
            if not going.any():
                break
            step = p - self.alpha * (self.S @ p)
            rate = np.where(going, size / np.maximum((p * step).sum(axis=0), 1e-300), 0.0)
            x += rate * p
            r -= rate * step
            new = np.square(r).sum(axis=0)
            p = r + np.where(going, new / np.maximum(size, 1e-300), 0.0) * p
            size = np.where(going, new, size)
        return x
