"""The pretend device computes as the CPU does and refuses what a GPU refuses."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn


def test_numbers_are_the_cpus(pretend: torch.device) -> None:
    x = torch.randn(5, 3)
    there = x.to(pretend)
    assert there.device.type == "pretend"
    assert torch.equal((there @ there.T + 1).cpu(), x @ x.T + 1)
    assert torch.equal(there[there[:, 0] > 0].cpu(), x[x[:, 0] > 0])
    assert there.sum().item() == x.sum().item()
    assert there.tolist() == x.tolist()


@pytest.mark.parametrize(
    "make",
    [
        lambda d: torch.zeros(3, device=d),
        lambda d: torch.ones(2, 2, device=d),
        lambda d: torch.arange(4, device=d),
        lambda d: torch.full((2,), 7.0, device=d),
        lambda d: torch.eye(3, device=d),
        lambda d: torch.tensor([1, 2], device=d),
        lambda d: torch.empty(0, device=d),
        lambda d: torch.randn(2, device=d),
        lambda d: torch.randperm(5, device=d),
    ],
)
def test_factories_make_their_tensors_there(
    pretend: torch.device, make: Callable[[torch.device], torch.Tensor]
) -> None:
    assert make(pretend).device.type == "pretend"


def test_two_devices_do_not_mix(pretend: torch.device) -> None:
    here, there = torch.ones(3), torch.ones(3, device=pretend)
    with pytest.raises(RuntimeError, match="same device"):
        here + there
    with pytest.raises(RuntimeError, match="same device"):
        torch.nn.functional.linear(there[None], torch.ones(2, 3))
    with pytest.raises(RuntimeError, match="same device"):
        torch.cat([there, here])
    with pytest.raises(RuntimeError, match="same device"):
        torch.addmm(there, there[None].T @ there[None], torch.ones(3, 3))
    with pytest.raises((TypeError, RuntimeError), match="numpy"):
        there.numpy()
    assert (there + 1).device.type == "pretend"


def test_a_network_moves_trains_and_comes_back(pretend: torch.device) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2))
    twin = copy.deepcopy(network).to(pretend)
    x, y = torch.randn(6, 3, 8, 8), torch.tensor([0, 1, 0, 1, 1, 0])
    for model, device in ((network, "cpu"), (twin, pretend)):
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        for _ in range(3):
            optimizer.zero_grad()
            torch.autograd.backward(nn.functional.cross_entropy(model(x.to(device)), y.to(device)))
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
    assert all(parameter.device.type == "pretend" for parameter in twin.parameters())
    for ours, theirs in zip(network.state_dict().values(), twin.cpu().state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_lowers_products(pretend: torch.device, dtype: torch.dtype) -> None:
    layer = nn.Linear(3, 2).to(pretend)
    with torch.autocast(pretend.type, dtype=dtype):
        assert layer(torch.ones(1, 3, device=pretend)).dtype == dtype
