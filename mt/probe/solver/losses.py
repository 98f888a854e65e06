"""Losses of many problems at once, as functions of their logits (rows, problems, outputs), and of found solutions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from mt.probe.solver.basis import row_chunks

# Odds below e to this power count as zero: in single precision they are subnormal numbers, with which a product takes
# up to thirty times as long.
NOTHING = -60.0


class Loss(Protocol):
    """Weighted mean losses; weights of a problem's rows sum to one, and a held-out row's weight is zero."""

    def value(self, logits: Tensor) -> Tensor:
        """Return the losses (problems,)."""

    def residual(self, logits: Tensor) -> Tensor:
        """Return their derivatives by the logits (rows, problems, outputs)."""

    @property
    def weights(self) -> Tensor:
        """The rows' weights (rows, problems), or with a last axis of one."""

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return the outputs' probabilities (rows, problems, outputs)."""

    def select(self, problems: Tensor) -> Loss:
        """Return the losses of these problems only."""

    def rows(self, rows: slice) -> Loss:
        """Return the losses over these rows only."""

    def to(self, dtype: torch.dtype) -> Loss:
        """Return the same losses in another precision."""


@dataclass(frozen=True)
class Sigmoid:
    """Binary cross entropy.  ``signs`` are ±1; signs and weights are (rows, problems, 1)."""

    signs: Tensor
    weights: Tensor

    def value(self, logits: Tensor) -> Tensor:
        wrong = _cut(-self.signs * logits)
        return torch.nn.functional.softplus(wrong, threshold=40).mul_(self.weights).sum((0, 2))

    def residual(self, logits: Tensor) -> Tensor:
        return _cut(-self.signs * logits).sigmoid_().mul_(self.weights).mul_(-self.signs)

    def probabilities(self, logits: Tensor) -> Tensor:
        return _cut(logits.clone()).sigmoid_()

    def select(self, problems: Tensor) -> Sigmoid:
        return Sigmoid(self.signs[:, problems], self.weights[:, problems])

    def rows(self, rows: slice) -> Sigmoid:
        return Sigmoid(self.signs[rows], self.weights[rows])

    def to(self, dtype: torch.dtype) -> Sigmoid:
        return Sigmoid(self.signs.to(dtype), self.weights.to(dtype))


@dataclass(frozen=True)
class Softmax:
    """Multinomial cross entropy.

    ``labels`` (rows,) are class numbers; ``weights`` (rows, problems); ``absent`` (problems, outputs) is -inf for a
    class that none of the problem's rows has (its probability is 0), else 0.
    """

    labels: Tensor
    weights: Tensor
    absent: Tensor

    def value(self, logits: Tensor) -> Tensor:
        possible = logits + self.absent
        own = possible.gather(2, self._own(logits))[..., 0]
        # A held-out row may have a class that the problem lacks: its loss is infinite, its weight is zero.
        return torch.where(self.weights > 0, (possible.logsumexp(2) - own) * self.weights, 0).sum(0)

    def residual(self, logits: Tensor) -> Tensor:
        own = self._own(logits)
        # p - 1 of the row's own class, as minus the sum of the others: exact where p rounds to 1.
        others = self.probabilities(logits).scatter_(2, own, 0)
        return others.scatter_(2, own, -others.sum(2, keepdim=True)).mul_(self.weights[..., None])

    def _own(self, logits: Tensor) -> Tensor:
        """Return the index of each row's own class (rows, problems, 1)."""
        return self.labels[:, None, None].expand(-1, logits.shape[1], 1)

    def probabilities(self, logits: Tensor) -> Tensor:
        # Written out: over a short last axis torch's own softmax takes four times as long.
        possible = logits + self.absent
        powers = _cut(possible.sub_(possible.amax(2, keepdim=True))).exp_()
        return powers.div_(powers.sum(2, keepdim=True))

    def select(self, problems: Tensor) -> Softmax:
        return replace(self, weights=self.weights[:, problems], absent=self.absent[problems])

    def rows(self, rows: slice) -> Softmax:
        return replace(self, labels=self.labels[rows], weights=self.weights[rows])

    def to(self, dtype: torch.dtype) -> Softmax:
        return replace(self, weights=self.weights.to(dtype), absent=self.absent.to(dtype))


def data_loss(
    features: np.ndarray, coef: Tensor, intercept: Tensor, targets: Tensor, weights: Tensor, *, softmax: bool
) -> Tensor:
    """Return ``Σ weight · loss`` (Cs,) for coefficients (Cs, outputs, dim) and intercepts (Cs, outputs).

    For reported objectives: float64, from the features as given, independent of the basis that found the solution.
    ``targets`` and ``weights`` are (rows, labels): one column of class numbers for softmax, else 0/1 per output.
    """
    total = torch.zeros(len(coef), dtype=torch.float64, device=coef.device)
    for rows, chunk in row_chunks(features, coef.device):
        logits = torch.addmm(intercept.flatten(), chunk, coef.flatten(0, 1).T).reshape(-1, *intercept.shape)
        for c in range(len(coef)):
            total[c] += (_row_losses(logits[:, c], targets[rows], softmax=softmax) * weights[rows]).sum()
    return total


def _row_losses(logits: Tensor, targets: Tensor, *, softmax: bool) -> Tensor:
    if softmax:
        return -torch.log_softmax(logits, dim=1).gather(1, targets)
    return torch.nn.functional.softplus((1 - 2 * targets) * logits, threshold=40)


def _cut(logits: Tensor) -> Tensor:
    """Set logits of NOTHING and less to -inf, in place."""
    return torch.threshold_(logits, NOTHING, -torch.inf)
