"""A checked request on its device, and the fits that it consists of: one for every fold and label."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from mt.probe.solver.losses import data_loss
from mt.probe.solver.paths import LogisticPath
from mt.probe.solver.request import (
    LogisticRequest,
    check_class_weight,
    check_features,
    check_penalties,
    check_sample_weight,
    check_targets,
    refuse_constant_labels,
)
from mt.types import MISSING


@dataclass(frozen=True)
class CheckedRequest:
    """Checked input.  ``targets`` (rows, labels) on ``device``, ``outputs`` as in LogisticPath.

    A label that is MISSING stands as 0 in ``targets``, and weighs nothing in its label's fits: ``known`` (rows, labels)
    is false there.  None where every label is known.
    """

    X: np.ndarray
    targets: Tensor
    known: Tensor | None
    outputs: int
    task: str
    Cs: np.ndarray
    sample_weight: Tensor
    class_weight: Tensor | str | None
    tol: float
    max_iter: int
    device: torch.device

    @classmethod
    def of(cls, request: LogisticRequest, device: torch.device) -> CheckedRequest:
        """Check everything that can be checked before computing.  Raises FitError or InputError."""
        features = check_features(request.X)
        rows_weight = check_sample_weight(request.sample_weight, len(features))
        targets, outputs = check_targets(request.y, rows_weight, task=request.task, n_classes=request.n_classes)
        classes = outputs if request.task in ("multiclass", "ordinal") else 2
        balance = check_class_weight(request.class_weight, classes)
        known = targets != MISSING
        return cls(
            features, torch.from_numpy(np.where(known, targets, 0)).to(device),
            None if known.all() else torch.from_numpy(known).to(device),
            outputs, request.task, check_penalties(request.Cs),
            torch.from_numpy(rows_weight).to(device),
            torch.from_numpy(balance).to(device) if isinstance(balance, np.ndarray) else balance,
            request.tol, request.max_iter, device,
        )  # fmt: skip

    def refuse_constant_labels(self) -> None:
        """Raise FitError when a label of a multilabel task has one class only."""
        if self.task == "multilabel":
            targets = self.targets if self.known is None else torch.where(self.known, self.targets, MISSING)
            refuse_constant_labels(targets[self.sample_weight > 0].cpu().numpy())

    def fits(self, members: Tensor) -> FitSet:
        """Return the fits of each column of ``members`` (rows, folds)."""
        softmax = self.task in ("multiclass", "ordinal")
        outputs = self.outputs if softmax else 1
        return FitSet(softmax, outputs, self.targets, self.known, members, self.sample_weight, self.class_weight)

    def all_rows(self) -> Tensor:
        """Return the members (rows, 1) of a fit on all rows."""
        return torch.ones(len(self.X), 1, dtype=torch.bool, device=self.device)

    def all_but_each(self, fold: np.ndarray) -> Tensor:
        """Return the members (rows, folds) of the fits that leave one fold out."""
        return torch.from_numpy(fold[:, None] != np.arange(fold.max() + 1)).to(self.device)

    def path(
        self, coef: Tensor, intercept: Tensor, *, gap: np.ndarray, n_iter: np.ndarray, converged: np.ndarray,
    ) -> LogisticPath:  # fmt: skip
        """Return the path with float64 objectives; warns of fits that did not converge, with the numbers."""
        fits = self.fits(self.all_rows())
        if fits.softmax:
            # Adding a constant to all intercepts leaves a softmax unchanged; as in scikit-learn they sum to zero.
            present = torch.isfinite(intercept)
            mean = torch.where(present, intercept, 0).sum(1, keepdim=True) / present.sum(1, keepdim=True)
            intercept = intercept - mean
        weights = torch.stack([fits.weights(label) for label in range(fits.count)], dim=1)
        loss = data_loss(self.X, coef, intercept, self.targets, weights, softmax=fits.softmax)
        objective = torch.from_numpy(self.Cs).to(loss) * loss + 0.5 * coef.square().sum((1, 2))
        self._warn(converged, gap, n_iter)
        return LogisticPath(
            self.Cs, self.task, coef.cpu().numpy(), intercept.cpu().numpy(), converged, n_iter,
            objective.cpu().numpy(), gap,
        )  # fmt: skip

    def _warn(self, converged: np.ndarray, gap: np.ndarray, n_iter: np.ndarray) -> None:
        late = np.flatnonzero(~converged)
        if len(late) == 0:
            return
        from sklearn.exceptions import ConvergenceWarning

        numbers = ", ".join(f"C={self.Cs[i]:.4g}: gap {gap[i]:.1e} after {n_iter[i]} iterations" for i in late[:5])
        warnings.warn(
            f"{len(late)} of {len(self.Cs)} fits stopped before the relative objective gap {self.tol:g} ({numbers}). "
            "Raise max_iter or tol, or scale the features.",
            ConvergenceWarning, stacklevel=5,
        )  # fmt: skip


@dataclass(frozen=True)
class FitSet:
    """Fits that differ in their rows or their label; each is to be solved at every C.

    ``targets`` (rows, labels) holds class numbers (one column), or 0/1 per label; ``members`` (rows, folds) is true
    for the rows that a fold's fits use; ``known`` (rows, labels) where a label is known, None for everywhere;
    ``sample_weight`` (rows,).  Fit number i is of fold i // labels and label i % labels.  ``class_weight`` is
    None, "balanced", or one weight per class number.
    """

    softmax: bool
    outputs: int
    targets: Tensor
    known: Tensor | None
    members: Tensor
    sample_weight: Tensor
    class_weight: Tensor | str | None

    def ordered(self, order: Tensor) -> FitSet:
        """Return the same fits with their rows in this order."""
        known = None if self.known is None else self.known[order]
        targets, members, weight = self.targets[order], self.members[order], self.sample_weight[order]
        return replace(self, targets=targets, known=known, members=members, sample_weight=weight)

    @property
    def count(self) -> int:
        return self.members.shape[1] * self.targets.shape[1]

    def classes(self, i: int) -> Tensor:
        """Return fit i's class number of every row (rows,)."""
        return self.targets[:, i % self.targets.shape[1]]

    def counts(self, i: int) -> Tensor:
        """Return how many rows of positive weight each class has in fit i."""
        classes = self.classes(i)[self.weights(i) > 0]
        return torch.bincount(classes, minlength=self.outputs if self.softmax else 2)

    def weights(self, i: int) -> Tensor:
        """Return each row's weight in fit i (rows,), float64, not normalised."""
        classes = self.classes(i)
        labels = self.targets.shape[1]
        used = self.members[:, i // labels]
        if self.known is not None:
            used = used & self.known[:, i % labels]
        weight = torch.where(used, self.sample_weight, 0)
        if isinstance(self.class_weight, Tensor):
            return weight * self.class_weight[classes]
        if self.class_weight == "balanced":
            # scikit-learn: n / (classes present · rows of the class), rows counted by their sample weight.
            total = class_mass(classes, weight, int(classes.max()) + 1)
            present = (total > 0).sum()
            balance = torch.where(total > 0, weight.sum() / (present * total), 0)
            return weight * balance[classes]
        return weight


def class_mass(classes: Tensor, weights: Tensor, n_classes: int) -> Tensor:
    """Return the sum of weights of each class; on the CPU, since CUDA adds in no fixed order."""
    return torch.bincount(classes.cpu(), weights=weights.cpu(), minlength=n_classes).to(weights.device)
