"""All problems in the design's precision first; those that are hard again in float64, scaled by their own Hessian."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from mt.probe._lbfgs import Fit, minimise
from mt.probe._losses import Loss
from mt.probe._scaling import Dense, Diagonal

# Past so many iterations the eigenbasis does not describe the curvature well enough to trust the gap estimate either;
# more where there are many columns, since a Hessian then costs as much as many iterations.
EASY, EASY_COLUMNS = 50, 16
# The Hessian is taken anew after so many iterations.
ROUND = 30
# Up to so many coefficients a problem's whole Hessian is taken, beyond it each output's own block.
WHOLE = 2500
# What the estimated gap of a hard problem has to reach of the tolerance: it under-estimates there.
SHARP = 0.1


def minimise_robustly(
    design: Tensor, loss: Loss, penalty: Tensor, curvature: Tensor, start: Tensor,
    *, tol: float, max_iter: int, memory: int,
) -> Fit:  # fmt: skip
    """Minimise every problem; returns float64 weights.

    ``curvature`` (problems, outputs, columns) is the diagonal one of the eigenbasis.  ``memory`` is what the Hessians
    of one problem may take in bytes; a problem too large for that keeps the diagonal scaling in float64.
    """
    low = design.dtype
    diagonal = Diagonal.of(curvature.to(low))
    fit = minimise(design, loss, penalty.to(low), diagonal, start.to(low), tol=tol, max_iter=max_iter)
    fit = replace(fit, weights=fit.weights.double(), gap=fit.gap.double())
    easy = EASY + design.shape[1] // EASY_COLUMNS
    hard = torch.nonzero((fit.gap > tol).cpu() | (fit.n_iter > easy))[:, 0]
    hard = hard[fit.n_iter[hard] < max_iter]
    if len(hard) == 0:
        return fit
    exact = design.double()
    for problem in hard[:, None]:
        left = max_iter - int(fit.n_iter[problem])
        alone, delta, at = loss.to(torch.float64).select(problem), penalty[problem], fit.weights[problem]
        if 4 * _hessian_size(at) * exact.element_size() <= memory:
            again = _by_hessians(exact, alone, delta, at, tol=SHARP * tol, max_iter=left)
        else:
            again = minimise(exact, alone, delta, Diagonal.of(curvature[problem]), at, tol=SHARP * tol, max_iter=left)
        fit.weights[problem], fit.gap[problem] = again.weights, again.gap
        fit.n_iter[problem] += again.n_iter
    return fit


def _by_hessians(design: Tensor, loss: Loss, penalty: Tensor, start: Tensor, *, tol: float, max_iter: int) -> Fit:
    """Go on with one problem in rounds, each scaled by the Hessian at its start."""
    fit = Fit(start, torch.full_like(penalty[:, 0], torch.inf), torch.zeros(1, dtype=torch.int64))
    while bool(fit.gap > tol) and int(fit.n_iter) < max_iter:
        scaling = Dense.of(_hessian(design, loss, penalty, fit.weights), design.shape[1])
        steps = min(ROUND, max_iter - int(fit.n_iter))
        done = minimise(design, loss, penalty, scaling, fit.weights, tol=tol, max_iter=steps)
        fit = Fit(done.weights, done.gap, fit.n_iter + done.n_iter)
        if int(done.n_iter) == 0:
            break
    return fit


def _hessian_size(weights: Tensor) -> int:
    """Return how many numbers the Hessian of weights (1, outputs, columns) holds."""
    outputs, columns = weights.shape[1:]
    return weights.numel() ** 2 if weights.numel() <= WHOLE else outputs * columns**2


def _hessian(design: Tensor, loss: Loss, penalty: Tensor, weights: Tensor) -> Tensor:
    """Return the Hessian of one problem: whole (1, 1, size, size), or its blocks (1, outputs, columns, columns)."""
    outputs, columns = weights.shape[1:]
    p = loss.probabilities((design @ weights[0].T)[:, None])[:, 0]
    weight = loss.weights.reshape(-1, 1)
    blocks = torch.stack([design.T @ (design * column[:, None]) for column in (weight * p * (1 - p)).T])
    blocks += torch.diag(penalty[0])
    if outputs == 1 or weights.numel() > WHOLE:
        return blocks[None]
    # Σ w (diag(p) - p pᵀ) ⊗ z zᵀ: what couples two outputs is the product of both probabilities.
    coupled = (weight.sqrt() * p)[:, :, None] * design[:, None, :]
    whole = -(coupled.flatten(1).T @ coupled.flatten(1))
    for k in range(outputs):
        own = slice(k * columns, (k + 1) * columns)
        whole[own, own] = blocks[k]
    return whole[None, None]
