"""The reported objective: float64, from the features as given, independent of the basis that found the solution."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mt.probe.solver.basis import row_chunks


def data_loss(
    features: np.ndarray, coef: Tensor, intercept: Tensor, targets: Tensor, weights: Tensor, *, softmax: bool
) -> Tensor:
    """Return ``Σ weight · loss`` (Cs,) for coefficients (Cs, outputs, dim) and intercepts (Cs, outputs).

    ``targets`` and ``weights`` are (rows, labels): one column of class numbers for softmax, else 0/1 an output.
    """
    total = torch.zeros(len(coef), dtype=torch.float64, device=coef.device)
    for rows, chunk in row_chunks(features, coef.device):
        logits = torch.addmm(intercept.flatten(), chunk, coef.flatten(0, 1).T).reshape(-1, *intercept.shape)
        for c in range(len(coef)):
            total[c] += (_losses(logits[:, c], targets[rows], softmax=softmax) * weights[rows]).sum()
    return total


def _losses(logits: Tensor, targets: Tensor, *, softmax: bool) -> Tensor:
    if softmax:
        return -torch.log_softmax(logits, dim=1).gather(1, targets)
    return torch.nn.functional.softplus((1 - 2 * targets) * logits, threshold=40)
