"""The problems of one call, every draw's groups at every C, solved in batches that fit in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from mt.probe.solver.basis import Basis
from mt.probe.solver.continuation import Paths
from mt.probe.solver.fits import Groups, class_mass
from mt.probe.solver.history import HISTORY
from mt.probe.solver.lbfgs import Fit
from mt.probe.solver.losses import Loss, Sigmoid, Softmax
from mt.probe.solver.rounds import Problems, begin, finish

# Bytes that the problems solved at once may take, at least.
MEMORY = 512 << 20
# Draws are solved together whose problems take at most so many bytes in all: with more, memory takes the time, and the
# operations that they could share none.
SHARED = 16 << 20
# And whose problems have fewer coefficients: the sums of a single larger one are shared among threads, and rounded so.
LONG = 1 << 14
# Live copies of a batch's logits and of its weights during one iteration, for the memory budget.
LOGIT_COPIES = 8
WEIGHT_COPIES = 2 * HISTORY + 8
# A wave of C, started from those before, is about so many outputs wide, since products with fewer take as long.
WIDE = 72
# As wide as this many products a row and column, so that a small design's operations are not too short.
SMALL = 30_000_000


@dataclass(frozen=True)
class Grid:
    """Fits of one draw: every group at every C, in the draw's basis, from where its paths point to.

    ``memory`` is the bytes that problems solved at once may take: None for MEMORY, or a quarter of the design if that
    is more.
    """

    basis: Basis
    groups: Groups
    Cs: np.ndarray
    paths: Paths
    tol: float
    max_iter: int
    memory: int | None


def solve(grids: Sequence[Grid]) -> list[Fit]:
    """Solve the grids, of bases of their own; as many problems at once as memory allows.

    Returns each grid's weights (groups, Cs, outputs, columns) float64, gaps and iterations (groups, Cs), on the CPU.
    A label with one class in its rows is not fitted: it predicts its smoothed base rate.  A class without rows gets
    intercept -inf.
    """
    solving = [_Solving(grid) for grid in grids]
    for some in _together(solving):
        for step in zip(*(one.steps for one in some), strict=True):
            problems, starts = zip(*(one.problems(at) for one, at in zip(some, step, strict=True)), strict=True)
            fits = begin(problems, starts, tol=some[0].grid.tol, max_iter=some[0].grid.max_iter)
            for one, at, fit in zip(some, step, fits, strict=True):
                one.add(at, fit)
        for one in some:
            one.finish()
    return [one.fits for one in solving]


def _together(solving: Sequence[_Solving]) -> Iterator[list[_Solving]]:
    """Yield the grids in groups that take the same steps and are small enough together."""
    by_shape: dict[tuple[object, ...], list[_Solving]] = {}
    for one in solving:
        by_shape.setdefault(one.shape, []).append(one)
    for alike in by_shape.values():
        some: list[_Solving] = []
        for one in alike:
            if some and sum(other.bytes for other in (*some, one)) > one.shared:
                yield some
                some = []
            some.append(one)
        yield some


class _Solving:
    """A grid's fits on their way.

    ``steps`` are the group and C numbers (2, problems) to begin at once.  They go along waves of C, small ones first,
    each started where the paths then point to; the problems that are left of all waves are then taken on together, in
    a basis that is then rotated.
    """

    def __init__(self, grid: Grid) -> None:
        self.grid, groups, design = grid, grid.groups, grid.basis.design
        self.memory = grid.memory or max(MEMORY, design.nbytes // 4)
        rows, columns = design.shape
        shape = groups.count, len(grid.Cs)
        self.fits = Fit(
            torch.zeros(*shape, groups.outputs, columns, dtype=torch.float64),
            torch.zeros(shape, dtype=torch.float64), torch.zeros(shape, dtype=torch.int64),
        )  # fmt: skip
        self.counts = torch.stack([groups.counts(g) for g in range(groups.count)]).cpu()
        constant = torch.zeros(groups.count, dtype=torch.bool) if groups.softmax else (self.counts == 0).any(1)
        self.fits.weights[constant, :, :, -1] = _base_rate(self.counts[constant])
        fitted = torch.nonzero(~constant)[:, 0]
        a_problem = groups.outputs * (LOGIT_COPIES * rows + WEIGHT_COPIES * columns) * design.element_size()
        self.at_once = max(1, self.memory // a_problem)
        wide = max(WIDE, SMALL // (rows * columns))
        waves = max(1, len(grid.Cs) // -(-wide // max(1, len(fitted) * groups.outputs)))
        self.steps: list[Tensor] = []
        for wave in np.array_split(np.argsort(grid.Cs, kind="stable"), waves):
            every = torch.stack([fitted.repeat(len(wave)), torch.from_numpy(wave).repeat_interleave(len(fitted))])
            self.steps += _parts(every, self.at_once)
        self.bytes = a_problem * max((at.shape[1] for at in self.steps), default=0)
        self.shared = min(SHARED, self.memory) if groups.outputs * columns < LONG else 0
        self.shape = groups.outputs, columns, len(self.steps), grid.tol, grid.max_iter, design.dtype, design.device

    def problems(self, at: Tensor) -> tuple[Problems, Tensor]:
        """Return the problems of a step, and where they start."""
        group, penalties = at[0], self.grid.Cs[at[1].numpy()]
        problems, base_rates = _problems(self.grid.basis, self.grid.groups, group, penalties)
        return problems, self.grid.paths.towards(group.tolist(), penalties, base_rates)

    def add(self, at: Tensor, fit: Fit) -> None:
        """Take a step's fits in."""
        self.grid.paths.add(at[0].tolist(), self.grid.Cs[at[1].numpy()], fit.weights)
        self._put(at, fit)

    def finish(self) -> None:
        """Take what is left to the tolerance."""
        fits, grid = self.fits, self.grid
        late = torch.nonzero(~(fits.gap <= grid.tol) & (fits.n_iter < grid.max_iter)).T
        turn = grid.basis.rotate() if late.shape[1] else None
        if turn is not None:
            fits = self.fits = replace(fits, weights=fits.weights @ turn.cpu())
        for at in _parts(late, self.at_once):
            group, c = at
            problems, _ = _problems(grid.basis, grid.groups, group, grid.Cs[c.numpy()])
            device = problems.design.device
            fit = Fit(fits.weights[group, c].to(device), fits.gap[group, c].to(device), fits.n_iter[group, c])
            finish(problems, fit, tol=grid.tol, max_iter=grid.max_iter, memory=self.memory)
            self._put(at, fit)
        if grid.groups.softmax:
            fits.weights[..., -1] += torch.where(self.counts > 0, 0.0, -torch.inf)[:, None]

    def _put(self, at: Tensor, fit: Fit) -> None:
        group, c = at
        self.fits.weights[group, c], self.fits.gap[group, c] = fit.weights.cpu(), fit.gap.cpu()
        self.fits.n_iter[group, c] = fit.n_iter


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
