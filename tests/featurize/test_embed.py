"""TF32 is on while an embedder computes that asks for it, and only then."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from mt.featurize.embed import Embedder, embedders


class Watcher(torch.nn.Module):
    """A network that records whether TF32 is on while it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[bool, bool]] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen.append((torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32))
        return images.mean((2, 3))


@pytest.mark.parametrize(("precision", "on"), [("float32", False), ("bfloat16", False), ("tf32", True)])
def test_tf32_is_on_only_while_an_embedder_computes_that_asks_for_it(precision: str, on: bool) -> None:
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    network = Watcher()
    recipe = SimpleNamespace(crop=4, normalize=lambda pixels: pixels.permute(0, 3, 1, 2).float())
    backbone: Any = SimpleNamespace(name="watcher", model=network, preprocess=recipe)
    made, _ = embedders([backbone], torch.device("cpu"), precision=precision, batch_size=2)
    Embedder(backbone, torch.device("cpu"), precision=precision, batch_size=2)(np.zeros((2, 4, 4, 3), np.uint8))
    made[0](np.zeros((2, 4, 4, 3), np.uint8))
    assert network.seen == [(on, on)] * 2
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == before
