"""A checked request on its device: its fits, one for every fold and label, their losses, and their paths along C.

A path is what a fit along C returns, whichever solver found it.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from mt.probe.solver.basis import Basis, row_chunks
from mt.probe.solver.request import (
    LogisticRequest,
    Rows,
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
    """A request after all checks.  ``targets`` (rows, labels) are on ``device``; ``outputs`` is that of LogisticPath.

    A label that is MISSING is 0 in ``targets`` and False in ``known`` (rows, labels), and has no weight in its label's
    fits.  ``known`` is None if every label is known.
    """

    X: Rows
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
            features,
            torch.from_numpy(np.where(known, targets, 0)).to(device),
            None if known.all() else torch.from_numpy(known).to(device),
            outputs,
            request.task,
            check_penalties(request.Cs),
            torch.from_numpy(rows_weight).to(device),
            torch.from_numpy(balance).to(device) if isinstance(balance, np.ndarray) else balance,
            request.tol,
            request.max_iter,
            device,
        )

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
        """Return the members (rows, folds) of the fits that omit one fold each."""
        return torch.from_numpy(fold[:, None] != np.arange(fold.max() + 1)).to(self.device)

    def path(
        self,
        coef: Tensor,
        intercept: Tensor,
        *,
        gap: np.ndarray,
        n_iter: np.ndarray,
        converged: np.ndarray,
    ) -> LogisticPath:
        """Return the path with float64 objectives.  Warns ConvergenceWarning, with the numbers, of unconverged fits."""
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
            self.Cs,
            self.task,
            coef.cpu().numpy(),
            intercept.cpu().numpy(),
            converged,
            n_iter,
            objective.cpu().numpy(),
            gap,
        )

    def _warn(self, converged: np.ndarray, gap: np.ndarray, n_iter: np.ndarray) -> None:
        late = np.flatnonzero(~converged)
        if len(late) == 0:
            return
        from sklearn.exceptions import ConvergenceWarning

        numbers = ", ".join(f"C={self.Cs[i]:.4g}: gap {gap[i]:.1e} after {n_iter[i]} iterations" for i in late[:5])
        warnings.warn(
            f"{len(late)} of {len(self.Cs)} fits stopped before the relative objective gap {self.tol:g} ({numbers}). "
            "Raise max_iter or tol, or scale the features.",
            ConvergenceWarning,
            stacklevel=5,
        )


@dataclass(frozen=True)
class FitSet:
    """Fits that differ in their rows or their label; each is solved at every C.

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
        """Return the number of rows of positive weight of each class in fit i, (classes,)."""
        classes = self.classes(i)[self.weights(i) > 0]
        return torch.bincount(classes, minlength=self.outputs if self.softmax else 2)

    def used(self, i: int) -> Tensor:
        """Return the sample weights of the rows of fit i (rows,), float64; 0 for all others."""
        labels = self.targets.shape[1]
        used = self.members[:, i // labels]
        if self.known is not None:
            used = used & self.known[:, i % labels]
        return torch.where(used, self.sample_weight, 0)

    def weights(self, i: int) -> Tensor:
        """Return each row's weight in fit i (rows,), float64, not normalised."""
        balance = self.balance(i)
        return self.used(i) if balance is None else self.used(i) * balance[self.classes(i)]

    def balance(self, i: int) -> Tensor | None:
        """Return the factor of each class's rows in fit i, (classes,); None without class weights."""
        if self.class_weight != "balanced":
            return self.class_weight if isinstance(self.class_weight, Tensor) else None
        # scikit-learn: n / (classes present · rows of the class), rows counted by their sample weight.
        classes, weight = self.classes(i), self.used(i)
        total = class_mass(classes, weight, int(classes.max()) + 1)
        present = (total > 0).sum()
        return torch.where(total > 0, weight.sum() / (present * total), 0)


def class_mass(classes: Tensor, weights: Tensor, n_classes: int) -> Tensor:
    """Return the sum of weights of each class; on the CPU, since CUDA adds in no fixed order."""
    return torch.bincount(classes.cpu(), weights=weights.cpu(), minlength=n_classes).to(weights.device)


# Losses of many problems at once, as functions of their logits (rows, problems, outputs) ------------------------------

# Odds below e to this power count as zero: products with them become subnormal numbers in single precision, which take
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
    features: Rows, coef: Tensor, intercept: Tensor, targets: Tensor, weights: Tensor, *, softmax: bool
) -> Tensor:
    """Return ``Σ weight · loss`` (Cs,) for coefficients (Cs, outputs, dim) and intercepts (Cs, outputs).

    Reported objectives use it: it is float64, takes the features as given, and does not depend on the solver's basis.
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


# Paths: solutions along C, and where the next fits start --------------------------------------------------------------

PREDICT_ROWS = 8192


@dataclass(frozen=True)
class LogisticPath:
    """Solutions at each C.  ``coef`` (Cs, outputs, dim) and ``intercept`` (Cs, outputs) are float64.

    There is one output for binary, else one per class or label.  A class without rows has intercept -inf: its
    probability is 0.  ``converged`` (Cs,) says whether all labels converged; ``n_iter`` (Cs,) is the largest of the
    labels.  ``objective`` (Cs,) is scikit-learn's, in float64; ``gap`` (Cs,) is the estimated relative distance to its
    minimum, NaN if the solver does not report it.
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
        """Return the float64 logits (rows, outputs) of features X (rows, dim) at the C with this number."""
        logits = np.empty((len(X), self.coef.shape[1]))
        for start in range(0, len(X), PREDICT_ROWS):
            rows = slice(start, start + PREDICT_ROWS)
            logits[rows] = np.asarray(X[rows], dtype=np.float64) @ self.coef[c_index].T + self.intercept[c_index]
        return logits

    def predict_proba(self, X: np.ndarray, c_index: int) -> np.ndarray:
        """Return P(class 1) (rows,) for binary, else probabilities (rows, outputs), at the C with this number."""
        return probabilities(self.decision_function(X, c_index), self.task)


