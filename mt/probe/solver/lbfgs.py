"""L-BFGS on many penalised linear problems at once: two products with a design per iteration for all problems together.

Problem p minimises  f_p(W) = loss_p(Z Wᵀ) + ½ δ_p ‖W‖²,  with W (outputs, columns of Z) and no penalty on the last
column, the intercept.  Variables are scaled so that the Hessian starts near the identity.  Logits are linear in the
weights, so a line search needs no product.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Protocol

import torch
from torch import Tensor

from mt.probe.solver.basis import Design, Preconditioner, stacked
from mt.probe.solver.fits import Loss

# Pairs of steps and changes of gradient that a problem remembers.
HISTORY = 12
LINE_STEPS = 12
# Half the Newton decrement of L-BFGS under-estimates the gap if its curvature is poor: multiply it by this.
DECREMENT_SAFETY = 10.0
# A problem that converges linearly still has to fall about as far as it fell in its last WINDOW iterations: multiply
# that by this.  The decrease over fewer iterations is not used.
WINDOW = 10
DECREASE_SAFETY = 2.0
# In its first QUICK iterations a problem continues to a fraction of the tolerance, which costs little there.  If the
# decrease over the last SHORT iterations is less than 1 / FAST of that over the SHORT before them, the sum of the
# geometric series estimates the remaining decrease.
QUICK = 30
SHORT, FAST = 3, 2.0
# A problem whose gap estimate has not halved for this many iterations has stalled.
PATIENCE = 40
# Problems that have ended stay in the batch, unchanged, until their share of it reaches this.
LEAVE = 0.125
# Logits processed at once, of all problems and some rows, so that intermediate results stay in a core's cache.
AT_ONCE = 2**18
# With fewer outputs the transposed product with the residual is faster: three times at 10 outputs, equal at 100.
THIN = 64
# Fewest rows of a block that some problems omit, since each block has its own products.
BLOCK_ROWS = 1024


@dataclass(frozen=True)
class ScaledProblems:
    """Problems on one design (rows, columns), and where they start.

    ``penalty`` (problems, columns) is δ, 0 for the intercept; ``start`` (problems, outputs, columns).
    """

    design: Design
    loss: Loss
    penalty: Tensor
    scaling: Preconditioner
    start: Tensor


@dataclass(frozen=True)
class Minima:
    """Where each problem ended: weights (problems, outputs, columns); relative gap and iterations (problems,)."""

    weights: Tensor
    gap: Tensor
    n_iter: Tensor


def minimise(batches: Sequence[ScaledProblems], *, tol: float, max_iter: int, sharp: float) -> list[Minima]:
    """Minimise every problem until its estimated relative objective gap is below ``tol``, or it stalls.

    In the first QUICK iterations the limit is ``sharp`` times ``tol``.  Ended problems are removed from the products.
    All batches have the same number of outputs and columns.  Each ends as it would alone: the batches share only
    operations that involve no design.
    """
    state = _State(batches)
    sizes = [len(batch.start) for batch in batches]
    device, problems = state.weights.device, sum(sizes)
    weights, n_iter = state.weights.clone(), torch.zeros(problems, dtype=torch.int64)
    gaps = state.weights.new_full((problems,), torch.inf)
    present = torch.arange(problems, device=device)
    batch = torch.arange(len(sizes), device=device).repeat_interleave(torch.tensor(sizes, device=device))
    running = torch.ones_like(present, dtype=torch.bool)
    for iteration in range(max_iter + 1):
        quick = iteration < QUICK
        direction, gap = state.direction_and_gap(quick=quick)
        enough = sharp * tol if quick else tol
        ended = running & ((gap <= enough) | state.stalled(gap) | (iteration == max_iter))
        if ended.any():
            at = present[ended]
            weights[at], gaps[at] = state.weights[ended], gap[ended]
            n_iter[at.cpu()] = iteration
            running &= ~ended
            if not running.any():
                break
            some, left = (torch.bincount(of, minlength=len(sizes)) for of in (batch, batch[running]))
            stays = running | (left > (1 - LEAVE) * some)[batch]
            if not stays.all():
                kept = torch.nonzero(stays)[:, 0]
                present, batch, running, direction = present[kept], batch[kept], running[kept], direction[kept]
                state.keep(kept)
        state.step(direction * running[:, None, None])
    each = zip(*(result.split_with_sizes(sizes) for result in (weights, gaps, n_iter)), strict=True)
    return [Minima(*fit) for fit in each]


def times(design: Tensor, weights: Tensor) -> Tensor:
    """Return the logits (rows, outputs) of weights (outputs, columns), without a product if only intercepts are set."""
    if not weights[:, :-1].any():
        return weights[:, -1].repeat(len(design), 1)
    return design @ weights.T


def logits_by_rows(design: Design, weights: Tensor, at_once: int) -> Iterator[tuple[slice, Tensor]]:
    """Yield consecutive rows and their logits (rows, outputs): at most ``at_once`` rows, or a chunk as it is read."""
    if not isinstance(design, Tensor):
        yield from design.logits(weights)
        return
    for first in range(0, len(design), at_once):
        rows = slice(first, first + at_once)
        yield rows, times(design[rows], weights)


class Block(Protocol):
    """Rows and the problems that use them, with the operations that an iteration needs."""

    problems: Tensor

    def differentiate(self, value: Tensor, gradient: Tensor) -> None: ...
    def aim(self, move: Tensor) -> None: ...
    def add_slope(self, slope: Tensor, length: Tensor) -> None: ...
    def go(self, length: Tensor) -> None: ...
    def keep(self, kept: Tensor, problems: int) -> bool: ...


def blocks_of(batch: ScaledProblems) -> Sequence[Block]:
    """Return the blocks of a batch's rows; streamed rows are one block."""
    if isinstance(batch.design, Tensor):
        return RowBlock.split(batch)
    return [batch.design.block(batch)]


