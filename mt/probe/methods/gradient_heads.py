"""Linear layers trained by gradient steps (eva, thunder, dino-linear), all runs and settings of a draw at once.

A step is two batched matrix products: with X the batches (S, b, d+1) of S runs and W their weights (S, d+1, R K) of R
settings and K classes, P = softmax(X W) and dW = X^T (P - Y) / b.  The last column of X is one: the bias.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from mt.probe.budgets.draw import carve
from mt.probe.method_settings import Head
from mt.probe.methods.linear import LinearProbe, Scaling, known_outputs
from mt.probe.protocols import Fitted, Fitting
from mt.types import Array, LabelledRows

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_ENTRIES = 1 << 24  # logits of held-out rows, of all runs and settings, at once
_CHECKS = 500  # held-out rows are scored at most this often: with few rows eva's 12,500 steps are 12,500 epochs


@dataclass(frozen=True)
class AveragedProbe:
    """The mean of the probabilities of several probes."""

    probes: tuple[LinearProbe, ...]

    def probabilities(self, X: Array) -> npt.NDArray[np.float32]:
        total = sum(probe.probabilities(X).astype(np.float64) for probe in self.probes)
        return np.asarray(total / len(self.probes), dtype=np.float32)


def fit_heads(
    draws: Sequence[tuple[LabelledRows[Array], int]],
    fitting: Fitting,
    method: Head,
    validation: LabelledRows[Array] | None,
) -> list[Fitted]:
    """Fit several budgets with their seeds, one after another."""
    return [fit_head(budget, fitting, method, seed, validation) for budget, seed in draws]


def fit_head(
    budget: LabelledRows[Array], fitting: Fitting, method: Head, seed: int, validation: LabelledRows[Array] | None
) -> Fitted:
    """Train every run of every setting, keep each at its best epoch on held-out rows, and choose the best setting."""
    outputs, base = known_outputs(budget.y, fitting.task, fitting.n_classes)
    scaling = Scaling.learn(budget.X, fitting.protocol.scaling)
    if not len(outputs):
        nothing = np.zeros((0, budget.X.shape[1]))
        probe = LinearProbe(fitting.task, fitting.n_classes, scaling, nothing, np.zeros(0), outputs, base)
        return Fitted(probe, {}, {}, ("one_class",))
    held, flags = validation, list[str]()
    if validation is None and fitting.protocol.validation.kind != "none":
        fold = carve(budget, fitting, seed)
        if fold is None:
            flags.append("no_validation")
        else:
            held, budget = budget.take(np.flatnonzero(fold >= 0)), budget.take(np.flatnonzero(fold < 0))
    settings = list(itertools.product(method.learning_rates, method.weight_decays))
    training = _Training(method, settings, outputs, fitting, seed)
    judged = None if held is None else (scaling.apply(held.X), held.y)
    weights, scores, epochs = training.run(scaling.apply(budget.X), budget.y, judged)
    # Ties go to the setting that reached its score in the earliest epoch, as in thunder, then to the first.
    chosen = int(np.lexsort((epochs.mean(axis=0), -scores.mean(axis=0)))[0])
    probes = tuple(
        LinearProbe(fitting.task, fitting.n_classes, scaling, run[:, :-1], run[:, -1], outputs, base)
        for run in weights[:, chosen]
    )
    rate, decay = settings[chosen]
    selection = {}
    if held is not None:
        source = "val" if validation is not None else "holdout"
        metric = fitting.protocol.selection_metric
        selection = {"metric": metric, "source": source, "scores": scores.mean(axis=0).tolist()}
    averaged = probes[0] if len(probes) == 1 else AveragedProbe(probes)
    return Fitted(averaged, {"learning_rate": rate, "weight_decay": decay}, selection, tuple(flags))


@dataclass(frozen=True)
class _Training:
    """S runs of R settings; all rows stay in memory."""

    method: Head
    settings: list[tuple[float, float]]
    outputs: npt.NDArray[np.int64]
    fitting: Fitting
    seed: int

    def run(self, X: Array, y: Array, held: tuple[Array, Array] | None) -> tuple[Array, Array, Array]:
        """Return weights (S, R, K, d+1) in float64, the best held-out scores (S, R), and their epochs."""
        from mt.system.device import pick_device, tf32

        with tf32(allowed=False):
            return self._run(X, y, held, pick_device(self.fitting.device, values=X.size))

    def _run(
        self, X: Array, y: Array, held: tuple[Array, Array] | None, device: torch.device
    ) -> tuple[Array, Array, Array]:
        import torch

        features = torch.from_numpy(_with_ones(X)).to(device)
        classes = torch.from_numpy(np.searchsorted(self.outputs, y)).to(device)
        judge = None if held is None else _Judge(*held, self.outputs, self.fitting.protocol.selection_metric, device)
        batch = min(self.method.batch, len(X))
        steps = math.ceil(len(X) / batch)
        epochs = self.method.epochs or max(1, (self.method.steps or 1) // steps)
        every = math.ceil(epochs / _CHECKS)
        patience = math.ceil(epochs / every * (self.method.patience or 1))
        generators = [np.random.default_rng([self.seed, run]) for run in range(self.method.runs)]
        state = _Optimizer(
            self.method, self.settings, self._start(generators, X.shape[1]).to(device), len(self.outputs)
        )
        keep = _Best(state.weights, len(self.settings), patience)
        for epoch in range(epochs):
            order = torch.from_numpy(np.stack([rng.permutation(len(X)) for rng in generators])).to(device)
            factor = (1 + math.cos(math.pi * epoch / epochs)) / 2 if self.method.cosine else 1.0
            for rows in torch.split(order, batch, dim=1):
                state.step(features[rows], classes[rows], factor)
            due = epoch % every == 0 or epoch == epochs - 1
            if judge and due and not keep.update(state.weights, judge.scores(state.weights, len(self.settings)), epoch):
                break
        weights = (keep.weights if judge else state.weights).cpu().double().numpy()
        split = weights.reshape(len(weights), X.shape[1] + 1, len(self.settings), len(self.outputs))
        scores, kept = (table.cpu().double().numpy() for table in (keep.scores, keep.epochs))
        return split.transpose(0, 2, 3, 1), scores, kept

    def _start(self, generators: list[np.random.Generator], dim: int) -> Tensor:
        """Return initial weights (S, d+1, R K), the same for all settings of a run, as the method draws them."""
        import torch

        shape, bound, sd = (dim + 1, len(self.outputs)), 1 / math.sqrt(dim), self.method.start_sd
        if sd is None:
            starts = [rng.uniform(-bound, bound, shape) for rng in generators]
        else:
            starts = [rng.normal(0, sd, shape) * (np.arange(dim + 1) < dim)[:, None] for rng in generators]
        return torch.from_numpy(np.stack(starts)).float().repeat(1, 1, len(self.settings))


class _Optimizer:
    """Adam, AdamW or SGD with momentum, as in torch.optim, with one learning rate and weight decay per setting."""

    def __init__(self, method: Head, settings: list[tuple[float, float]], weights: Tensor, n_outputs: int) -> None:
        import torch

        def per_column(values: list[float]) -> Tensor:
            return torch.tensor(values, device=weights.device).repeat_interleave(n_outputs)

        self.method, self.weights, self.n_outputs = method, weights, n_outputs
        self.rates = per_column([rate for rate, _ in settings])
        self.decays = per_column([decay for _, decay in settings])
        self.first, self.second, self.count = torch.zeros_like(weights), torch.zeros_like(weights), 0

    def step(self, X: Tensor, classes: Tensor, factor: float) -> None:
        """Take one step on batches X (S, b, d+1) with classes (S, b), at `factor` times the learning rates."""
        self.count += 1
        gradient, rates = self._gradient(X, classes), self.rates * factor
        if self.method.optimizer == "adamw":
            self.weights.mul_(1 - rates * self.decays)
        else:
            gradient.addcmul_(self.decays, self.weights)
        if self.method.optimizer == "sgd":
            self.first.mul_(self.method.momentum).add_(gradient)
            self.weights.addcmul_(rates, self.first, value=-1)
            return
        self.first.lerp_(gradient, 0.1)
        self.second.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
        size = (self.second / (1 - 0.999**self.count)).sqrt_().add_(1e-8)
        self.weights.addcmul_(rates, self.first / size, value=-1 / (1 - 0.9**self.count))

    def _gradient(self, X: Tensor, classes: Tensor) -> Tensor:
        logits = (X @ self.weights).reshape(*X.shape[:2], -1, self.n_outputs)
        slope = logits.softmax(dim=-1)
        hot = classes[:, :, None, None].expand(*slope.shape[:3], 1)
        slope.scatter_add_(3, hot, slope.new_full((), -1.0).expand_as(hot))
        slopes: Tensor = X.transpose(1, 2) @ slope.flatten(2) / X.shape[1]
        return slopes


class _Judge:
    """Scores weights on held-out rows: balanced accuracy or macro F1 of every run and setting."""

    def __init__(self, X: Array, y: Array, outputs: Array, metric: str | None, device: torch.device) -> None:
        import torch

        known = np.isin(y, outputs)
        self.features = torch.from_numpy(_with_ones(X[known])).to(device)
        self.n_outputs, self.metric = len(outputs), metric
        truth = torch.from_numpy(np.searchsorted(outputs, y[known])).to(device)
        self.truth = torch.nn.functional.one_hot(truth, self.n_outputs).float()

    def scores(self, weights: Tensor, n_settings: int) -> Tensor:
        """Return (S, R) scores of weights (S, d+1, R K)."""
        import torch

        shape = len(weights), n_settings, self.n_outputs
        right, total = weights.new_zeros(shape), weights.new_zeros(shape)
        blocks = max(1, _ENTRIES // right.numel())
        for features, truth in zip(torch.split(self.features, blocks), torch.split(self.truth, blocks), strict=True):
            logits = features @ weights
            votes = logits.reshape(*logits.shape[:2], n_settings, self.n_outputs).argmax(dim=-1)
            said = torch.nn.functional.one_hot(votes, self.n_outputs).float()
            right += torch.einsum("snrk,nk->srk", said, truth)
            total += said.sum(dim=1)
        true = self.truth.sum(dim=0)
        if self.metric == "balanced_accuracy":
            there = true > 0
            return (right[..., there] / true[there]).mean(dim=-1)
        there = (true + total) > 0
        return (2 * right / (true + total).clamp(min=1)).sum(dim=-1) / there.sum(dim=-1)


class _Best:
    """The weights of each run and setting at their best score, updated until patience is used up."""

    def __init__(self, weights: Tensor, n_settings: int, patience: int) -> None:
        self.weights, self.patience = weights.clone(), patience
        self.scores = weights.new_full((len(weights), n_settings), -1.0)
        self.waited = weights.new_zeros((len(weights), n_settings))
        self.epochs = self.waited.clone()

    def update(self, weights: Tensor, scores: Tensor, epoch: int) -> bool:
        """Keep the weights that score better than before; returns whether any run still has patience left."""
        going = self.waited < self.patience
        better = going & (scores > self.scores)
        self.scores = scores.where(better, self.scores)
        self.epochs.masked_fill_(better, epoch)
        n_outputs = weights.shape[2] // scores.shape[1]
        self.weights = weights.where(better.repeat_interleave(n_outputs, dim=1)[:, None, :], self.weights)
        self.waited = self.waited.add(1).masked_fill(better, 0)
        return bool((self.waited < self.patience).any())


def _with_ones(X: Array) -> npt.NDArray[np.float32]:
    return np.hstack([X, np.ones((len(X), 1), dtype=np.float32)])
