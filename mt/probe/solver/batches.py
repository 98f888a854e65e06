"""The problems of one call, every draw's fits at every C, solved in batches that fit in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from mt.probe.solver.basis import Basis
from mt.probe.solver.fits import FitSet, class_mass
from mt.probe.solver.history import HISTORY
from mt.probe.solver.lbfgs import Minima
from mt.probe.solver.losses import Loss, Sigmoid, Softmax
from mt.probe.solver.paths import Continuation
from mt.probe.solver.rounds import PenalisedProblems, begin, finish

# Bytes that the problems solved at once may take, at least.
MEMORY = 512 << 20
# Solve draws together only if their problems fit in 16 MiB: above that, memory traffic dominates.
SHARED = 16 << 20
# And only if a problem has fewer coefficients: torch adds up those of a larger one on several threads, which rounds
# differently.
LONG = 1 << 14
# Live copies of a batch's logits and of its weights during one iteration, for the memory budget.
LOGIT_COPIES = 8
WEIGHT_COPIES = 2 * HISTORY + 8
# A wave of C starts from the solutions of the waves before it. It has about this many outputs: products with fewer take
# as long.
WIDE = 72
# In a small design a wave has more outputs: this many per entry of the design, so that its operations are long enough.
SMALL = 30_000_000


@dataclass(frozen=True)
class PenaltyGrid:
    """The fits of one draw, each at every C, in the draw's basis; ``continuation`` says where a fit's path starts.

    ``memory`` is how many bytes the problems solved at once may take; None for the larger of MEMORY and a quarter of
    the design.
    """

    basis: Basis
    fits: FitSet
    Cs: np.ndarray
    continuation: Continuation
    tol: float
    max_iter: int
    memory: int | None


def solve(grids: Sequence[PenaltyGrid]) -> list[Minima]:
    """Solve the grids, as many problems at once as memory allows.  No two grids have the same basis.

    Returns each grid's weights (fits, Cs, outputs, columns) float64, gaps and iterations (fits, Cs), on the CPU.
    A label with one class in its rows is not fitted: it predicts its smoothed base rate.  A class without rows gets
    intercept -inf.
    """
    solving = [_Solving(grid) for grid in grids]
    for some in _together(solving):
        for step in zip(*(one.steps for one in some), strict=True):
            problems, starts = zip(*(one.problems(at) for one, at in zip(some, step, strict=True)), strict=True)
            found = begin(problems, starts, tol=some[0].grid.tol, max_iter=some[0].grid.max_iter)
            for one, at, minima in zip(some, step, found, strict=True):
                one.add(at, minima)
        for one in some:
            one.finish()
    return [one.found for one in solving]


def _together(solving: Sequence[_Solving]) -> Iterator[list[_Solving]]:
    """Yield lists of grids that take the same steps and are small enough to be solved together."""
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
    """The state of solving one grid: ``found`` holds the solutions so far.

    A problem is a fit number with a C number.  ``steps`` are the problems (2, problems) to begin at once: waves of C,
    small ones first, each started where the paths then point to.  What has not converged after all waves is finished
    together, in the rotated basis.
    """

    def __init__(self, grid: PenaltyGrid) -> None:
        self.grid, fits, design = grid, grid.fits, grid.basis.design
        self.memory = grid.memory or max(MEMORY, design.nbytes // 4)
        rows, columns = design.shape
        shape = fits.count, len(grid.Cs)
        self.found = Minima(
            torch.zeros(*shape, fits.outputs, columns, dtype=torch.float64),
            torch.zeros(shape, dtype=torch.float64), torch.zeros(shape, dtype=torch.int64),
        )  # fmt: skip
        self.counts = torch.stack([fits.counts(i) for i in range(fits.count)]).cpu()
        constant = torch.zeros(fits.count, dtype=torch.bool) if fits.softmax else (self.counts == 0).any(1)
        self.found.weights[constant, :, :, -1] = _base_rate(self.counts[constant])
        fitted = torch.nonzero(~constant)[:, 0]
        a_problem = fits.outputs * (LOGIT_COPIES * rows + WEIGHT_COPIES * columns) * design.element_size()
        self.at_once = max(1, self.memory // a_problem)
        wide = max(WIDE, SMALL // (rows * columns))
        waves = max(1, len(grid.Cs) // -(-wide // max(1, len(fitted) * fits.outputs)))
        self.steps: list[Tensor] = []
        for wave in np.array_split(np.argsort(grid.Cs, kind="stable"), waves):
            every = torch.stack([fitted.repeat(len(wave)), torch.from_numpy(wave).repeat_interleave(len(fitted))])
            self.steps += _parts(every, self.at_once)
        self.bytes = a_problem * max((at.shape[1] for at in self.steps), default=0)
        self.shared = min(SHARED, self.memory) if fits.outputs * columns < LONG else 0
        self.shape = fits.outputs, columns, len(self.steps), grid.tol, grid.max_iter, design.dtype, design.device

    def problems(self, at: Tensor) -> tuple[PenalisedProblems, Tensor]:
        """Return the problems of a step, and where they start."""
        number, penalties = at[0], self.grid.Cs[at[1].numpy()]
        problems, base_rates = _problems(self.grid.basis, self.grid.fits, number, penalties)
        return problems, self.grid.continuation.towards(number.tolist(), penalties, base_rates)

    def add(self, at: Tensor, minima: Minima) -> None:
        """Keep what was found in a step."""
        self.grid.continuation.add(at[0].tolist(), self.grid.Cs[at[1].numpy()], minima.weights)
        self._keep(at, minima)

    def finish(self) -> None:
        """Solve what has not converged to the tolerance."""
        found, grid = self.found, self.grid
        late = torch.nonzero(~(found.gap <= grid.tol) & (found.n_iter < grid.max_iter)).T
        turn = grid.basis.rotate() if late.shape[1] else None
        if turn is not None:
            found = self.found = replace(found, weights=found.weights @ turn.cpu())
        for at in _parts(late, self.at_once):
            number, c = at
            problems, _ = _problems(grid.basis, grid.fits, number, grid.Cs[c.numpy()])
            device = problems.design.device
            here = found.weights[number, c].to(device), found.gap[number, c].to(device), found.n_iter[number, c]
            minima = Minima(*here)
            finish(problems, minima, tol=grid.tol, max_iter=grid.max_iter, memory=self.memory)
            self._keep(at, minima)
        if grid.fits.softmax:
            found.weights[..., -1] += torch.where(self.counts > 0, 0.0, -torch.inf)[:, None]

    def _keep(self, at: Tensor, minima: Minima) -> None:
        number, c = at
        self.found.weights[number, c], self.found.gap[number, c] = minima.weights.cpu(), minima.gap.cpu()
        self.found.n_iter[number, c] = minima.n_iter


def _parts(at: Tensor, size: int) -> tuple[Tensor, ...]:
    """Return problems (2, problems) in parts of at most ``size``."""
    return tuple(at[:, first : first + size] for first in range(0, at.shape[1], size))


def _base_rate(counts: Tensor) -> Tensor:
    """Return the constant predictors' intercepts, from the rates (count + 1) / (rows + 2), (labels, 1, 1).

    ``counts`` (labels, 2).
    """
    smoothed = counts.double() + 1
    return (smoothed[:, 1] / smoothed[:, 0]).log()[:, None, None]


def _problems(basis: Basis, fits: FitSet, number: Tensor, Cs: np.ndarray) -> tuple[PenalisedProblems, Tensor]:
    """Return the problems of the fits of these numbers, each at its C, and weights that predict the base rates."""
    distinct, position = torch.unique(number, return_inverse=True)
    weights = torch.stack([fits.weights(int(i)) for i in distinct], dim=1)
    totals = weights.sum(0)
    rates = _base_rates(fits, distinct, weights, totals)
    device, columns = weights.device, len(basis.eigenvalues)
    position = position.to(device)
    penalty = (1 / (torch.from_numpy(Cs).to(device) * totals[position]))[:, None].repeat(1, columns)
    penalty[:, -1] = 0
    curvature = (rates * (1 - rates))[position][..., None] * basis.eigenvalues + penalty[:, None, :]
    start = torch.zeros_like(curvature)
    start[..., -1] = (rates.log() - ((1 - rates).log() if not fits.softmax else 0))[position]
    loss = _losses(fits, distinct, (weights / totals).to(basis.design.dtype), position)
    return PenalisedProblems(basis, loss, penalty, curvature, number, Cs), start


def _base_rates(fits: FitSet, distinct: Tensor, weights: Tensor, totals: Tensor) -> Tensor:
    """Return the weighted rate of each output (fits, outputs); a class that is absent gets the rate ½."""
    rates = torch.empty(len(distinct), fits.outputs, dtype=torch.float64, device=weights.device)
    for k, i in enumerate(distinct.tolist()):
        mass = class_mass(fits.classes(i), weights[:, k], max(2, fits.outputs)) / totals[k]
        rates[k] = mass if fits.softmax else mass[1:]
    return torch.where(rates > 0, rates, 0.5)


def _losses(fits: FitSet, distinct: Tensor, weights: Tensor, position: Tensor) -> Loss:
    """Return the losses of problems of the fits ``distinct[position]``; weights (rows, distinct fits) sum to one."""
    if fits.softmax:
        counts = torch.stack([fits.counts(int(i)) for i in distinct])
        absent = torch.where(counts > 0, 0.0, -torch.inf).to(weights.dtype)
        return Softmax(fits.targets[:, 0], weights[:, position], absent[position])
    classes = torch.stack([fits.classes(int(i)) for i in distinct], dim=1)
    return Sigmoid((2 * classes - 1).to(weights.dtype)[:, position, None], weights[:, position, None])
