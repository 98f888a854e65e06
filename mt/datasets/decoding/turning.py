"""EXIF orientations, of arrays."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

_TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: np.rot90,
}


def turned(values: np.ndarray, orientation: int) -> np.ndarray:
    """Return (H, W) or (H, W, 3) turned upright by an EXIF orientation from 1 to 8; other numbers are ignored."""
    return _TURNS[orientation](values) if orientation in _TURNS else values
