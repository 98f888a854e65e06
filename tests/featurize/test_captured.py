"""A captured function returns what the plain function returns, also on devices that cannot capture."""

from __future__ import annotations

import pytest
import torch

from mt.featurize.embed import Captured


class Graph:
    """A stand-in for a CUDA graph: replaying runs the function again into the same output."""

    def __init__(self, given: torch.Tensor, found: torch.Tensor) -> None:
        self.given, self.found, self.replays = given, found, 0

    def replay(self) -> None:
        self.found.copy_(self.given * 2)
        self.replays += 1


def on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let tensors of the CPU say that they are on CUDA."""
    monkeypatch.setattr(torch.Tensor, "device", torch.device("cuda:0"))


def test_elsewhere_the_function_is_called_as_it_is(pretend: torch.device) -> None:
    double = Captured(lambda x: x * 2)
    assert torch.equal(double(torch.arange(3)), torch.tensor([0, 2, 4]))
    assert double(torch.arange(3, device=pretend)).tolist() == [0, 2, 4]


def test_a_graph_per_shape_is_replayed_and_its_results_do_not_share_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    double, graphs = Captured(lambda x: x * 2), []

    def capture(pixels: torch.Tensor) -> tuple[Graph, torch.Tensor, torch.Tensor]:
        given, found = pixels.clone(), pixels * 2
        graphs.append(Graph(given, found))
        return graphs[-1], given, found

    monkeypatch.setattr(double, "_capture", capture)
    on_cuda(monkeypatch)
    first, second = double(torch.ones(3)), double(torch.full((3,), 5.0))
    double(torch.ones(4))
    monkeypatch.undo()
    assert first.tolist() == [2, 2, 2]
    assert second.tolist() == [10, 10, 10]
    assert [graph.replays for graph in graphs] == [2, 1]


def test_what_cannot_be_captured_is_called_as_it_is_from_then_on(monkeypatch: pytest.MonkeyPatch) -> None:
    double, tried = Captured(lambda x: x * 2), []

    def refused(pixels: torch.Tensor) -> None:
        tried.append(pixels)
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(double, "_capture", refused)
    on_cuda(monkeypatch)
    found = [double(torch.ones(2)), double(torch.ones(2))]
    monkeypatch.undo()
    assert [one.tolist() for one in found] == [[2, 2], [2, 2]]
    assert len(tried) == 1
