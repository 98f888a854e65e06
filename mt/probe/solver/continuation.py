"""Continuation along C: where a problem's neighbours on its path say that it should start."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


class Paths:
    """Each group's latest two solutions along C, from which the next ones start."""

    def __init__(self) -> None:
        self.latest: dict[int, list[tuple[float, Tensor]]] = {}

    def add(self, group: list[int], Cs: np.ndarray, weights: Tensor) -> None:
        """Remember solutions (problems, outputs, columns) of these groups at these C."""
        finite = torch.nan_to_num(weights, neginf=0.0)  # the intercept of a class without rows
        for g, C, solution in zip(group, np.broadcast_to(Cs, len(group)), finite, strict=True):
            self.latest[g] = [*self.latest.get(g, []), (float(np.log(C)), solution)][-2:]

    def towards(self, group: list[int], Cs: np.ndarray, otherwise: Tensor) -> Tensor:
        """Return where the groups' paths, taken on straight in log C, reach these C, at most one step on.

        ``otherwise`` holds the starts (problems, outputs, columns) of groups without a path.  Ten labels of which some
        separate take a third fewer iterations from there than from the latest solutions.
        """
        start = otherwise.clone()
        for problem, (g, C) in enumerate(zip(group, Cs, strict=True)):
            if g in self.latest:
                (before, first), (now, last) = self.latest[g][0], self.latest[g][-1]
                ahead = (np.log(C) - now) / (now - before) if now > before else 0.0
                start[problem] = last + min(ahead, 1.0) * (last - first)
        return start
