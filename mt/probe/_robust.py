"""All problems in the design's precision first; those that are hard again in float64, scaled by their own Hessian."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from mt.probe._lbfgs import Fit, minimise
from mt.probe._losses import Loss
from mt.probe._scaling import Dense, Diagonal, Scaling

# Past so many iterations the eigenbasis does not describe the curvature well enough to trust the gap estimate either;
# more where there are many columns, since a Hessian then costs as much as many iterations.
EASY, EASY_COLUMNS = 50, 16
# The Hessian is taken anew after so many iterations.
ROUND = 30


def minimise_robustly(
    design: Tensor, loss: Loss, penalty: Tensor, curvature: Tensor, start: Tensor,
    *, tol: float, max_iter: int, memory: int,
) -> Fit:  # fmt: skip
    """Minimise every problem; returns float64 weights.

    ``curvature`` (problems, outputs, columns) is the diagonal one of the eigenbasis.  ``memory`` is what the Hessians
    of one problem may take in bytes; a problem too large for that keeps the diagonal scaling in float64.
    """
    low = design.dtype
    fit = minimise(
        design, loss.to(low), penalty.to(low), Diagonal.of(curvature.to(low)), start.to(low), tol=tol, max_iter=max_iter
    )
    fit = replace(fit, weights=fit.weights.double(), gap=fit.gap.double())
    easy = EASY + design.shape[1] // EASY_COLUMNS
    hard = torch.nonzero((fit.gap > tol).cpu() | (fit.n_iter > easy))[:, 0]
    hard = hard[fit.n_iter[hard] < max_iter]
    if len(hard) == 0:
        return fit
    exact = design.double()
    fits_memory = 4 * start[0].numel() * start.shape[2] * exact.element_size() <= memory
    for problem in hard[:, None]:
        left = max_iter - int(fit.n_iter[problem])
        alone = loss.to(torch.float64).select(problem)
        again = _continue(
            exact, alone, penalty[problem], None if fits_memory else Diagonal.of(curvature[problem]),
            fit.weights[problem], tol=tol, max_iter=left,
        )  # fmt: skip
        fit.weights[problem], fit.gap[problem] = again.weights, again.gap
        fit.n_iter[problem] += again.n_iter
    return fit


def _continue(
    design: Tensor, loss: Loss, penalty: Tensor, scaling: Scaling | None, start: Tensor, *, tol: float, max_iter: int
) -> Fit:
    """Go on from ``start`` in float64; without a given scaling, by rounds that begin with the Hessian's own."""
    if scaling is not None:
        return minimise(design, loss, penalty, scaling, start, tol=tol, max_iter=max_iter)
    fit = Fit(start, torch.full_like(penalty[:, 0], torch.inf), torch.zeros(1, dtype=torch.int64))
    while bool(fit.gap > tol) and int(fit.n_iter) < max_iter:
        dense = Dense.of(_hessian(design, loss, penalty, fit.weights))
        steps = min(ROUND, max_iter - int(fit.n_iter))
        done = minimise(design, loss, penalty, dense, fit.weights, tol=tol, max_iter=steps)
        fit = Fit(done.weights, done.gap, fit.n_iter + done.n_iter)
        if int(done.n_iter) == 0:
            break
    return fit


def _hessian(design: Tensor, loss: Loss, penalty: Tensor, weights: Tensor) -> Tensor:
    """Return the Hessian of one problem, each output's block alone (1, outputs, columns, columns)."""
    logits = (design @ weights[0].T)[:, None]
    curvature = loss.curvature(logits)[:, 0]
    blocks = [design.T @ (design * column[:, None]) for column in curvature.T]
    return (torch.stack(blocks) + torch.diag(penalty[0]))[None]
