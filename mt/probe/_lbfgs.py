"""L-BFGS on many penalised linear problems at once: two products with the design an iteration, however many problems.

Problem p minimises  f_p(W) = loss_p(Z Wᵀ) + ½ δ_p ‖W‖²,  with W (outputs, columns of Z) and no penalty on the last
column, the intercept.  Variables are scaled so that the Hessian starts near the identity.  Logits are linear in the
weights, so a line search needs no product.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from mt.probe._history import History
from mt.probe._losses import Loss
from mt.probe._scaling import Scaling

LINE_STEPS = 12
# Half the Newton decrement of L-BFGS under-estimates the gap where its curvature is poor: count it this many times.
DECREMENT_SAFETY = 10.0
# A problem that converges linearly has about as far to go as it came in its last WINDOW iterations: count that twice.
# Over fewer iterations its decrease says nothing.
WINDOW = 10
DECREASE_SAFETY = 2.0
# Within QUICK iterations a problem is well posed: it goes on to this fraction of the tolerance, which costs little and
# settles probabilities to 1e-3.  There the last SHORT iterations and the SHORT before them say how far it has to go, if
# those came at least FAST times as far: the sum of the geometric series.
QUICK, SHARP = 30, 0.001
SHORT, FAST = 4, 2.0
# Iterations without the gap estimate halving before a problem counts as stalled.
PATIENCE = 40
# Problems that have ended stay in the batch, where they stand still, until they are this share of it.
LEAVE = 0.125
# Logits taken at once, of all problems and some rows: what is computed of them stays in a core's cache.
AT_ONCE = 2**18


@dataclass
class Fit:
    """Where each problem ended: weights (problems, outputs, columns), estimated relative gap and iterations."""

    weights: Tensor
    gap: Tensor
    n_iter: Tensor


def minimise(
    design: Tensor, loss: Loss, penalty: Tensor, scaling: Scaling, start: Tensor, *, tol: float, max_iter: int
) -> Fit:
    """Minimise every problem until its estimated relative objective gap is below ``tol``, or it stalls.

    ``design`` (rows, columns); ``penalty`` (problems, columns) is δ, 0 for the intercept; ``start`` (problems, outputs,
    columns).  Problems that have ended leave the products.
    """
    state = _State(design, loss, penalty, scaling, start)
    problems = len(start)
    done = Fit(start.clone(), start.new_full((problems,), torch.inf), torch.zeros(problems, dtype=torch.int64))
    present = torch.arange(problems, device=start.device)
    running = torch.ones_like(present, dtype=torch.bool)
    for iteration in range(max_iter + 1):
        quick = iteration < QUICK
        direction, gap = state.direction_and_gap(quick=quick)
        enough = SHARP * tol if quick else tol
        ended = running & ((gap <= enough) | state.stalled(gap) | (iteration == max_iter))
        if ended.any():
            at = present[ended]
            done.weights[at], done.gap[at] = state.weights[ended], gap[ended]
            done.n_iter[at.cpu()] = iteration
            running &= ~ended
            left = int(running.sum())
            if left == 0:
                break
            if left <= (1 - LEAVE) * len(running):
                kept = torch.nonzero(running)[:, 0]
                present, running, direction = present[kept], running[kept], direction[kept]
                state.keep(kept)
        state.step(direction * running[:, None, None])
    return done


class _State:
    """The problems still running: weights, their logits and gradient, and the curvature seen so far."""

    def __init__(self, design: Tensor, loss: Loss, penalty: Tensor, scaling: Scaling, start: Tensor) -> None:
        self.design, self.loss, self.scaling = design, loss, scaling
        self.penalty = penalty[:, None, :]
        self.weights = start.clone()
        self.logits = self._product(start)
        # The logits of a move, and after it the residual at its end.
        self.scratch = torch.empty_like(self.logits)
        self.history = History(start)
        self.values: list[Tensor] = []
        self.best_gap = penalty.new_full((len(penalty),), torch.inf)
        self.waited = torch.zeros_like(self.best_gap)
        self._differentiate()

    def _product(self, weights: Tensor, out: Tensor | None = None) -> Tensor:
        """Return the logits (rows, problems, outputs) of weights; in memory the problems lie innermost.

        So sums over outputs, of which there are few, run over many problems side by side.
        """
        problems, outputs, columns = weights.shape
        flat = None if out is None else self._flat(out)
        logits = torch.mm(self.design, weights.transpose(0, 1).reshape(-1, columns).T, out=flat)
        return logits.view(-1, outputs, problems).transpose(1, 2)

    @staticmethod
    def _flat(logits: Tensor) -> Tensor:
        """Return logits as they lie in memory: (rows, outputs · problems)."""
        return logits.transpose(1, 2).flatten(1)

    def _rows(self) -> Iterator[tuple[slice, Loss]]:
        """Yield all rows, a few at a time, with their losses."""
        step = max(1, AT_ONCE // self.logits[0].numel())
        for start in range(0, len(self.logits), step):
            rows = slice(start, start + step)
            yield rows, self.loss.rows(rows)

    def _differentiate(self) -> None:
        """Take value and gradient at the weights, from their logits."""
        data_loss = torch.zeros_like(self.best_gap)
        for rows, loss in self._rows():
            data_loss += loss.value(self.logits[rows])
            self.scratch[rows] = loss.residual(self.logits[rows])
        penalised = self.penalty * self.weights
        slope = self._flat(self.scratch).T @ self.design
        self.raw_gradient = penalised + slope.view(-1, *penalised[:, 0].shape).transpose(0, 1)
        self.gradient = self.scaling.gradient(self.raw_gradient)
        value = data_loss + 0.5 * (penalised * self.weights).sum((1, 2))
        self.values = [*self.values, value][-WINDOW - 1 :]

    def direction_and_gap(self, *, quick: bool) -> tuple[Tensor, Tensor]:
        """Return the step -H ∇f in scaled variables and the estimated relative gap (problems,).

        The penalty's convexity bounds the gap by ‖∇f‖² / 2δ (the intercept by its curvature at the start, with
        safety).  Where that says little, the estimate is the larger of half the Newton decrement ∇fᵀ H ∇f and what
        the latest decreases leave to expect, each with its safety.
        """
        direction = -self.history.solve(self.gradient)
        decrement = -(self.gradient * direction).sum((1, 2))
        convexity = torch.where(self.penalty > 0, self.penalty, self.scaling.intercept_curvature / DECREMENT_SAFETY)
        bound = 0.5 * (self.raw_gradient.square() / convexity).sum((1, 2))
        estimate = torch.maximum(0.5 * DECREMENT_SAFETY * decrement.abs(), self._left(quick=quick))
        return direction, torch.minimum(bound, estimate) / self.values[-1]

    def _left(self, *, quick: bool) -> Tensor:
        """Return how far the values (problems,) are expected to fall yet; infinity while nothing can be said."""
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
        """Tell which problems' gap estimate has not halved for PATIENCE iterations."""
        better = gap < 0.5 * self.best_gap
        self.best_gap = torch.where(better, gap, self.best_gap)
        self.waited = torch.where(better, 0, self.waited + 1)
        return self.waited > PATIENCE

    def keep(self, problems: Tensor) -> None:
        """Go on with these problems only."""
        self.loss, self.scaling = self.loss.select(problems), self.scaling.select(problems)
        self.logits = self.logits.transpose(1, 2)[..., problems].transpose(1, 2)
        self.scratch = torch.empty_like(self.logits)
        self.history.keep(problems)
        self.values = [value[problems] for value in self.values]
        for name in ("penalty", "weights", "raw_gradient", "gradient", "best_gap", "waited"):
            setattr(self, name, getattr(self, name)[problems])

    def step(self, direction: Tensor) -> None:
        """Move along the direction and remember the curvature met."""
        move = self.scaling.weights(direction)
        self._product(move, out=self.scratch)
        length = self._line_search(move, (self.gradient * direction).sum((1, 2)))
        self.weights = self.weights + length[:, None, None] * move
        self.logits.addcmul_(length[:, None], self.scratch)
        before = self.gradient
        self._differentiate()
        self.history.add(length[:, None, None] * direction, self.gradient - before, self.gradient)

    def _line_search(self, move: Tensor, slope: Tensor) -> Tensor:
        """Return lengths at which the slope has at most half its size.

        Bracketed false position, on logits alone.
        """
        linear = (self.penalty * self.weights * move).sum((1, 2))
        square = (self.penalty * move * move).sum((1, 2))
        low, low_slope = torch.zeros_like(slope), slope
        high, high_slope = torch.full_like(slope, torch.inf), torch.full_like(slope, torch.inf)
        length = torch.ones_like(slope)
        for _ in range(LINE_STEPS):
            now = self._slope(length) + linear + length * square
            flat = now.abs() <= 0.5 * slope.abs()
            if flat.all():
                break
            falling = now < 0
            low, low_slope = torch.where(falling, length, low), torch.where(falling, now, low_slope)
            high, high_slope = torch.where(falling, high, length), torch.where(falling, high_slope, now)
            inside = low + (high - low) * (low_slope / (low_slope - high_slope)).clamp(0.1, 0.9)
            length = torch.where(flat, length, torch.where(torch.isinf(high), 2 * length, inside))
        return length

    def _slope(self, length: Tensor) -> Tensor:
        """Return the losses' slopes (problems,) along the move at these lengths."""
        slope = torch.zeros_like(length)
        for rows, loss in self._rows():
            move = self.scratch[rows]
            slope += loss.residual(torch.addcmul(self.logits[rows], length[:, None], move)).mul_(move).sum((0, 2))
        return slope
