"""Deterministic weights and images that golden outputs were computed from, rebuilt from names alone.

Every tensor comes from PCG64's raw 64-bit stream, seeded by the sha256 of "namespace/key", mapped to a uniform
variable of mean 0 and variance 1 in float64, shaped by what the key ends with, and rounded once to float32: the same
bits everywhere.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence

import numpy as np

TOKENS = ("pos_embed", "cls_token", "mask_token", "register_tokens")


def standard_uniform(name: str, shape: Sequence[int]) -> np.ndarray:
    """Return float64 values of mean 0 and variance 1 that depend on `name` alone."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    bits = np.random.PCG64(seed).random_raw(math.prod(shape))
    unit = (np.asarray(bits, dtype=np.uint64) >> np.uint64(11)) * 2.0**-53
    return ((unit - 0.5) * 3.4641016151377544).reshape(tuple(shape))


def tensor(namespace: str, key: str, shape: Sequence[int]) -> np.ndarray:
    """Return the weight of a bare key; shapes with two axes or more are scaled by fan-in."""
    kind = key.rsplit(".", 1)[-1]
    if kind == "num_batches_tracked":
        return np.zeros(tuple(shape), np.int64)
    z = standard_uniform(f"{namespace}/{key}", shape)
    if kind == "weight":
        value = 1 + 0.1 * z if len(shape) == 1 else z / math.sqrt(math.prod(shape[1:]))
    elif kind in TOKENS:
        value = 0.5 * z
    else:
        value = {
            "running_var": 1 + 0.1 * np.abs(z),
            "running_mean": 0.1 * z,
            "bias": 0.1 * z,
            "gamma": 0.5 + 0.1 * z,
        }[kind]
    return np.asarray(value).astype(np.float32)


def state(namespace: str, shapes: Mapping[str, Sequence[int]]) -> dict[str, np.ndarray]:
    """Return all weights of a network given its bare keys and their shapes."""
    return {key: tensor(namespace, key, shape) for key, shape in shapes.items()}


def images(size: int, count: int = 2) -> np.ndarray:
    """Return already normalised images, float32 (count, 3, size, size).

    They are the sum of an offset per channel, a value per block of 16 x 16 pixels, and noise per pixel: noise alone
    would vanish in the pooled features.
    A size that is not a multiple of 16 is cut from the top left of the next multiple.
    """
    full = -(-size // 16) * 16
    name = f"input/{count}x3x{full}x{full}"
    blocks = standard_uniform(f"{name}/blocks", (count, 3, full // 16, full // 16))
    blocks = blocks.repeat(16, axis=2).repeat(16, axis=3)
    offset = standard_uniform(f"{name}/offset", (count, 3, 1, 1))
    pixels = standard_uniform(f"{name}/pixels", (count, 3, full, full))
    mixed: np.ndarray = (0.5 * offset + blocks + 0.5 * pixels).astype(np.float32)
    return mixed[:, :, :size, :size]


def fingerprint(arrays: Mapping[str, np.ndarray]) -> str:
    """Return the sha256 that the golden files record of their weights."""
    hashed = hashlib.sha256()
    for key in sorted(arrays):
        hashed.update(key.encode())
        hashed.update(np.ascontiguousarray(arrays[key]).tobytes())
    return hashed.hexdigest()
