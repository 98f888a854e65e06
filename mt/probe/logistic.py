"""Logistic regression with an L2 penalty at many C, for every label and fold at once.

The objective is scikit-learn's: ``C · Σ sample_weight · loss + ½ ‖w‖²``, the intercept unpenalised; one weight vector
for `binary`, one a label for `multilabel`, multinomial for `multiclass` and `ordinal`.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mt.probe._basis import Basis, build_basis
from mt.probe._objective import data_loss
from mt.probe._problems import Groups, solve
from mt.probe._targets import (
    ClassWeight,
    check_class_weight,
    check_features,
    check_folds,
    check_penalties,
    check_sample_weight,
    check_targets,
    refuse_constant_labels,
)  # fmt: skip

# Bytes that the problems solved at once may take, at least; a quarter of the features if that is more.
MEMORY = 512 << 20
DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class LogisticPath:
    """Solutions along C.  ``coef`` (Cs, outputs, dim) and ``intercept`` (Cs, outputs) are float64.

    A class without rows has intercept -inf: its probability is 0.  ``objective`` is scikit-learn's, in float64; ``gap``
    the estimated relative distance to its minimum.
    """

    Cs: np.ndarray
    task: str
    coef: np.ndarray
    intercept: np.ndarray
    converged: np.ndarray
    n_iter: np.ndarray
    objective: np.ndarray
    gap: np.ndarray

    def decision_function(self, X: np.ndarray, c_index: int) -> np.ndarray:
        """Return the logits (rows, outputs) at one C."""
        logits: np.ndarray = np.asarray(X) @ self.coef[c_index].T + self.intercept[c_index]
        return logits

    def predict_proba(self, X: np.ndarray, c_index: int) -> np.ndarray:
        """Return P(class 1) (rows,) for binary, else probabilities (rows, outputs)."""
        return probabilities(self.decision_function(X, c_index), self.task)


@dataclass(frozen=True)
class FoldedPath:
    """Out-of-fold logits ``oof`` (Cs, rows, outputs) and the path refitted on all rows.

    ``fold_converged`` is (folds, Cs).
    """

    oof: np.ndarray
    path: LogisticPath
    fold_converged: np.ndarray


def probabilities(logits: np.ndarray, task: str) -> np.ndarray:
    """Turn logits (rows, outputs) into probabilities: (rows,) for binary, else (rows, outputs)."""
    from scipy.special import expit, softmax

    if task == "binary":
        return np.asarray(expit(logits[:, 0]))
    return np.asarray(expit(logits) if task == "multilabel" else softmax(logits, axis=1))


def fit_logistic(
    X: np.ndarray, y: np.ndarray, Cs: Sequence[float] | np.ndarray, *, task: str,
    sample_weight: np.ndarray | None = None, class_weight: ClassWeight = None, n_classes: int | None = None,
    standardize: bool = False, constant_labels: str = "refuse", tol: float = 1e-5, max_iter: int = 1000,
    device: str = "auto", dtype: str = "float32", memory: int | None = None,
) -> LogisticPath:  # fmt: skip
    """Fit every C (and label) together.

    ``X`` (rows, dim), any float type, may be memory-mapped or strided; ``y`` class numbers, or (rows, labels) of 0/1.
    ``n_classes`` declares classes beyond those present.  ``standardize`` penalises the coefficients of the features
    scaled to unit variance on these rows (coefficients are returned for the features as given).  ``constant_labels``:
    "refuse", or "base_rate" to predict (count + 1) / (rows + 2) for a label of one class only.  ``memory`` is the bytes
    that problems solved at once may take.  Raises FitError; warns ConvergenceWarning with the numbers.
    """
    call = _Call.prepare(
        X, y, Cs, task=task, sample_weight=sample_weight, class_weight=class_weight, n_classes=n_classes,
        standardize=standardize, tol=tol, max_iter=max_iter, device=device, dtype=dtype, memory=memory,
    )  # fmt: skip
    if task == "multilabel" and constant_labels == "refuse":
        refuse_constant_labels(call.targets.cpu().numpy())
    everything = torch.ones(len(call.X), 1, dtype=torch.bool, device=call.targets.device)
    weights, gap, n_iter = call.solve(everything)
    return call.path(weights[0], gap[0], n_iter[0])


def fit_path_folds(
    X: np.ndarray, y: np.ndarray, Cs: Sequence[float] | np.ndarray, fold: np.ndarray, *, task: str,
    n_classes: int | None = None, sample_weight: np.ndarray | None = None, class_weight: ClassWeight = None,
    standardize: bool = False, tol: float = 1e-5, max_iter: int = 1000, device: str = "auto", dtype: str = "float32",
    memory: int | None = None,
) -> FoldedPath:  # fmt: skip
    """Fit every C on the rows outside each fold, predict that fold, and refit on all rows: one basis for all.

    ``fold`` (rows,) numbers the folds from 0.  The basis (and scaling) uses all rows and no label; each fold's fit sees
    the labels of its own fitting rows alone.  A label with one class in a fold's rows predicts its smoothed base rate.
    """
    call = _Call.prepare(
        X, y, Cs, task=task, sample_weight=sample_weight, class_weight=class_weight, n_classes=n_classes,
        standardize=standardize, tol=tol, max_iter=max_iter, device=device, dtype=dtype, memory=memory,
    )  # fmt: skip
    number = check_folds(fold, len(call.X))
    outside = torch.from_numpy(number[:, None] != np.arange(number.max() + 1)).to(call.targets.device)
    everything = torch.ones_like(outside[:, :1])
    weights, gap, n_iter = call.solve(torch.cat([outside, everything], dim=1))
    oof = np.empty((len(call.Cs), len(number), call.outputs), dtype=np.float32)
    for k in range(number.max() + 1):
        held_out = np.flatnonzero(number == k)
        oof[:, held_out] = call.logits(held_out, weights[k])
    return FoldedPath(oof, call.path(weights[-1], gap[-1], n_iter[-1]), (gap[:-1] <= tol).cpu().numpy())


@dataclass(frozen=True)
class _Call:
    """One call's checked input, its basis, and where to compute."""

    X: np.ndarray
    targets: Tensor
    outputs: int
    task: str
    Cs: np.ndarray
    sample_weight: Tensor
    class_weight: Tensor | str | None
    basis: Basis
    tol: float
    max_iter: int
    memory: int

    @classmethod
    def prepare(
        cls, X: np.ndarray, y: np.ndarray, Cs: Sequence[float] | np.ndarray, *, task: str,
        sample_weight: np.ndarray | None, class_weight: ClassWeight, n_classes: int | None, standardize: bool,
        tol: float, max_iter: int, device: str, dtype: str, memory: int | None,
    ) -> _Call:  # fmt: skip
        features = check_features(X)
        targets, outputs = check_targets(y, len(features), task=task, n_classes=n_classes)
        penalties, rows_weight = check_penalties(Cs), check_sample_weight(sample_weight, len(features))
        balance = check_class_weight(class_weight, outputs if task in ("multiclass", "ordinal") else 2)
        where = torch_device(device)
        basis = build_basis(features, dtype=DTYPES[dtype], device=where, standardize=standardize)
        return cls(
            features, torch.from_numpy(targets).to(where), outputs, task, penalties,
            torch.from_numpy(rows_weight).to(where),
            torch.from_numpy(balance).to(where) if isinstance(balance, np.ndarray) else balance,
            basis, tol, max_iter, memory or max(MEMORY, basis.rotated.nbytes // 4),
        )  # fmt: skip

    def groups(self, members: Tensor) -> Groups:
        """Return the fits of each column of ``members`` (rows, folds)."""
        softmax = self.task in ("multiclass", "ordinal")
        outputs = self.outputs if softmax else 1
        return Groups(softmax, outputs, self.targets, members, self.sample_weight, self.class_weight)

    def solve(self, members: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Fit each column of ``members`` (rows, folds) at every C.

        Returns weights (folds, Cs, outputs, columns), and relative gaps and iterations (folds, Cs), the largest over
        the labels.
        """
        groups = self.groups(members)
        labels = self.targets.shape[1]
        shape = (groups.count, len(self.Cs))
        weights = torch.zeros(*shape, groups.outputs, self.basis.rotated.shape[1], dtype=torch.float64)
        gap, n_iter = torch.zeros(shape, dtype=torch.float64), torch.zeros(shape, dtype=torch.int64)
        for part in solve(self.basis, groups, self.Cs, tol=self.tol, max_iter=self.max_iter, memory=self.memory):
            weights[part.group, part.c_index] = part.weights.cpu()
            gap[part.group, part.c_index] = part.gap.cpu()
            n_iter[part.group, part.c_index] = part.n_iter
        folds = members.shape[1]
        weights = weights.reshape(folds, labels, len(self.Cs), groups.outputs, -1).transpose(1, 2)
        by_fold = (folds, labels, len(self.Cs))
        return weights.flatten(2, 3), gap.reshape(by_fold).amax(1), n_iter.reshape(by_fold).amax(1)

    def logits(self, rows: np.ndarray, weights: Tensor) -> np.ndarray:
        """Return logits (Cs, rows, outputs) of some rows for weights (Cs, outputs, columns)."""
        rotated = self.basis.rotated
        chosen = rotated[torch.from_numpy(rows).to(rotated.device)]
        flat = weights.flatten(0, 1).to(rotated)
        return (chosen @ flat.T).reshape(len(rows), *weights.shape[:2]).transpose(0, 1).cpu().numpy()

    def path(self, weights: Tensor, gap: Tensor, n_iter: Tensor) -> LogisticPath:
        """Turn the solutions on all rows into coefficients on the features, with float64 objectives."""
        coef, intercept = self.basis.to_features(weights.to(self.targets.device))
        objective = self._objective(coef, intercept)
        converged = gap <= self.tol
        _warn_unconverged(self.Cs, converged, gap, n_iter, self.tol)
        return LogisticPath(
            self.Cs, self.task, coef.cpu().numpy(), intercept.cpu().numpy(), converged.numpy(), n_iter.numpy(),
            objective.cpu().numpy(), gap.numpy(),
        )  # fmt: skip

    def _objective(self, coef: Tensor, intercept: Tensor) -> Tensor:
        """Return scikit-learn's objective (Cs,); with scaling, the penalty is on the scaled features' coefficients."""
        groups = self.groups(torch.ones_like(self.targets[:, :1], dtype=torch.bool))
        weights = torch.stack([groups.weights(label) for label in range(groups.count)], dim=1)
        loss = data_loss(self.X, coef, intercept, self.targets, weights, softmax=groups.softmax)
        penalty = 0.5 * (coef * self.basis.scale).square().sum((1, 2))
        return torch.from_numpy(self.Cs).to(loss.device) * loss + penalty


def torch_device(name: str) -> torch.device:
    """Return the device of that name; "auto" is the first GPU with float64, else the CPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)


def _warn_unconverged(Cs: np.ndarray, converged: Tensor, gap: Tensor, n_iter: Tensor, tol: float) -> None:
    late = [i for i in range(len(Cs)) if not converged[i]]
    if not late:
        return
    from sklearn.exceptions import ConvergenceWarning

    numbers = ", ".join(f"C={Cs[i]:.4g}: gap {gap[i]:.1e} after {n_iter[i]} iterations" for i in late[:5])
    warnings.warn(
        f"{len(late)} of {len(Cs)} fits stopped above the relative objective gap {tol:g} ({numbers}). "
        "Raise max_iter or tol, or scale the features.",
        ConvergenceWarning, stacklevel=4,
    )  # fmt: skip
