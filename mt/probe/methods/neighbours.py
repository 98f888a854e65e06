"""k nearest neighbours by cosine similarity, in blocks: never an n x n matrix."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mt.probe.budgets.draw import agreement, best, carve
from mt.probe.method_settings import Neighbours
from mt.probe.methods.linear import Scaling
from mt.probe.protocols import Fitted, Fitting
from mt.types import Array, LabelledRows

_ENTRIES = 1 << 24  # similarities held at once: 64 MiB of float32


@dataclass(frozen=True)
class NeighbourProbe:
    """Votes of the k nearest rows of a bank (n_bank, dim), float32 of unit length, with labels (n_bank,).

    A "weighted" vote counts exp(similarity / temperature) (facebookresearch/dino, eval_knn.py), a "majority" vote 1.
    """

    task: str
    n_classes: int
    scaling: Scaling
    bank: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    k: int
    vote: str
    temperature: float
    device: str = "cpu"

    def probabilities(self, X: Array) -> npt.NDArray[np.float32]:
        """Return each class's share of the votes: (n,) of class 1 for binary, else (n, K)."""
        shares = self.shares(X, [self.k])[0]
        return np.asarray(shares[:, 1] if self.task == "binary" else shares)

    def shares(self, X: Array, ks: Sequence[int]) -> npt.NDArray[np.float32]:
        """Return the share of the votes (len(ks), n, K) for several k at once; k is at most the rows of the bank."""
        out = np.zeros((len(ks), len(X), self.n_classes), dtype=np.float32)
        for rows, similarity, near in nearest(X, self.bank, max(ks), self.device, self.scaling):
            weight = np.exp(similarity / self.temperature) if self.vote == "weighted" else np.ones_like(similarity)
            voters = self.labels[near]
            for place, k in enumerate(ks):
                for c in range(self.n_classes):
                    out[place, rows, c] = (weight[:, :k] * (voters[:, :k] == c)).sum(axis=1)
        return np.asarray(out / np.maximum(out.sum(axis=2, keepdims=True), np.finfo(np.float32).tiny))


def fit_votes(
    draws: Sequence[tuple[LabelledRows[Array], int]],
    fitting: Fitting,
    method: Neighbours,
    validation: LabelledRows[Array] | None,
) -> list[Fitted]:
    """Fit several budgets with their seeds, one after another."""
    return [fit_neighbours(budget, fitting, method, seed, validation) for budget, seed in draws]


def fit_neighbours(
    budget: LabelledRows[Array],
    fitting: Fitting,
    method: Neighbours,
    seed: int,
    validation: LabelledRows[Array] | None,
) -> Fitted:
    """Choose k on held-out rows of the budget (or the validation split), then vote with the whole budget."""
    scaling = Scaling.learn(budget.X, fitting.protocol.scaling)
    y = np.asarray(budget.y, dtype=np.int64)

    def probe(rows: Array | slice, k: int) -> NeighbourProbe:
        return NeighbourProbe(
            fitting.task,
            fitting.n_classes,
            scaling,
            scaling.apply(budget.X[rows]),
            y[rows],
            min(k, len(y[rows])),
            method.vote,
            method.temperature,
            fitting.device,
        )

    def scores_on(rows: Array) -> Array:
        return agreement(shares[:, rows].argmax(axis=2), truth[rows], metric, fitting.n_classes)

    everything = slice(None)
    metric = fitting.protocol.selection_metric or "accuracy"
    source, fold = "val", None
    if validation is not None:
        shares, truth = probe(everything, 1).shares(validation.X, method.ks), np.asarray(validation.y)
    elif (fold := carve(budget, fitting, seed)) is not None:
        source, truth = "folds", y
        shares = np.empty((len(method.ks), len(y), fitting.n_classes), dtype=np.float32)
        for number in np.unique(fold):
            held, others = np.flatnonzero(fold == number), np.flatnonzero(fold != number)
            shares[:, held] = probe(others, 1).shares(budget.X[held], method.ks)
    else:
        return Fitted(probe(everything, method.ks[0]), {"k": min(method.ks[0], len(y))}, {}, ("fixed_k",))
    scores = scores_on(np.arange(len(truth)))
    chosen = best(scores, fitting.protocol.validation.ties)
    k = method.ks[chosen]
    out_of_fold: Array | None = None
    selection = {"metric": metric, "source": source, "scores": scores.tolist()}
    if fold is not None:
        selection["folds"] = [scores_on(np.flatnonzero(fold == number)).tolist() for number in np.unique(fold)]
        out_of_fold = shares[chosen, :, 1] if fitting.task == "binary" else shares[chosen]
    return Fitted(probe(everything, k), {"k": min(k, len(y))}, selection, held_out=out_of_fold)


def nearest(
    queries: Array, bank: Array, k: int, device: str, scaling: Scaling | None = None
) -> Iterator[tuple[slice, Array, Array]]:
    """Yield for each block of b queries its rows, and similarities and row numbers (b, k) of the nearest bank rows.

    Similarities descend.  Both arrays are unit-length rows, float32; ``scaling`` scales the queries.
    """
    import torch

    from mt.system.device import pick_device, tf32

    k, where = min(k, len(bank)), pick_device(device, values=bank.size + queries.size)
    targets = torch.from_numpy(bank).to(where)
    step = max(1, _ENTRIES // max(1, len(bank)))
    for start in range(0, len(queries), step):
        rows = slice(start, min(start + step, len(queries)))
        block = queries[rows] if scaling is None else scaling.apply(queries[rows])
        with tf32(allowed=False):
            similarity, near = (torch.from_numpy(block).to(where) @ targets.T).topk(k, dim=1)
        yield rows, similarity.cpu().numpy(), near.cpu().numpy()
