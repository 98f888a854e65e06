"""A budget prepared for training, the network's shape, and the loss of its logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from mt.probe.budgets.draw import folds, teachable
from mt.probe.methods.linear import known_outputs
from mt.types import MISSING, Array


@dataclass(frozen=True)
class Linear:
    """A linear classifier on the concatenated inputs: coef (outputs, sum of dims), intercept (outputs,), float64."""

    coef: Array
    intercept: Array


@dataclass(frozen=True)
class NetworkShape:
    """What a network is built for: the models' widths, its outputs, the task, tokens' width and heads."""

    dims: tuple[int, ...]
    n_outputs: int
    task: str
    width: int = 512
    heads: int = 8


@dataclass(frozen=True)
class DVMEProblem:
    """A budget prepared for training.

    X: standardised embeddings on the device, one tensor (n, d_m) per model.  y: (n,) int64, numbered
    0 ... n_classes - 1, or (n, L) zeros, ones and MISSING.  groups: (n,) what folds keep together, or None.
    """

    X: Sequence[Tensor]
    y: Array
    groups: Array | None
    shape: NetworkShape
    n_classes: int
    seed: int
    class_weight: Literal["balanced"] | None = None

    def __len__(self) -> int:
        return len(self.y)

    @property
    def task(self) -> str:
        return self.shape.task

    @property
    def multilabel(self) -> bool:
        return self.task == "multilabel"

    @property
    def device(self) -> torch.device:
        return self.X[0].device

    def folds(self, rows: Array, k: int = 5) -> Array | None:
        """Return the fold of each of some rows; None if their labels are too few to hold any out."""
        groups = None if self.groups is None else self.groups[rows].tolist()
        return folds(self.y[rows], task=self.task, n_classes=self.n_classes, k=k, groups=groups, seed=self.seed)

    def one_class(self, rows: Array) -> bool:
        """Return whether these rows can teach no output."""
        return not len(known_outputs(self.y[rows], self.task, self.n_classes)[0])

    def teachable(self, rows: Array, fold: Array) -> Array:
        """Return which entries (n,) or (n, L) of these rows, held out in their folds, can be scored."""
        return teachable(self.y[rows], fold, multilabel=self.multilabel)

    def weights(self, rows: Array) -> Array | None:
        """Return the weight of each class among these rows, n / (K n_k); None if unweighted.

        For multilabel: the negatives per positive of each label.
        """
        if self.class_weight is None:
            return None
        y = self.y[rows]
        if self.multilabel:
            positives = (y > 0).sum(axis=0)
            balance: Array = (y == 0).sum(axis=0) / np.maximum(positives, 1)
        else:
            counts = np.bincount(y, minlength=self.n_classes)
            balance = len(y) / (np.maximum(counts, 1) * (counts > 0).sum())
        return balance


def loss(logits: Tensor, y: Tensor, task: str, class_weight: Tensor | None = None) -> Tensor:
    """Return the log loss of each row (...): logits (..., outputs), y (...) or (..., L); multilabel: the labels' mean.

    One logit is the log-odds of class 1, several are a softmax, or one sigmoid per label.  `class_weight` (..., K)
    holds, for each row or for all, a weight per class; for multilabel one per positive.  The mean is over the labels
    that are not MISSING; 0 for a row without any.
    """
    if task == "multilabel":
        known = (y != MISSING).to(logits.dtype)
        weighted = nn.functional.binary_cross_entropy_with_logits(
            logits, y.clamp(min=0).to(logits.dtype), pos_weight=class_weight, reduction="none"
        )
        # Where all labels are known both factors are one: the mean to the last bit.
        return (weighted * known).mean(dim=-1) * (y.shape[-1] / known.sum(dim=-1).clamp(min=1))
    if logits.shape[-1] == 1:
        logits = torch.cat([torch.zeros_like(logits), logits], dim=-1)
    found = -torch.log_softmax(logits, dim=-1).gather(-1, y[..., None])[..., 0]
    if class_weight is None:
        return found
    return found * class_weight.to(logits.dtype).expand(*y.shape, -1).gather(-1, y[..., None])[..., 0]
