"""Features like those of a network: eigenvalues that fall as a power law, rotated directions, and a mean offset."""

from __future__ import annotations

import numpy as np


def features(
    rows: int, dim: int, *, seed: int = 0, exponent: float = 1.0, shared: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return float32 features (rows, dim) of unit mean variance, and the standard normal factors behind them.

    shared: factors (rows, k) of the strongest k directions, for features of several networks on the same images.
    """
    rng = np.random.default_rng(seed)
    spectrum = np.arange(1, dim + 1.0) ** -exponent
    rotation = np.linalg.qr(rng.standard_normal((dim, dim)))[0].astype(np.float32)
    factors = rng.standard_normal((rows, dim), dtype=np.float32)
    if shared is not None:
        factors[:, : shared.shape[1]] = shared
    scaled = factors * np.sqrt(spectrum * dim / spectrum.sum()).astype(np.float32)
    return scaled @ rotation + rng.normal(0, 1, dim).astype(np.float32), factors


def scores(factors: np.ndarray, outputs: int, *, seed: int = 1, strength: float = 2.0) -> np.ndarray:
    """Return true logits (rows, outputs) of standard deviation ``strength``, carried by the strong directions."""
    rng = np.random.default_rng(seed)
    dim = factors.shape[1]
    directions = rng.standard_normal((dim, outputs)) * np.arange(1, dim + 1.0)[:, None] ** -0.5
    return np.asarray(strength * (factors @ (directions / np.linalg.norm(directions, axis=0))))


def labels(factors: np.ndarray, task: str, outputs: int = 1, *, seed: int = 1) -> np.ndarray:
    """Return labels drawn from the logistic model: (rows,), or (rows, outputs) with rates 2 ... 20 % for multilabel."""
    rng = np.random.default_rng(seed + 1)
    logits = scores(factors, outputs, seed=seed)
    if task == "multiclass":
        return np.asarray((logits + rng.gumbel(size=logits.shape)).argmax(1))
    if task == "multilabel":
        logits = logits + np.log(np.linspace(0.02, 0.2, outputs)) - 1
    drawn = np.asarray(rng.random(logits.shape) < 1 / (1 + np.exp(-logits)), dtype=np.int64)
    return drawn if task == "multilabel" else drawn[:, 0]
