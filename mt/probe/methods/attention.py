"""Gated attention over the instances of a bag (Ilse, Tomczak and Welling, ICML 2018, section 2.4, eq. 9).

With h_k the instances of a bag:  a_k = softmax_k( w^T (tanh(V h_k) * sigmoid(U h_k)) ),  z = sum_k a_k h_k, and z goes
to a linear classifier.  V and U see standardised instances; z is pooled from the instances as they are.

Training starts at mean pooling: w = 0 makes all a_k equal, and the classifier is the logistic regression on the means.
Held-out bags of the budget choose among the checkpoints, the start included: attention is kept if its log loss is lower
than that of mean pooling by more than a standard error.  DVME is chosen against concatenation in the same way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mt.errors import InputError
from mt.probe.bags import Bags
from mt.probe.budgets.draw import carve, teachable
from mt.probe.method_settings import Logistic
from mt.probe.methods.linear import LinearProbe, Scaling, fit_logistic_probes
from mt.probe.protocols import Fitted, Fitting, Protocol
from mt.types import MISSING, Array, LabelledRows

if TYPE_CHECKING:
    from torch import Tensor

HIDDEN = 128  # units of V and U, as in the paper
CHECKPOINTS = (25, 50, 100, 200)  # steps after which held-out bags are scored
BATCH, SAMPLE = 16, 128  # bags per step, and instances per bag that a step uses, at most
RATE, DECAY = 1e-3, 1e-4  # AdamW's learning rate, and its weight decay of V, U and w
_ROWS = 4096  # instances whose attention is computed at once

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class AttentionProbe:
    """A linear probe on the attention-weighted mean of each bag's instances.

    gate: V and U (dim, hidden) and w (hidden,); None if mean pooling was kept.  scaling: standardises the instances
    that the gate reads.
    """

    linear: LinearProbe
    scaling: Scaling
    gate: tuple[Array, Array, Array] | None = None

    @property
    def task(self) -> str:
        return self.linear.task

    @property
    def n_classes(self) -> int:
        return self.linear.n_classes

    def probabilities(self, X: Any) -> npt.NDArray[np.float32]:
        """Return (n,) probabilities of class 1 for binary, else (n, K), of n `Bags`."""
        return self.linear.probabilities(self.pooled(X))

    def pooled(self, X: Bags) -> Array:
        """Return z of each bag, (n, dim) float32."""
        if self.gate is None:
            return X.pooled("mean")
        out = np.empty(X.shape, dtype=np.float32)
        for case, weights in enumerate(self.attention(X)):
            rows, total = X.rows_of(case), np.zeros(X.shape[1])
            for start in range(0, len(rows), _ROWS):
                part = rows[start : start + _ROWS]
                total += weights[start : start + _ROWS] @ X.instances[part].astype(np.float64)
            out[case] = total
        return out

    def attention(self, X: Bags) -> Iterator[Floats]:
        """Yield for each bag the attention of its instances, in the order of `X.rows_of`; it sums to 1."""
        for case in range(len(X)):
            scores = np.concatenate([self._scores(rows) for rows in _parts(X, case)])
            weights = np.exp(scores - scores.max())
            yield weights / weights.sum()

    def _scores(self, rows: Array) -> Floats:
        if self.gate is None:
            return np.zeros(len(rows))
        V, U, w = self.gate
        h = self.scaling.apply(rows)
        return np.asarray((np.tanh(h @ V) / (1 + np.exp(-(h @ U)))) @ w, dtype=np.float64)


def check_protocol(protocol: Protocol) -> None:
    """Raise InputError for a protocol without logistic regression, from which attention starts, or held-out rows."""
    if not isinstance(protocol.method, Logistic) or protocol.validation.kind == "none":
        raise InputError(
            "--pool attention needs a logistic regression and held-out bags to compare it on; protocol "
            f"'{protocol.name}' lacks one of them. Use --protocol default"
        )


def fit_attention(
    budget: LabelledRows[Any], fitting: Fitting, seed: int, validation: LabelledRows[Any] | None
) -> Fitted:
    """Fit gated attention on bags; keep it if it beats mean pooling on held-out bags by more than a standard error."""
    start = _on_means([budget], fitting, [seed], validation)[0]
    linear = start.probe
    assert isinstance(linear, LinearProbe)
    mean, deviation = budget.X.spread()
    scaling = Scaling(mean, np.where(deviation > 1e-7 * np.maximum(np.abs(mean), 1e-30), deviation, 1.0), clip=5.0)
    plain = AttentionProbe(linear, scaling)
    losses, known, groups = _held_out(budget, fitting, seed, validation, start, scaling)
    if losses is None:
        return _fitted(plain, start, {}, ("mean_pooling",))
    steps, account = _clearly_best(losses, known, groups)
    selection = {**start.selection, "attention": account}
    if not steps:
        return _fitted(plain, start, selection, ("mean_pooling",))
    (gate, trained), *_ = _train(budget, linear, scaling, _C(start), seed, [steps], fitting)
    return _fitted(AttentionProbe(trained, scaling, gate), start, {**selection, "steps": steps})


def _fitted(probe: AttentionProbe, start: Fitted, selection: dict[str, Any], flags: Sequence[str] = ()) -> Fitted:
    steps = selection.get("steps", 0)
    return Fitted(probe, {**start.settings, "attention_steps": steps}, selection, (*start.flags, *flags))


def _on_means(
    budgets: Sequence[LabelledRows[Any]], fitting: Fitting, seeds: Sequence[int], validation: LabelledRows[Any] | None
) -> list[Fitted]:
    """Fit the protocol on the mean of each bag."""
    method = fitting.protocol.method
    assert isinstance(method, Logistic)
    held = None if validation is None else validation.with_features(validation.X.pooled("mean"))
    draws = [(rows.with_features(rows.X.pooled("mean")), seed) for rows, seed in zip(budgets, seeds, strict=True)]
    return fit_logistic_probes(draws, fitting, method, held)


def _C(start: Fitted) -> float:
    return float(start.settings.get("C") or 1.0)


def _held_out(
    budget: LabelledRows[Any],
    fitting: Fitting,
    seed: int,
    validation: LabelledRows[Any] | None,
    start: Fitted,
    scaling: Scaling,
) -> tuple[Array | None, Array, Array | None]:
    """Return the loss of mean pooling and of each checkpoint on held-out bags, (1 + checkpoints, n).

    Also return which bags can be scored, (n,), and their groups.  The losses are None if no bag can be held out.
    Inside a fold, C, the start and the training see only the labels that the fold is fitted on.
    """
    linear = start.probe
    assert isinstance(linear, LinearProbe)
    if not len(linear.outputs):
        return None, np.zeros(0, dtype=bool), None
    if validation is not None:
        losses = np.stack([_loss(stage, validation) for stage in _stages(budget, start, scaling, seed, fitting)])
        known = np.asarray(np.isfinite(losses).all(axis=0))
        return losses, known, None if validation.groups is None else np.asarray(validation.groups)
    fold = carve(budget, fitting, seed)
    if fold is None:
        return None, np.zeros(0, dtype=bool), None
    losses = np.full((1 + len(CHECKPOINTS), len(budget)), np.nan)
    for number in np.unique(fold[fold >= 0]).tolist():
        inside, held = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        part = budget.take(inside)
        began = _on_means([part], fitting, [seed], None)[0]
        for stage, probe in enumerate(_stages(part, began, scaling, seed + number, fitting)):
            losses[stage, held] = _loss(probe, budget.take(held))
    known = teachable(budget.y, fold, multilabel=fitting.multilabel)
    known = np.asarray(known.reshape(len(budget), -1).any(axis=1) & np.isfinite(losses).all(axis=0))
    return losses, known, None if budget.groups is None else np.asarray(budget.groups)


def _stages(
    budget: LabelledRows[Any], start: Fitted, scaling: Scaling, seed: int, fitting: Fitting
) -> Iterator[AttentionProbe]:
    """Yield mean pooling, then attention at every checkpoint."""
    linear = start.probe
    assert isinstance(linear, LinearProbe)
    yield AttentionProbe(linear, scaling)
    for gate, trained in _train(budget, linear, scaling, _C(start), seed, CHECKPOINTS, fitting):
        yield AttentionProbe(trained, scaling, gate)


def _loss(probe: AttentionProbe, rows: LabelledRows[Any]) -> Floats:
    """Return the log loss of each bag (n,); in multilabel, the mean over its known labels."""
    p = probe.probabilities(rows.X).astype(np.float64).clip(1e-7, 1 - 1e-7)
    y = rows.y
    if y.ndim == 2:
        each = np.where(y == MISSING, np.nan, -np.log(np.where(y == 1, p, 1 - p)))
        there = (y != MISSING).sum(axis=1)
        return np.where(there > 0, np.nansum(each, axis=1) / np.maximum(there, 1), np.nan)
    return np.asarray(-np.log(np.where(y == 1, p, 1 - p) if p.ndim == 1 else p[np.arange(len(y)), y]))


def _clearly_best(losses: Array, known: Array, groups: Array | None) -> tuple[int, list[dict[str, float]]]:
    """Return the steps of the checkpoint that gains most over mean pooling, and the gain of every checkpoint.

    The steps are 0, mean pooling, unless a gain exceeds its standard error.
    """
    account, best, most = [], 0, 0.0
    for steps, loss in zip(CHECKPOINTS, losses[1:], strict=True):
        difference = (losses[0] - loss)[known]
        gain = float(difference.mean()) if len(difference) else 0.0
        unit = np.arange(len(difference)) if groups is None else np.unique(groups[known], return_inverse=True)[1]
        sums = np.bincount(unit, weights=difference - gain)
        error = float(np.sqrt(np.square(sums).sum()) / max(1, len(difference)))
        account.append({"steps": steps, "gain": gain, "standard_error": error})
        if gain > max(most, error):
            best, most = steps, gain
    return best, account


def _parts(X: Bags, case: int) -> Iterator[Array]:
    rows = X.rows_of(case)
    return (X.instances[rows[start : start + _ROWS]] for start in range(0, len(rows), _ROWS))


Stage = tuple[tuple[Array, Array, Array], LinearProbe]


def _train(
    budget: LabelledRows[Any],
    linear: LinearProbe,
    scaling: Scaling,
    C: float,
    seed: int,
    checkpoints: Sequence[int],
    fitting: Fitting,
) -> list[Stage]:
    """Return gate and classifier after each of these numbers of steps; the seed draws instances, bags and starts.

    The loss is that of the logistic regression: the mean over bags plus ||W||^2 / (2 C n).
    """
    import torch

    from mt.system.device import pick_device, tf32

    device, rng = pick_device(fitting.device), np.random.default_rng([seed, 2018])
    dim, n = budget.X.shape[1], len(budget)
    bound = np.sqrt(6 / (dim + HIDDEN))
    starts = [rng.uniform(-bound, bound, (dim, HIDDEN)), rng.uniform(-bound, bound, (dim, HIDDEN)), np.zeros(HIDDEN)]
    gate = [torch.tensor(start, dtype=torch.float32, device=device, requires_grad=True) for start in starts]
    W = torch.tensor(linear.coef, dtype=torch.float32, device=device, requires_grad=True)
    b = torch.tensor(linear.intercept, dtype=torch.float32, device=device, requires_grad=True)
    groups = [{"params": gate, "weight_decay": DECAY}, {"params": [W, b], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=RATE)
    outer, inner = (_torch_scaling(one, device) for one in (linear.scaling, scaling))
    targets = torch.from_numpy(_targets(budget.y, linear)).to(device)
    stages: list[Stage] = []
    order = _orders(rng, n)
    with tf32(allowed=False):
        for step in range(1, max(checkpoints) + 1):
            cases = next(order)
            rows, sizes = _sampled(budget.X, cases, rng)
            h = torch.from_numpy(rows).to(device)
            z = _weighted(h, inner(h), gate, sizes)
            loss = _objective(outer(z) @ W.T + b, targets[torch.from_numpy(cases)], linear.task)
            loss = loss + W.square().sum() / (2 * C * n)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if step in checkpoints:
                stages.append(_stage(gate, W, b, linear))
    return stages


def _orders(rng: np.random.Generator, n: int) -> Iterator[npt.NDArray[np.int64]]:
    """Yield batches of bags; each pass takes every bag at most once, and drops an incomplete last batch."""
    size = min(BATCH, n)
    while True:
        order = rng.permutation(n)
        yield from (order[start : start + size] for start in range(0, n - size + 1, size))


def _sampled(X: Bags, cases: Array, rng: np.random.Generator) -> tuple[npt.NDArray[np.float32], list[int]]:
    """Return at most `SAMPLE` instances of each bag, concatenated, and the number of each bag's."""
    chosen = []
    for case in cases.tolist():
        rows = X.rows_of(case)
        chosen.append(rows if len(rows) <= SAMPLE else np.sort(rng.choice(rows, SAMPLE, replace=False)))
    return X.instances[np.concatenate(chosen)].astype(np.float32), [len(rows) for rows in chosen]


