"""A network's forward pass as one CUDA graph per input shape: no kernel waits for Python to launch it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

WARM_UP = 3  # passes before the capture, in which libraries choose their kernels and allocate


class Captured:
    """Calls a function of one tensor; on CUDA it is captured at the first call of each shape and replayed afterwards.

    A function that cannot be captured (it waits for the device, say) is called as it is from then on.
    """

    def __init__(self, forward: Callable[[Tensor], Tensor]) -> None:
        self._forward = forward
        self._graphs: dict[torch.Size, tuple[torch.cuda.CUDAGraph, Tensor, Tensor]] = {}
        self._refused = False

    def __call__(self, pixels: Tensor) -> Tensor:
        if pixels.device.type != "cuda" or self._refused:
            return self._forward(pixels)
        if pixels.shape not in self._graphs:
            try:
                self._graphs[pixels.shape] = self._capture(pixels)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError:
                self._refused = True
                return self._forward(pixels)
        graph, given, found = self._graphs[pixels.shape]
        given.copy_(pixels)
        graph.replay()
        return found.clone()

    def forget(self) -> None:
        """Free the graphs and their memory."""
        self._graphs.clear()

    def _capture(self, pixels: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor, Tensor]:
        given = pixels.clone()
        here, aside = torch.cuda.current_stream(pixels.device), torch.cuda.Stream(pixels.device)  # type: ignore[no-untyped-call]
        aside.wait_stream(here)
        with torch.cuda.stream(aside):
            for _ in range(WARM_UP):
                self._forward(given)
        here.wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            found = self._forward(given)
        return graph, given, found
