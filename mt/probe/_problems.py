"""The problems of one call, every group at every C, solved in batches that fit in memory."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from mt.probe._basis import Basis
from mt.probe._continuation import Paths
from mt.probe._groups import Groups, class_mass
from mt.probe._history import HISTORY
from mt.probe._lbfgs import Fit
from mt.probe._losses import Loss, Sigmoid, Softmax
from mt.probe._robust import Problems, begin, finish

# Live copies of a batch's logits and of its weights during one iteration, for the memory budget.
LOGIT_COPIES = 8
WEIGHT_COPIES = 2 * HISTORY + 8
# A wave of C, started from those before, is about so many outputs wide, since products with fewer take as long.
WIDE = 72
# As wide as this many products a row and column, so that a small design's operations are not too short.
SMALL = 30_000_000


def solve(
    basis: Basis, groups: Groups, Cs: np.ndarray, paths: Paths, *, tol: float, max_iter: int, memory: int
) -> Fit:
    """Solve every group at every C, as many problems at once as ``memory`` bytes allow.

    Returns weights (groups, Cs, outputs, columns) float64, gaps and iterations (groups, Cs), on the CPU.  Waves of C,
    small ones first, start where ``paths`` point to, and their solutions are added there; the problems that are left
    of all waves are then taken on together, in a basis that is then rotated.  A label with one class in its rows is not
    fitted: it predicts its smoothed base rate.  A class without rows gets intercept -inf.
    """
    shape, (rows, columns) = (groups.count, len(Cs)), basis.design.shape
    fits = Fit(
        torch.zeros(*shape, groups.outputs, columns, dtype=torch.float64),
        torch.zeros(shape, dtype=torch.float64), torch.zeros(shape, dtype=torch.int64),
    )  # fmt: skip
    counts = torch.stack([groups.counts(g) for g in range(groups.count)]).cpu()
    constant = torch.zeros(groups.count, dtype=torch.bool) if groups.softmax else (counts == 0).any(1)
    fits.weights[constant, :, :, -1] = _base_rate(counts[constant])
    fitted = torch.nonzero(~constant)[:, 0]
    a_problem = groups.outputs * (LOGIT_COPIES * rows + WEIGHT_COPIES * columns) * basis.design.element_size()
    at_once = max(1, memory // a_problem)
    wide = max(WIDE, SMALL // (rows * columns))
    waves = max(1, len(Cs) // -(-wide // max(1, len(fitted) * groups.outputs)))
    for wave in np.array_split(np.argsort(Cs, kind="stable"), waves):
        every = torch.stack([fitted.repeat(len(wave)), torch.from_numpy(wave).repeat_interleave(len(fitted))])
        for at in _parts(every, at_once):
            penalties = Cs[at[1].numpy()]
            problems, base_rates = _problems(basis, groups, at[0], penalties)
            start = paths.towards(at[0].tolist(), penalties, base_rates)
            fit = begin(problems, start, tol=tol, max_iter=max_iter)
            paths.add(at[0].tolist(), penalties, fit.weights)
            _put(fits, at, fit)
    late = torch.nonzero(~(fits.gap <= tol) & (fits.n_iter < max_iter)).T
    turn = basis.rotate() if late.shape[1] else None
    if turn is not None:
        fits = replace(fits, weights=fits.weights @ turn.cpu())
    for at in _parts(late, at_once):
        problems, _ = _problems(basis, groups, at[0], Cs[at[1].numpy()])
        group, c = at
        device = problems.design.device
        fit = Fit(fits.weights[group, c].to(device), fits.gap[group, c].to(device), fits.n_iter[group, c])
        finish(problems, fit, tol=tol, max_iter=max_iter, memory=memory)
        _put(fits, at, fit)
    if groups.softmax:
        fits.weights[..., -1] += torch.where(counts > 0, 0.0, -torch.inf)[:, None]
    return fits


def _put(fits: Fit, at: Tensor, fit: Fit) -> None:
    """Write problems' fits to their group and C numbers (2, problems)."""
    group, c = at
    fits.weights[group, c], fits.gap[group, c], fits.n_iter[group, c] = fit.weights.cpu(), fit.gap.cpu(), fit.n_iter


def _parts(at: Tensor, size: int) -> tuple[Tensor, ...]:
    """Return group and C numbers (2, problems) in parts of at most so many problems."""
    return tuple(at[:, first : first + size] for first in range(0, at.shape[1], size))


def _base_rate(counts: Tensor) -> Tensor:
    """Return the constant predictors' intercepts, from the rates (count + 1) / (rows + 2), (labels, 1, 1).

    ``counts`` (labels, 2).
    """
    smoothed = counts.double() + 1
    return (smoothed[:, 1] / smoothed[:, 0]).log()[:, None, None]


def _problems(basis: Basis, groups: Groups, group: Tensor, Cs: np.ndarray) -> tuple[Problems, Tensor]:
    """Return one problem a group number in ``group`` at its C, and weights that predict the base rates."""
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
    loss = _losses(groups, distinct, (weights / totals).to(basis.design.dtype), position)
    return Problems(basis, loss, penalty, curvature, group, Cs), start


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
