"""The problems of one call, every group at every C, solved in batches that fit in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mt.probe._basis import Basis
from mt.probe._groups import Groups, class_mass
from mt.probe._history import HISTORY
from mt.probe._lbfgs import Fit
from mt.probe._losses import Loss, Sigmoid, Softmax
from mt.probe._robust import minimise_robustly

# Live copies of a batch's logits and of its weights during one iteration, for the memory budget.
LOGIT_COPIES = 6
WEIGHT_COPIES = 2 * HISTORY + 8
# A wave of C, started from those before, is at least so many outputs wide, since products with fewer take as long.
WIDE = 72


@dataclass(frozen=True)
class Solution:
    """Some problems' solutions: group and C numbers (problems,), weights (problems, outputs, columns) float64."""

    group: Tensor
    c_index: Tensor
    weights: Tensor
    gap: Tensor
    n_iter: Tensor


def solve(
    basis: Basis, groups: Groups, Cs: np.ndarray, paths: Paths, *, tol: float, max_iter: int, memory: int
) -> Iterator[Solution]:
    """Solve every group at every C in waves, as many problems at once as ``memory`` bytes allow, small C first.

    A batch starts where ``paths`` point to, and its solutions are added there.  A label with one class in its rows is
    not fitted: it predicts its smoothed base rate.  A class without rows gets intercept -inf.
    """
    counts = torch.stack([groups.counts(g) for g in range(groups.count)]).cpu()
    constant = torch.zeros(groups.count, dtype=torch.bool) if groups.softmax else (counts == 0).any(1)
    for g in torch.nonzero(constant)[:, 0].tolist():
        yield _base_rate(g, counts[g], len(Cs), len(basis.eigenvalues))
    fitted = torch.nonzero(~constant)[:, 0]
    c_index = torch.from_numpy(np.argsort(Cs, kind="stable")).repeat_interleave(len(fitted))
    group = fitted.repeat(len(Cs))
    rows, columns = basis.rotated.shape
    a_problem = groups.outputs * (LOGIT_COPIES * rows + WEIGHT_COPIES * columns) * basis.rotated.element_size()
    together = len(fitted) * max(1, -(-WIDE // (len(fitted) * groups.outputs))) if len(fitted) else 1
    size = max(1, min(memory // a_problem, together))
    for first in range(0, len(group), size):
        part, at = group[first : first + size], c_index[first : first + size]
        penalties = Cs[at.numpy()]
        fit = _solve_batch(basis, groups, part, penalties, paths, tol=tol, max_iter=max_iter, memory=memory)
        paths.add(part.tolist(), penalties, fit.weights)
        if groups.softmax:
            fit.weights[..., -1] += torch.where(counts[part] > 0, 0, -torch.inf).to(fit.weights)
        yield Solution(part, at, fit.weights, fit.gap, fit.n_iter)


class Paths:
    """Each group's latest two solutions along C, from which the next ones start."""

    def __init__(self) -> None:
        self.latest: dict[int, list[tuple[float, Tensor]]] = {}

    def add(self, group: list[int], Cs: np.ndarray, weights: Tensor) -> None:
        """Remember solutions (problems, outputs, columns) of these groups at these C."""
        finite = torch.nan_to_num(weights, neginf=0.0)  # the intercept of a class without rows
        for g, C, solution in zip(group, np.broadcast_to(Cs, len(group)), finite, strict=True):
            self.latest[g] = [*self.latest.get(g, []), (float(np.log(C)), solution)][-2:]

    def towards(self, group: int, C: float) -> Tensor | None:
        """Return the group's solution where the path, taken on straight in log C, reaches C; at most one step on.

        Ten labels of which some separate take a third fewer iterations from there than from the latest solution.
        """
        known = self.latest.get(group)
        if known is None:
            return None
        (before, first), (now, last) = known[0], known[-1]
        ahead = (np.log(C) - now) / (now - before) if now > before else 0.0
        return last + min(ahead, 1.0) * (last - first)


def _base_rate(group: int, counts: Tensor, n_penalties: int, columns: int) -> Solution:
    """Return the constant predictor (count + 1) / (rows + 2) for a label of one class, at every C."""
    weights = torch.zeros(n_penalties, 1, columns, dtype=torch.float64)
    absent, present = counts.double()
    weights[..., -1] = torch.log((present + 1) / (absent + 1))
    none = torch.zeros(n_penalties, dtype=torch.int64)
    return Solution(torch.full_like(none, group), torch.arange(n_penalties), weights, none.double(), none)


def _solve_batch(
    basis: Basis, groups: Groups, group: Tensor, Cs: np.ndarray, paths: Paths,
    *, tol: float, max_iter: int, memory: int,
) -> Fit:  # fmt: skip
    """Solve one C a group number in ``group`` together, from base rates or from where the group's path points to."""
    distinct, position = torch.unique(group, return_inverse=True)
    weights = torch.stack([groups.weights(int(g)) for g in distinct], dim=1)
    totals = weights.sum(0)
    rates = _base_rates(groups, distinct, weights, totals)
    device, columns = weights.device, len(basis.eigenvalues)
    position = position.to(device)
    penalty = (1 / (torch.from_numpy(Cs).to(device) * totals[position]))[:, None].repeat(1, columns)
    penalty[:, -1] = 0
    curvature = (rates * (1 - rates))[position][..., None] * basis.eigenvalues + penalty[:, None, :]
    start = torch.zeros_like(curvature)
    start[..., -1] = (rates.log() - ((1 - rates).log() if not groups.softmax else 0))[position]
    for i, (g, C) in enumerate(zip(group.tolist(), Cs, strict=True)):
        known = paths.towards(g, C)
        if known is not None:
            start[i] = known
    loss = _losses(groups, distinct, (weights / totals).to(basis.rotated.dtype), position)
    return minimise_robustly(
        basis.rotated, loss, penalty, curvature, start, tol=tol, max_iter=max_iter, memory=memory
    )  # fmt: skip


def _base_rates(groups: Groups, distinct: Tensor, weights: Tensor, totals: Tensor) -> Tensor:
    """Return the weighted rate of each output (groups, outputs); a class that is absent gets the rate ½."""
    rates = torch.empty(len(distinct), groups.outputs, dtype=torch.float64, device=weights.device)
    for i, g in enumerate(distinct.tolist()):
        mass = class_mass(groups.classes(g), weights[:, i], max(2, groups.outputs)) / totals[i]
        rates[i] = mass if groups.softmax else mass[1:]
    return torch.where(rates > 0, rates, 0.5)


def _losses(groups: Groups, distinct: Tensor, weights: Tensor, position: Tensor) -> Loss:
    """Return the losses of problems whose groups are ``distinct[position]``; weights (rows, groups) sum to one."""
    if groups.softmax:
        counts = torch.stack([groups.counts(int(g)) for g in distinct])
        absent = torch.where(counts > 0, 0.0, -torch.inf).to(weights.dtype)
        return Softmax(groups.targets[:, 0], weights[:, position], absent[position])
    classes = torch.stack([groups.classes(int(g)) for g in distinct], dim=1)
    return Sigmoid((2 * classes - 1).to(weights.dtype)[:, position, None], weights[:, position, None])
