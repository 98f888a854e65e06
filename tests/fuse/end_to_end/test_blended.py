"""The trained network beside its start: mixed probabilities, temperature, attention."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mt.fuse.end_to_end.blended import Blended, mix_logits
from mt.fuse.end_to_end.warm_start import cached_stage, network_from
from mt.fuse.end_to_end.work import predict
from mt.probe.methods.linear import link
from tests.fuse.end_to_end.small import RESNET, VIT, Bench


@pytest.mark.parametrize(("task", "outputs"), [("binary", 1), ("multiclass", 3), ("ordinal", 4), ("multilabel", 2)])
@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_probabilities_are_mixed(task: str, outputs: int, share: float) -> None:
    rng = np.random.default_rng(0)
    start, trained = (torch.from_numpy(rng.normal(scale=5, size=(6, outputs))) for _ in range(2))
    found = link(mix_logits(start, trained, share, task).numpy(), task)
    expected = (1 - share) * link(start.numpy(), task) + share * link(trained.numpy(), task)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_certain_logits_mix_without_infinities() -> None:
    far = torch.tensor([[1e4], [-1e4]], dtype=torch.float64)
    assert torch.isfinite(mix_logits(far, -far, 0.5, "binary")).all()


def test_logits_are_scaled_and_attention_mixed_and_a_part_of_nothing_is_left_out(cache: Path) -> None:
    bench = Bench(cache, RESNET, VIT)
    fitted = cached_stage(bench.budget, "binary", 2, seed=0, device="cpu")
    start, other = (network_from(fitted, bench.networks, bench.settings) for _ in range(2))
    with torch.no_grad():
        for parameter in other.head.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    work, rows = bench.work(), np.arange(8)
    (a, before), (b, after) = predict(start, work, rows), predict(other, work, rows)
    assert np.abs(before - after).max() > 1e-4
    logits, attention = predict(Blended(start, [other], "binary", share=0.25, temperature=2.0), work, rows)
    mixed = mix_logits(torch.from_numpy(a), torch.from_numpy(b), 0.25, "binary").numpy()
    np.testing.assert_allclose(logits, mixed / 2, atol=1e-4)
    np.testing.assert_allclose(attention, 0.75 * before + 0.25 * after, atol=1e-5)
    for share, part in ((0.0, start), (1.0, other)):
        assert Blended(start, [other], "binary", share=share).parts == [part]


@pytest.mark.parametrize(("n", "each"), [(1, [0.5, 0.25, 0.25]), (2, [1 / 3, 1 / 3, 1 / 6, 1 / 6])])
def test_networks_of_trials_together_weigh_as_much_as_one_trained(cache: Path, n: int, each: list[float]) -> None:
    bench = Bench(cache, RESNET, VIT)
    fitted = cached_stage(bench.budget, "binary", 2, seed=0, device="cpu")
    start, *rest = (network_from(fitted, bench.networks, bench.settings) for _ in range(3 + n))
    with torch.no_grad():
        for seed, network in enumerate(rest):
            for parameter in network.head.parameters():
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed)))
    work, rows = bench.work(), np.arange(8)
    found = [predict(network, work, rows) for network in (start, *rest)]
    blended = Blended(start, rest[:n], "binary", share=0.5, temperature=2.0, trials=rest[n:])
    logits, attention = predict(blended, work, rows)
    weights = np.array([0.5, *(0.5 * weight for weight in each)])
    expected = sum(weight * link(z, "binary")[:, 1] for weight, (z, _) in zip(weights, found, strict=True))
    np.testing.assert_allclose(link(2 * logits, "binary")[:, 1], expected, atol=1e-5)
    mixed = sum(weight * received for weight, (_, received) in zip(weights, found, strict=True))
    np.testing.assert_allclose(attention, mixed, atol=1e-5)
    assert len(list(blended.parameters())) == (3 + n) * len(list(start.parameters())), "they move to a device together"
    assert Blended(start, rest[:n], "binary", share=0.0, trials=rest[n:]).trials == []
