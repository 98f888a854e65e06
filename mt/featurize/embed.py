"""Backbones on a device: uint8 pixels in, embeddings out, at a fixed batch size."""

from __future__ import annotations

import platform
from collections.abc import Callable
from importlib import metadata
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mt.backbones.load import Backbone
from mt.errors import MtError
from mt.system.device import autocast, tf32

# On a CPU the largest size, see `even_batches`; elsewhere the size for every split, so that an image has the same
# embedding in files of different splits.
AUTO_BATCH_SIZE = {"cpu": 32, "mps": 64, "cuda": 256}
_NOISES = 2  # noise images that alternate in the batch which shows how a batch size affects the bits
WARM_UP = 3  # passes before the capture, in which libraries choose their kernels and allocate
# Packages whose version can change an embedding's last bits.
_VERSIONED = ("medical-transfer", "torch", "torchvision", "timm", "numpy", "pillow")


def compute_description(device: torch.device, *, precision: str, batch_size: int) -> dict[str, Any]:
    """Return what can change an embedding's last bits beside the fingerprint; every file records it."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "device": device.type,
        "device_name": name,
        "precision": precision,
        "batch_size": batch_size,
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Return the versions of the packages that can change an embedding's last bits."""
    return {package: metadata.version(package) for package in _VERSIONED}


def even_batches(rows: int, *, most: int) -> int:
    """Return the batch size up to `most` that pads the last batch least: 48 rows are 2 x 24, not 32 + 16."""
    batches = max(1, -(-rows // most))
    return max(1, -(-rows // batches))


class Embedder:
    """One backbone on one device.

    Called with uint8 pixels (batch, S, S, 3), an array or a tensor on any device, it returns embeddings (batch, dim),
    float32, on its own device.  If a batch does not fit in the device's memory, it is halved; `chunk` is the size in
    use.
    """

    def __init__(self, backbone: Backbone, device: torch.device, *, precision: str, batch_size: int) -> None:
        self.backbone = backbone
        self.device = device
        self.chunk = batch_size
        self._precision = precision
        self._tf32 = precision == "tf32"
        self._forward = Captured(self._computed)

    def __call__(self, pixels: np.ndarray | torch.Tensor) -> torch.Tensor:
        while True:
            try:
                parts = torch.split(torch.as_tensor(pixels), self.chunk)
                return torch.cat([self._forward(part.to(self.device, non_blocking=True)) for part in parts])
            except torch.OutOfMemoryError as error:
                if self.chunk == 1:
                    raise MtError(
                        f"{self.device} has no memory for one image through '{self.backbone.name}'. "
                        "Use a smaller --image-size, --precision bfloat16, or --device cpu."
                    ) from error
                self.chunk = (self.chunk + 1) // 2
                self._forward.forget()
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()

    def bits(self, batch_size: int, threads: int) -> bytes | None:
        """Return the bits of embeddings of noise at a batch size; None if they depend on the place in the batch.

        Kernels are chosen by the shapes of their inputs, not by the values: if the bits of noise agree at two batch
        sizes, those of images do too.
        """
        size = self.backbone.preprocess.crop
        noise = np.random.default_rng(0).integers(0, 256, (_NOISES, size, size, 3), dtype=np.uint8)
        which = np.arange(batch_size) % _NOISES
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            found = self._computed(torch.as_tensor(noise[which]).to(self.device)).cpu().numpy()
        finally:
            torch.set_num_threads(before)
        return found[:_NOISES].tobytes() if np.array_equal(found, found[which]) else None

    def _computed(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the embeddings of uint8 pixels that are on the device."""
        images = self.backbone.preprocess.normalize(pixels)
        with (
            torch.inference_mode(),
            tf32(self._tf32),
            autocast(self.device, self._precision),
        ):
            embeddings: torch.Tensor = self.backbone.model(images)
        return embeddings.float()


def embedders(
    backbones: list[Backbone], device: torch.device, *, precision: str, batch_size: int
) -> tuple[list[Embedder], int]:
    """Return an embedder per backbone, and the largest batch size up to `batch_size` that fits for all of them.

    On a GPU one batch of zeros goes through each, so that a batch too large shows before the first file is made.
    """
    made = [Embedder(backbone, device, precision=precision, batch_size=batch_size) for backbone in backbones]
    if device.type != "cpu":
        for embedder in made:
            size = embedder.backbone.preprocess.crop
            embedder(np.zeros((batch_size, size, size, 3), np.uint8))
    return made, min(embedder.chunk for embedder in made)


class Captured:
    """Calls a function of one tensor; on CUDA it is captured at the first call of each shape and replayed afterwards.

    Then no kernel of a forward pass waits for Python to launch it.
    A function that cannot be captured (for example because it waits for the device) is called normally from then on.
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
