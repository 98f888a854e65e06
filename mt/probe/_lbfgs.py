"""L-BFGS on many penalised linear problems at once: two matrix products an iteration, whatever their number.

Problem p minimises  f_p(W) = loss_p(Z Wᵀ) + ½ δ_p ‖W‖²,  with W (outputs, columns of Z) and no penalty on the last
column, the intercept.  Variables are scaled by the inverse root of a curvature that is diagonal in the eigenbasis, so
that the Hessian starts near the identity.  Logits are linear in the weights: a line search needs no product.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mt.probe._losses import Loss

HISTORY = 12
LINE_STEPS = 12
# Where its curvature is poor, the decrement of L-BFGS under-estimates the gap: ask for this fraction of the tolerance.
CAUTION = 0.1
# Iterations without the gap estimate halving before a problem counts as stalled.
PATIENCE = 40


@dataclass
class Fit:
    """Where each problem ended: weights (problems, outputs, columns), estimated relative gap and iterations."""

    weights: Tensor
    gap: Tensor
    n_iter: Tensor


def minimise(
    design: Tensor, loss: Loss, penalty: Tensor, curvature: Tensor, start: Tensor, *, tol: float, max_iter: int
) -> Fit:
    """Minimise every problem until its estimated relative objective gap is below ``tol``, or it stalls.

    ``design`` (rows, columns); ``penalty`` (problems, columns) is δ with 0 for the intercept; ``curvature`` and
    ``start`` are (problems, outputs, columns).
    """
    state = _State(design, loss, penalty, curvature, start)
    done = Fit(start.clone(), torch.full_like(penalty[:, 0], torch.inf), torch.zeros(len(start), dtype=torch.int64))
    active = torch.arange(len(start), device=start.device)
    for iteration in range(max_iter + 1):
        direction, decrement = state.direction()
        gap = 0.5 * decrement / state.value
        finished = (gap <= CAUTION * tol) | state.stalled(gap) | (iteration == max_iter)
        if finished.any():
            ended = active[finished]
            done.weights[ended] = state.weights[finished]
            done.gap[ended] = gap[finished]
            done.n_iter[ended.cpu()] = iteration
            if finished.all():
                return done
            keep = torch.nonzero(~finished)[:, 0]
            active, direction = active[keep], direction[keep]
            state.keep(keep)
        state.step(direction)
    raise AssertionError("the last iteration ends every problem")


class _State:
    """The problems still running, in scaled variables ``v = W · sqrt(curvature)``."""

    def __init__(self, design: Tensor, loss: Loss, penalty: Tensor, curvature: Tensor, start: Tensor) -> None:
        self.design, self.loss, self.penalty = design, loss, penalty[:, None, :]
        self.scaling = curvature.rsqrt()
        self.weights = start.clone()
        self.logits = self._product(self.weights)
        self.steps: list[Tensor] = []
        self.changes: list[Tensor] = []
        self.best = torch.full_like(penalty[:, 0], torch.inf)
        self.waited = torch.zeros_like(self.best)
        self._differentiate()

    def _product(self, weights: Tensor) -> Tensor:
        problems, outputs, columns = weights.shape
        return (self.design @ weights.reshape(-1, columns).T).reshape(-1, problems, outputs)

    def _differentiate(self) -> None:
        value, residual = self.loss.evaluate(self.logits)
        penalised = self.penalty * self.weights
        raw = residual.reshape(len(self.design), -1).T @ self.design
        self.value = value + 0.5 * (penalised * self.weights).sum((1, 2))
        self.gradient = (raw.reshape(self.weights.shape) + penalised) * self.scaling

    def stalled(self, gap: Tensor) -> Tensor:
        """Tell which problems' gap estimate has not halved for PATIENCE iterations."""
        better = gap < 0.5 * self.best
        self.best = torch.where(better, gap, self.best)
        self.waited = torch.where(better, 0, self.waited + 1)
        return self.waited > PATIENCE

    def keep(self, problems: Tensor) -> None:
        self.loss = self.loss.select(problems)
        self.logits = self.logits[:, problems]
        for name in ("penalty", "scaling", "weights", "gradient", "value", "best", "waited"):
            setattr(self, name, getattr(self, name)[problems])
        self.steps = [step[problems] for step in self.steps]
        self.changes = [change[problems] for change in self.changes]

    def direction(self) -> tuple[Tensor, Tensor]:
        """Return -H g in scaled variables and its Newton decrement gᵀ H g (two-loop recursion)."""
        turned, factors = self.gradient.clone(), []
        for step, change in zip(reversed(self.steps), reversed(self.changes), strict=True):
            inverse = 1 / (step * change).sum((1, 2), keepdim=True)
            factor = inverse * (step * turned).sum((1, 2), keepdim=True)
            turned -= factor * change
            factors.append((factor, inverse))
        if self.steps:
            step, change = self.steps[-1], self.changes[-1]
            turned *= (step * change).sum((1, 2), keepdim=True) / change.square().sum((1, 2), keepdim=True)
        for step, change, (factor, inverse) in zip(self.steps, self.changes, reversed(factors), strict=True):
            turned += (factor - inverse * (change * turned).sum((1, 2), keepdim=True)) * step
        return -turned, (self.gradient * turned).sum((1, 2))

    def step(self, direction: Tensor) -> None:
        """Move along the direction and remember the step and the change of gradient."""
        move = direction * self.scaling
        move_logits = self._product(move)
        length = self._line_search(move, move_logits, (self.gradient * direction).sum((1, 2)))
        self.weights = self.weights + length[:, None, None] * move
        self.logits = self.logits + length[:, None] * move_logits
        before = self.gradient
        self._differentiate()
        self.steps = [*self.steps, length[:, None, None] * direction][-HISTORY:]
        self.changes = [*self.changes, self.gradient - before][-HISTORY:]

    def _line_search(self, move: Tensor, move_logits: Tensor, slope: Tensor) -> Tensor:
        """Return lengths where the slope has fallen to half: bracketed false position, on logits alone."""
        linear = (self.penalty * self.weights * move).sum((1, 2))
        square = (self.penalty * move * move).sum((1, 2))
        length = torch.ones_like(slope)
        low, high = torch.zeros_like(slope), torch.full_like(slope, torch.inf)
        low_slope, high_slope = slope, torch.full_like(slope, torch.inf)
        for _ in range(LINE_STEPS):
            _, residual = self.loss.evaluate(self.logits + length[:, None] * move_logits)
            now = (residual * move_logits).sum((0, 2)) + linear + length * square
            if (now.abs() <= 0.5 * slope.abs()).all():
                break
            falling = now < 0
            low, low_slope = torch.where(falling, length, low), torch.where(falling, now, low_slope)
            high, high_slope = torch.where(falling, high, length), torch.where(falling, high_slope, now)
            inside = low + (high - low) * (low_slope / (low_slope - high_slope)).clamp(0.1, 0.9)
            trial = torch.where(torch.isinf(high), 2 * length, inside)
            length = torch.where(now.abs() <= 0.5 * slope.abs(), length, trial)
        return length