class RowBlock:
    """Consecutive rows and the problems that use them, with their logits (rows, those problems, outputs).

    In memory the problems are the innermost axis: sums over the few outputs then run over many problems in parallel.
    """

    def __init__(self, batch: ScaledProblems, rows: slice, problems: Tensor) -> None:
        assert isinstance(batch.design, Tensor)
        self.design, self.problems = batch.design[rows], problems
        logits = times(self.design, self._rows(batch.start))
        self._hold(batch.loss.rows(rows).select(problems), self._logits(logits, batch.start.shape[1]))
        for rows, loss in self.chunks:
            self.residual[rows] = loss.residual(self.logits[rows])

    def _hold(self, loss: Loss, logits: Tensor) -> None:
        """Store loss and logits of the problems; allocate the logits of a move and the residual at its end."""
        self.loss, self.logits = loss, logits
        self.move, self.residual = torch.empty_like(logits), torch.empty_like(logits)
        step = max(1, AT_ONCE // logits[0].numel())
        starts = range(0, len(logits), step)
        self.chunks = [(slice(start, start + step), loss.rows(slice(start, start + step))) for start in starts]

    @classmethod
    def split(cls, batch: ScaledProblems) -> list[RowBlock]:
        """Return blocks of rows such that each problem uses all of a block or none; one block if they are small."""
        design, fitted = batch.design, batch.loss.weights.flatten(1) != 0
        ends = 1 + torch.nonzero((fitted[1:] != fitted[:-1]).any(1))[:, 0]
        bounds = [0, *ends.tolist(), len(design)]
        if len(design) < BLOCK_ROWS * (len(bounds) - 1):
            bounds = [0, len(design)]
        blocks = [slice(*both) for both in pairwise(bounds)]
        present = [torch.nonzero(fitted[rows].any(0))[:, 0] for rows in blocks]
        return [cls(batch, rows, problems) for rows, problems in zip(blocks, present, strict=True) if len(problems)]

    def _rows(self, weights: Tensor) -> Tensor:
        """Return the weights of the problems that use the rows, as (outputs · problems, columns)."""
        return weights[self.problems].transpose(0, 1).flatten(0, 1)

    def _logits(self, flat: Tensor, outputs: int) -> Tensor:
        """Return logits (rows, problems, outputs) as a view of memory laid out as (rows, outputs · problems)."""
        return flat.view(-1, outputs, len(self.problems)).transpose(1, 2)

    @staticmethod
    def _flat(logits: Tensor) -> Tensor:
        """Return logits as they are laid out in memory: (rows, outputs · problems)."""
        return logits.transpose(1, 2).flatten(1)

    def differentiate(self, value: Tensor, gradient: Tensor) -> None:
        """Add the rows' losses to the problems' values, and their derivatives by the weights to the gradients."""
        for rows, loss in self.chunks:
            value.index_add_(0, self.problems, loss.value(self.logits[rows]).to(value.dtype))
        residual = self._flat(self.residual)
        slope = residual.T @ self.design if residual.shape[1] < THIN else (self.design.T @ residual).T
        gradient.index_add_(0, self.problems, slope.reshape(*self.logits.mT.shape[1:], -1).transpose(0, 1))

    def aim(self, move: Tensor) -> None:
        """Compute the logits of a move of the problems' weights."""
        torch.mm(self.design, self._rows(move).T, out=self._flat(self.move))

    def add_slope(self, slope: Tensor, length: Tensor) -> None:
        """Add the losses' slopes along the move at these lengths, and store the residual there."""
        at = length[self.problems][:, None]
        for rows, loss in self.chunks:
            move = self.move[rows]
            residual = loss.residual(torch.addcmul(self.logits[rows], at, move))
            self.residual[rows] = residual
            slope.index_add_(0, self.problems, residual.mul_(move).sum((0, 2)))

    def go(self, length: Tensor) -> None:
        """Move by these lengths, the last ones tried."""
        self.logits.addcmul_(length[self.problems][:, None], self.move)

    def keep(self, kept: Tensor, problems: int) -> bool:
        """Drop all but the kept of `problems` problems, and renumber them; returns whether the block has any left."""
        number = torch.full((problems,), -1, device=kept.device)
        number[kept] = torch.arange(len(kept), device=kept.device)
        moved = number[self.problems]
        here = torch.nonzero(moved >= 0)[:, 0]
        if len(here) == 0:
            return False
        self.problems = moved[here]
        self._hold(self.loss.select(here), self.logits.transpose(1, 2)[..., here].transpose(1, 2))
        return True


class _State:
    """The problems that have not ended: weights, their logits and gradient, and the curvature seen so far."""

    def __init__(self, batches: Sequence[ScaledProblems]) -> None:
        self.scaling = stacked([batch.scaling for batch in batches])
        self.penalty = torch.cat([batch.penalty for batch in batches])[:, None, :]
        self.weights = torch.cat([batch.start for batch in batches])
        self.blocks: list[Block] = []
        for first, batch in zip(accumulate((len(batch.start) for batch in batches), initial=0), batches, strict=False):
            for block in blocks_of(batch):
                block.problems = block.problems + first
                self.blocks.append(block)
        self.history = History(self.weights)
        self.values: list[Tensor] = []
        self.best_gap = self.weights.new_full((len(self.weights),), torch.inf)
        self.waited = torch.zeros_like(self.best_gap)
        self._differentiate()

    def _differentiate(self) -> None:
        """Compute value and gradient at the weights, from their logits."""
        self.raw_gradient = self.penalty * self.weights
        value = 0.5 * (self.raw_gradient * self.weights).sum((1, 2))
        for block in self.blocks:
            block.differentiate(value, self.raw_gradient)
        self.gradient = self.scaling.gradient(self.raw_gradient)
        self.values = [*self.values, value][-WINDOW - 1 :]

    def direction_and_gap(self, *, quick: bool) -> tuple[Tensor, Tensor]:
        """Return the step -H ∇f in scaled variables and the estimated relative gap (problems,).

        The penalty's convexity bounds the gap by ‖∇f‖² / 2δ (the intercept by its curvature at the start, with
        safety).  If that bound is loose, the estimate is the larger of half the Newton decrement ∇fᵀ H ∇f and the
        further decrease that the latest decreases suggest, each times its safety factor.
        """
        direction = -self.history.solve(self.gradient)
        decrement = -(self.gradient * direction).sum((1, 2))
        convexity = torch.where(self.penalty > 0, self.penalty, self.scaling.intercept_curvature / DECREMENT_SAFETY)
        bound = 0.5 * (self.raw_gradient.square() / convexity).sum((1, 2))
        estimate = torch.maximum(0.5 * DECREMENT_SAFETY * decrement.abs(), self._left(quick=quick))
        return direction, torch.minimum(bound, estimate) / self.values[-1]

    def _left(self, *, quick: bool) -> Tensor:
        """Return how far the values (problems,) are expected to fall; infinity before there is an estimate."""
        values = self.values
        window = DECREASE_SAFETY * (values[0] - values[-1]).abs()
        if len(values) <= WINDOW:
            window = torch.full_like(window, torch.inf)
        if not quick or len(values) <= 2 * SHORT:
            return window
        latest, before = (values[-1 - SHORT] - values[-1]).abs(), values[-1 - 2 * SHORT] - values[-1 - SHORT]
        geometric = DECREASE_SAFETY * latest.square() / (before - latest)
        return torch.where(FAST * latest <= before, geometric, window)

    def stalled(self, gap: Tensor) -> Tensor:
        """Return which problems' gap estimate has not halved for PATIENCE iterations."""
        better = gap < 0.5 * self.best_gap
        self.best_gap = torch.where(better, gap, self.best_gap)
        self.waited = torch.where(better, 0, self.waited + 1)
        return self.waited > PATIENCE

    def keep(self, problems: Tensor) -> None:
        """Drop all other problems."""
        before = len(self.weights)
        self.blocks = [block for block in self.blocks if block.keep(problems, before)]
        self.scaling = self.scaling.select(problems)
        self.history.keep(problems)
        self.values = [value[problems] for value in self.values]
        for name in ("penalty", "weights", "raw_gradient", "gradient", "best_gap", "waited"):
            setattr(self, name, getattr(self, name)[problems])

    def step(self, direction: Tensor) -> None:
        """Move along the direction and store the curvature found there."""
        move = self.scaling.weights(direction)
        for block in self.blocks:
            block.aim(move)
        length = self._line_search(move, (self.gradient * direction).sum((1, 2)))
        self.weights = self.weights + length[:, None, None] * move
        for block in self.blocks:
            block.go(length)
        before = self.gradient
        self._differentiate()
        self.history.add(length[:, None, None] * direction, self.gradient - before, self.gradient)

    def _line_search(self, move: Tensor, slope: Tensor) -> Tensor:
        """Return lengths at which the slope is at most half of that at the start; the blocks store the residuals there.

        Bracketed false position, on logits alone.
        """
        linear = (self.penalty * self.weights * move).sum((1, 2))
        square = (self.penalty * move * move).sum((1, 2))
        low, low_slope = torch.zeros_like(slope), slope
        high, high_slope = torch.full_like(slope, torch.inf), torch.full_like(slope, torch.inf)
        length = torch.ones_like(slope)
        for step in range(LINE_STEPS):
            now = linear + length * square
            for block in self.blocks:
                block.add_slope(now, length)
            flat = now.abs() <= 0.5 * slope.abs()
            if flat.all() or step == LINE_STEPS - 1:
                break
            falling = now < 0
            low, low_slope = torch.where(falling, length, low), torch.where(falling, now, low_slope)
            high, high_slope = torch.where(falling, high, length), torch.where(falling, high_slope, now)
            inside = low + (high - low) * (low_slope / (low_slope - high_slope)).clamp(0.1, 0.9)
            length = torch.where(flat, length, torch.where(torch.isinf(high), 2 * length, inside))
        return length


class History:
    """The limited memory: the last HISTORY steps s and changes of gradient y of each problem, and their inner products.

    In the compact form of Byrd, Nocedal and Schnabel (1994): with S, Y of the problem's pairs in order of time, R the
    upper triangle of SᵀY, D its diagonal and γ = sᵀy / yᵀy of the newest pair,
    H = γ I + [S γY] [[R⁻ᵀ (D + γ YᵀY) R⁻¹, -R⁻ᵀ], [-R⁻¹, 0]] [S γY]ᵀ.
    """

    def __init__(self, like: Tensor) -> None:
        problems, size = len(like), like[0].numel()
        self.pairs = like.new_zeros(problems, 2 * HISTORY, size)
        self.sy = torch.zeros(problems, HISTORY, HISTORY, dtype=torch.float64, device=like.device)
        self.yy = torch.zeros_like(self.sy)
        self.inner = torch.zeros(problems, 2 * HISTORY, 1, dtype=torch.float64, device=like.device)
        self.order: list[int] = []

    def keep(self, problems: Tensor) -> None:
        """Drop all other problems."""
        self.pairs, self.sy, self.yy = self.pairs[problems], self.sy[problems], self.yy[problems]

    def add(self, step: Tensor, change: Tensor, gradient: Tensor) -> None:
        """Store a pair (problems, outputs, columns) in place of the oldest, and the gradient after the step.

        A pair without curvature, which only rounding causes, is stored as one that has no effect.  The pairs take most
        of the memory, so all products with them are computed in one pass over it.
        """
        slot = self.order.pop(0) if len(self.order) == HISTORY else len(self.order)
        self.order.append(slot)
        new = torch.stack([step.flatten(1), change.flatten(1), gradient.flatten(1)], dim=1)
        curvature, size = (torch.linalg.vecdot(new[:, k], new[:, 1]) for k in (0, 1))
        curved = curvature > torch.finfo(new.dtype).eps * size
        if not curved.all():
            new[:, :2] *= curved[:, None, None]
        self.pairs[:, slot], self.pairs[:, HISTORY + slot] = new[:, 0], new[:, 1]
        # A single problem is expanded to two: torch would split the sums of one among threads, and round differently.
        batch = max(2, len(new)), -1, -1
        products = torch.bmm(self.pairs.expand(batch), new.expand(batch).mT)[: len(new)].double()
        self.inner = products[..., 2:]
        self.sy[:, slot], self.sy[:, :, slot] = products[:, HISTORY:, 0], products[:, :HISTORY, 1]
        self.yy[:, slot], self.yy[:, :, slot] = products[:, HISTORY:, 1], products[:, HISTORY:, 1]
        self.sy[:, slot, slot] += ~curved
        self.yy[:, slot, slot] += ~curved

    def solve(self, gradient: Tensor) -> Tensor:
        """Return H g, where g is the gradient that came with the newest pair."""
        if not self.order:
            return gradient.clone()
        order = torch.tensor(self.order, device=gradient.device)
        flat = gradient.flatten(1)
        sg, yg = self.inner[:, order], self.inner[:, HISTORY + order]
        sy = self.sy[:, order][:, :, order]
        yy = self.yy[:, order][:, :, order]
        gamma = (sy[:, -1, -1] / yy[:, -1, -1])[:, None, None]
        upper = sy.triu()
        u = torch.linalg.solve_triangular(upper, sg, upper=True)
        middle = sy.diagonal(dim1=1, dim2=2)[..., None] * u + gamma * (yy @ u - yg)
        t = torch.linalg.solve_triangular(upper.mT, middle, upper=False)
        factors = torch.zeros_like(self.inner)
        factors[:, order], factors[:, HISTORY + order] = t, -gamma * u
        # As rows: a problem then gets the same digits alone and in a batch.
        combined = torch.bmm(factors.to(flat.dtype).reshape(len(flat), 1, -1), self.pairs)[:, 0]
        return (gamma[:, 0].to(flat.dtype) * flat + combined).reshape(gradient.shape)