@dataclass(frozen=True)
class FoldedPath:
    """Out-of-fold logits ``oof`` (Cs, rows, outputs), float32; ``fold_converged`` is (folds, Cs).

    ``start`` is where a refit on all rows starts; None for a solver that starts from zero.
    """

    oof: np.ndarray
    fold_converged: np.ndarray
    start: RefitStart | None = None


@dataclass(frozen=True)
class RefitStart:
    """The folds' mean solutions: coef (Cs, outputs, dim) and intercept (Cs, outputs) on the features, and their basis.

    They are on the features since a refit may rotate the basis.
    """

    basis: Basis
    Cs: np.ndarray
    coef: Tensor
    intercept: Tensor

    def at(self, C: float) -> Tensor:
        """Return the weights in the basis (outputs, columns) of the solution whose C is nearest."""
        nearest = int(np.abs(np.log(self.Cs / C)).argmin())
        return self.basis.to_weights(self.coef[nearest], self.intercept[nearest])


class Continuation:
    """The latest two solutions of each path along C, from which its next fit starts."""

    def __init__(self) -> None:
        self.latest: dict[int, list[tuple[float, Tensor]]] = {}

    def add(self, paths: list[int], Cs: np.ndarray, weights: Tensor) -> None:
        """Remember solutions (problems, outputs, columns) of these paths at these C."""
        finite = torch.nan_to_num(weights, neginf=0.0)  # the intercept of a class without rows
        for path, C, solution in zip(paths, np.broadcast_to(Cs, len(paths)), finite, strict=True):
            self.latest[path] = [*self.latest.get(path, []), (float(np.log(C)), solution)][-2:]

    def towards(self, paths: list[int], Cs: np.ndarray, otherwise: Tensor) -> Tensor:
        """Return starts at these C: each path's latest two solutions extrapolated in log C, at most one step ahead.

        ``otherwise`` holds the starts (problems, outputs, columns) of paths without solutions.  In a test with ten
        labels, some of them separable, this took a third fewer iterations than starting at the latest solutions.
        """
        start = otherwise.clone()
        for problem, (path, C) in enumerate(zip(paths, Cs, strict=True)):
            if path in self.latest:
                (before, first), (now, last) = self.latest[path][0], self.latest[path][-1]
                ahead = (np.log(C) - now) / (now - before) if now > before else 0.0
                start[problem] = last + min(ahead, 1.0) * (last - first)
        return start


def probabilities(logits: np.ndarray, task: str) -> np.ndarray:
    """Turn logits (rows, outputs) into probabilities: (rows,) for binary, else (rows, outputs)."""
    from scipy.special import expit, softmax

    if task == "binary":
        return np.asarray(expit(logits[:, 0]))
    return np.asarray(expit(logits) if task == "multilabel" else softmax(logits, axis=1))
