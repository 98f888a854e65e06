"""One checked request for fits along C, and the path made from what a solver found for it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from mt.probe.solver.checks import (
    ClassWeight,
    check_class_weight,
    check_features,
    check_penalties,
    check_sample_weight,
    check_targets,
)
from mt.probe.solver.fits import Groups
from mt.probe.solver.objective import data_loss
from mt.probe.solver.paths import LogisticPath


@dataclass(frozen=True)
class Request:
    """Checked input.  ``targets`` (rows, labels) on ``device``, ``outputs`` as in LogisticPath."""

    X: np.ndarray
    targets: Tensor
    outputs: int
    task: str
    Cs: np.ndarray
    sample_weight: Tensor
    class_weight: Tensor | str | None
    tol: float
    max_iter: int
    device: torch.device

    @classmethod
    def check(
        cls, X: np.ndarray, y: np.ndarray, Cs: Sequence[float] | np.ndarray, *, task: str, n_classes: int | None,
        sample_weight: np.ndarray | None, class_weight: ClassWeight, tol: float, max_iter: int, device: torch.device,
    ) -> Request:  # fmt: skip
        """Check everything that can be checked before computing.  Raises FitError or InputError."""
        features = check_features(X)
        rows_weight = check_sample_weight(sample_weight, len(features))
        targets, outputs = check_targets(y, rows_weight, task=task, n_classes=n_classes)
        classes = outputs if task in ("multiclass", "ordinal") else 2
        balance = check_class_weight(class_weight, classes)
        return cls(
            features, torch.from_numpy(targets).to(device), outputs, task, check_penalties(Cs),
            torch.from_numpy(rows_weight).to(device),
            torch.from_numpy(balance).to(device) if isinstance(balance, np.ndarray) else balance,
            tol, max_iter, device,
        )  # fmt: skip

    def at(self, Cs: Sequence[float]) -> Request:
        """Return the same request at other C."""
        return replace(self, Cs=check_penalties(Cs))

    def groups(self, members: Tensor) -> Groups:
        """Return the fits of each column of ``members`` (rows, folds)."""
        softmax = self.task in ("multiclass", "ordinal")
        outputs = self.outputs if softmax else 1
        return Groups(softmax, outputs, self.targets, members, self.sample_weight, self.class_weight)

    def whole(self) -> Tensor:
        """Return the members (rows, 1) of a fit on all rows."""
        return torch.ones(len(self.X), 1, dtype=torch.bool, device=self.device)

    def without_each(self, fold: np.ndarray) -> Tensor:
        """Return the members (rows, folds) of the fits that leave one fold out."""
        return torch.from_numpy(fold[:, None] != np.arange(fold.max() + 1)).to(self.device)

    def path(
        self, coef: Tensor, intercept: Tensor, *, gap: np.ndarray, n_iter: np.ndarray, converged: np.ndarray,
    ) -> LogisticPath:  # fmt: skip
        """Return the path with float64 objectives; warns of fits that did not converge, with the numbers."""
        groups = self.groups(self.whole())
        if groups.softmax:
            # Softmax does not tell intercepts apart by a constant; as in scikit-learn they sum to zero.
            present = torch.isfinite(intercept)
            mean = torch.where(present, intercept, 0).sum(1, keepdim=True) / present.sum(1, keepdim=True)
            intercept = intercept - mean
        weights = torch.stack([groups.weights(label) for label in range(groups.count)], dim=1)
        loss = data_loss(self.X, coef, intercept, self.targets, weights, softmax=groups.softmax)
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
            ConvergenceWarning, stacklevel=4,
        )  # fmt: skip