def _weighted(h: Tensor, scaled: Tensor, gate: Sequence[Tensor], sizes: Sequence[int]) -> Tensor:
    """Return z of each bag: (bags, dim)."""
    import torch

    V, U, w = gate
    scores = (torch.tanh(scaled @ V) * torch.sigmoid(scaled @ U)) @ w
    bags = zip(torch.split(scores, list(sizes)), torch.split(h, list(sizes)), strict=True)
    return torch.stack([torch.mv(rows.T, score.softmax(dim=0)) for score, rows in bags])


def _torch_scaling(scaling: Scaling, device: Any) -> Any:
    import torch

    mean = torch.tensor(scaling.mean, dtype=torch.float32, device=device)
    scale = torch.tensor(scaling.scale, dtype=torch.float32, device=device)

    def apply(rows: Tensor) -> Tensor:
        found = (rows - mean) / scale
        if scaling.clip < np.inf:
            found = found.clamp(-scaling.clip, scaling.clip)
        return torch.nn.functional.normalize(found, dim=1) if scaling.unit else found

    return apply


def _targets(y: Array, linear: LinearProbe) -> Array:
    """Return labels numbered among the outputs that the classifier knows."""
    if linear.task == "multilabel":
        return np.asarray(y[:, linear.outputs], dtype=np.float32)
    return np.searchsorted(linear.outputs, y).astype(np.int64)


def _objective(logits: Tensor, targets: Tensor, task: str) -> Tensor:
    """Return the mean log loss: one logit is the log-odds of class 1, several a softmax, or one sigmoid per label."""
    import torch.nn.functional as F

    if task == "multilabel":
        known = targets != MISSING
        each = F.binary_cross_entropy_with_logits(logits, targets.clamp(min=0), reduction="none")
        return (each * known).sum() / len(targets)
    if logits.shape[1] == 1:
        return F.binary_cross_entropy_with_logits(logits[:, 0], targets.float())
    return F.cross_entropy(logits, targets)


def _stage(gate: Sequence[Tensor], W: Tensor, b: Tensor, linear: LinearProbe) -> Stage:
    V, U, w = (part.detach().cpu().numpy().copy() for part in gate)
    coef, intercept = (part.detach().cpu().double().numpy().copy() for part in (W, b))
    return (V, U, w), replace(linear, coef=coef, intercept=intercept)
