"""TF32 is on while an embedder computes that asks for it, and only then."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from mt.featurize.embed import Embedder, embedders, even_batches
from mt.featurize.reuse import same_bits


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


@pytest.mark.parametrize(
    ("rows", "size"), [(0, 1), (1, 1), (32, 32), (33, 17), (48, 24), (50, 25), (70, 24), (360, 30), (1437, 32)]
)
def test_the_automatic_batch_size_pads_least(rows: int, size: int) -> None:
    assert even_batches(rows, most=32) == size


class ByPlace(torch.nn.Module):
    """A network whose numbers depend on the batch: on its size, or on the place in it."""

    def __init__(self, depends: str) -> None:
        super().__init__()
        self.depends = depends

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        n = len(images)
        more: dict[str, torch.Tensor | int] = {"nothing": 0, "size": n > 8, "place": torch.arange(n)[:, None] > 5}
        return images.mean((2, 3)) + more[self.depends]


@pytest.mark.parametrize(("depends", "same"), [("nothing", True), ("size", False), ("place", False)])
def test_the_bits_of_noise_show_what_a_batch_size_changes(depends: str, same: bool) -> None:
    recipe = SimpleNamespace(crop=4, normalize=lambda pixels: pixels.permute(0, 3, 1, 2).float())
    backbone: Any = SimpleNamespace(name="network", model=ByPlace(depends), preprocess=recipe)
    embedder = Embedder(backbone, torch.device("cpu"), precision="float32", batch_size=32)
    threads = torch.get_num_threads()
    known = same_bits(embedder)
    assert known((12, 1), (7, 1)) is same
    assert known((12, 1), (12, 1))
    assert not known((12, 1), (12, 2))  # another thread count is not tried
    assert not known((12, 1), (33, 1))  # and no size that nobody chose automatically
    assert torch.get_num_threads() == threads
