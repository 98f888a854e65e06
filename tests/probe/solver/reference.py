"""Tight float64 optima of penalised logistic regression, by damped Newton steps with the full Hessian.

Independent of the code under test: dense Hessians in singular-vector coordinates, for small problems.
"""

from __future__ import annotations

import numpy as np
from scipy.special import log_softmax, softmax


def objective(
    coef: np.ndarray, intercept: np.ndarray, X: np.ndarray, y: np.ndarray, C: float, weight: np.ndarray | float = 1.0
) -> float:
    """scikit-learn's objective; one output is a binary problem."""
    logits = np.asarray(X, dtype=np.float64) @ coef.T + intercept
    if logits.shape[1] == 1:
        losses = np.logaddexp(0, (1 - 2 * y) * logits[:, 0])
    else:
        losses = -log_softmax(logits, axis=1)[np.arange(len(y)), y]
    return float(C * (weight * losses).sum() + 0.5 * (coef**2).sum())


def optimum(X: np.ndarray, y: np.ndarray, C: float, *, classes: int = 2, weight: np.ndarray | float = 1.0) -> float:
    """Return the least objective: a binary problem for two classes, else multinomial."""
    X = np.asarray(X, dtype=np.float64)
    left, singular, _ = np.linalg.svd(X - X.mean(0), full_matrices=False)
    design = np.column_stack([left * singular, np.ones(len(X))])
    outputs = 1 if classes == 2 else classes
    weights = np.broadcast_to(weight, len(y)).astype(np.float64)
    solution = np.zeros((outputs, design.shape[1]))
    value = objective(solution[:, :-1], solution[:, -1], design[:, :-1], y, C, weights)
    for _ in range(300):
        gradient, hessian = _derivatives(solution, design, y, C, weights)
        size = 1 / np.sqrt(np.diag(hessian))
        scaled = hessian * size[:, None] * size
        step = -size * np.linalg.lstsq(scaled, size * gradient, rcond=1e-15)[0]
        decrement, length = -gradient @ step, 1.0
        while length > 1e-12:
            trial = solution + length * step.reshape(solution.shape)
            reached = objective(trial[:, :-1], trial[:, -1], design[:, :-1], y, C, weights)
            if reached <= value - 1e-4 * length * decrement:
                break
            length /= 2
        if decrement < 1e-12 * value or length <= 1e-12:
            break
        solution, value = trial, reached
    return value


def _derivatives(
    solution: np.ndarray, design: np.ndarray, y: np.ndarray, C: float, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the gradient and the Hessian, flat; the softmax's free constant of the intercepts is held by a unit."""
    outputs, columns = solution.shape
    penalised = np.ones((outputs, columns))
    penalised[:, -1] = 0
    if outputs == 1:
        p = softmax(np.column_stack([np.zeros(len(y)), design @ solution[0]]), axis=1)
        residual, blocks = (p[:, 1] - y)[:, None], (p[:, 0] * p[:, 1])[:, None, None]
        # 1 - p rounds to 0 for well separated rows: take the other class's probability instead.
        residual = np.where(y == 1, -p[:, 0], p[:, 1])[:, None]
    else:
        p = softmax(design @ solution.T, axis=1)
        residual = p.copy()
        own = np.arange(len(y)), y
        residual[own] = 0
        residual[own] = -residual.sum(1)
        blocks = np.einsum("ni,ij->nij", p, np.eye(outputs)) - p[:, :, None] * p[:, None, :]
    gradient = C * (weight[:, None] * residual).T @ design + penalised * solution
    hessian = C * np.einsum("n,nij,na,nb->iajb", weight, blocks, design, design, optimize=True)
    hessian = hessian.reshape(solution.size, solution.size) + np.diag(penalised.ravel())
    if outputs > 1:
        intercepts = np.arange(outputs) * columns + columns - 1
        hessian[np.ix_(intercepts, intercepts)] += 1
    return gradient.ravel(), hessian
