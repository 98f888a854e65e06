"""A constructed set in which a gate, visible in the embeddings, says which model's embedding carries the label."""

from __future__ import annotations

import numpy as np


def gated(n: int, *, models: int = 2, dim: int = 16, seed: int = 0) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Return embeddings, binary labels, and the gate (n,): the number of the model that carries the label.

    Every model's embedding holds a signal of its own; the label is the sign of the gated model's.  Which model that is
    shows in the first columns of every embedding, with noise.  A linear classifier can only average the signals.
    """
    rng = np.random.default_rng(seed)
    gate = rng.integers(0, models, n)
    signals = rng.normal(size=(n, models))
    y = (signals[np.arange(n), gate] > 0).astype(np.int64)
    embeddings = []
    for model in range(models):
        X = rng.normal(size=(n, dim))
        X[:, :models] = 3 * (gate[:, None] == np.arange(models)) + 0.5 * rng.normal(size=(n, models))
        X[:, models] = signals[:, model]
        mix = np.linalg.qr(np.random.default_rng(100 + model).normal(size=(dim, dim)))[0]
        embeddings.append((X @ mix).astype(np.float32))
    return embeddings, y, gate


def gated_classes(n: int, *, models: int = 2, dim: int = 16, seed: int = 0) -> tuple[list[np.ndarray], np.ndarray]:
    """Return embeddings and three classes: every model has a score for each, and the gated model's highest counts."""
    rng = np.random.default_rng(seed)
    gate = rng.integers(0, models, n)
    signals = rng.normal(size=(n, models, 3))
    y = signals[np.arange(n), gate].argmax(axis=1)
    embeddings = []
    for model in range(models):
        X = rng.normal(size=(n, dim))
        X[:, :models] = 3 * (gate[:, None] == np.arange(models)) + 0.5 * rng.normal(size=(n, models))
        X[:, models : models + 3] = signals[:, model]
        mix = np.linalg.qr(np.random.default_rng(100 + model).normal(size=(dim, dim)))[0]
        embeddings.append((X @ mix).astype(np.float32))
    return embeddings, y
