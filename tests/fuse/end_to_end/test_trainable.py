"""Which parts of a backbone train, at which rates per kind of network; low-rank adapters."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from mt.backbones import load_backbone
from mt.errors import InputError
from mt.fuse.end_to_end.loop import Kept, Run
from mt.fuse.end_to_end.request import FinetuneRequest, Machine, Settings
from mt.fuse.end_to_end.run import run_unfrozen
from mt.fuse.end_to_end.saved import load_tuned
from mt.fuse.end_to_end.trainable.blocks import BackboneBlock, blocks
from mt.fuse.end_to_end.trainable.families import (
    ADAPTERS,
    CONVOLUTIONAL,
    HEAD_RATE,
    TRANSFORMER,
    Family,
    candidates,
    family_of,
)
from mt.fuse.end_to_end.trainable.lora import adapt, largest_rank, merge
from mt.fuse.end_to_end.warm_start import cached_stage, network_from
from mt.fuse.end_to_end.work import Part, predict
from mt.fuse.request import FuseRequest
from mt.results.store import ScoreStore
from tests.fuse.end_to_end.small import DATASET, RESNET, VIT, Bench


@pytest.mark.parametrize(
    ("name", "family", "layers"),
    [
        (RESNET, CONVOLUTIONAL, False),
        (VIT, TRANSFORMER, True),
        ("efficientnet-lite0", CONVOLUTIONAL, False),
        ("supervised", CONVOLUTIONAL, False),
        ("dino", TRANSFORMER, True),
        ("timm:convnext_atto", TRANSFORMER, False),
    ],
)
def test_networks_have_the_rates_of_their_kind(name: str, family: Family, layers: int) -> None:
    network = load_backbone(name, "random").model
    assert family_of(network) is family
    assert [one.backbones for one in candidates([network])] == [(rate,) for rate in family.rates]
    assert {one.head for one in candidates([network])} == {HEAD_RATE}
    assert (largest_rank(network) > 0) == layers


def test_models_of_several_kinds_each_train_at_their_own_rate_and_named_rates_hold_for_all() -> None:
    both = [load_backbone(name, "random").model for name in (RESNET, VIT)]
    first, second = candidates(both)
    assert (first.backbones, second.backbones) == ((1e-3, 1e-4), (3e-4, 3e-5))
    assert first.layer_decays == (CONVOLUTIONAL.layer_decay, TRANSFORMER.layer_decay)
    assert first.label == "0.001 + 0.0001"
    assert [one.backbones for one in candidates(both, [1e-5])] == [(1e-5, 1e-5)]
    assert candidates(both, adapters=True)[0].backbones == (ADAPTERS.rates[0],) * 2


@pytest.mark.parametrize("last", [None, 1])
def test_adapters_train_alone_begin_as_nothing_and_are_merged(cache: Path, tmp_path: Path, last: int | None) -> None:
    bench = Bench(cache, VIT, settings=Settings(batch=8, dropout=0.0, lora=2, last=last))
    fitted = cached_stage(bench.budget, "binary", 2, seed=0, device="cpu")
    plain = network_from(fitted, bench.networks, Settings(dropout=0.0))
    network, work = network_from(fitted, bench.networks, bench.settings), bench.work()
    before = predict(plain, work, np.arange(8))[0]
    np.testing.assert_allclose(predict(network, work, np.arange(8))[0], before, atol=1e-5)
    trainable = {name for name, one in network.named_parameters() if one.requires_grad and "backbones" in name}
    assert trainable
    assert all(name.endswith((".a", ".b")) and ("attn" in name or "mlp" in name) for name in trainable)
    n_blocks = len(list(bench.networks[0].get_submodule("blocks").children()))
    assert {name.split("blocks.")[1].split(".")[0] for name in trainable} == (
        {str(n_blocks - 1)} if last else {str(number) for number in range(n_blocks)}
    )
    run = Run(network, work, Part(np.arange(40), bench.budget.y), bench.candidate(1e-2), epochs=1)
    assert not any("original" in name for name in run.state())
    run.train_epoch(Kept(None, work))  # type: ignore[arg-type]  # too short for a checkpoint
    adapted = predict(network, work, np.arange(8))[0]
    assert np.abs(adapted - before).max() > 1e-3
    run.averaged = [one.detach().clone() for one in run.parameters]  # the computed values are those of the last step
    merged = run.finished()
    assert merged.state_dict().keys() == plain.state_dict().keys()
    np.testing.assert_allclose(predict(merged, work, np.arange(8))[0], adapted, atol=1e-4)
    changed = {name for name, value in merged.state_dict().items() if not torch.equal(value, plain.state_dict()[name])}
    assert all(name.startswith("head.") or name.endswith(".weight") for name in changed)


def adapted(cache: Path, folder: Path, model: str, *, fixed: bool = True) -> Any:
    cached = FuseRequest(
        cache,
        models=[model],
        fractions=[1.0],
        everything=True,
        device="cpu",
        save=folder / "model",
        scores=folder / "scores.sqlite",
    )
    settings = Settings(lora=2, learning_rates=(1e-2,), epochs=40, fixed=fixed)
    return run_unfrozen(FinetuneRequest(cached, settings, Machine(batch_size=8, workers=1)))


@pytest.mark.parametrize("share", [1.0, 0.5, 0.0])
def test_adapted_networks_are_saved_and_predict(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    monkeypatch.setattr("mt.fuse.end_to_end.choice.shares.SHARES", (share,))
    monkeypatch.setattr("mt.fuse.end_to_end.choice.shares.LEAST", share)
    adapted(cache, tmp_path, VIT, fixed=share == 1)
    with ScoreStore(tmp_path / "scores.sqlite") as store:
        (score,) = [one for one in store.scores() if one.method == "fine-tune, LoRA 2"]
        fit = store.fit(score.fit)
    assert fit.outcome["settings"]["share"] == share
    _, found = load_tuned(tmp_path / "model").predict_split(DATASET, "test", device="cpu")
    np.testing.assert_allclose(found[:, 1], fit.probabilities, atol=1e-6)


class Reading(nn.Linear):
    """Reads its weight in one of the ways in which networks do."""

    def __init__(self, way: Callable[[nn.Linear, Tensor], Tensor]) -> None:
        super().__init__(24, 16)
        self.way = way

    def forward(self, x: Tensor) -> Tensor:
        return self.way(self, x)


@pytest.mark.parametrize(
    "way",
    [
        nn.Linear.forward,
        lambda layer, x: functional.linear(input=x, weight=layer.weight, bias=layer.bias),
        lambda layer, x: x @ layer.weight.T + layer.bias,
        lambda layer, x: torch.addmm(layer.bias, x, layer.weight.t()),
        lambda layer, x: torch.stack([x @ row for row in layer.weight], dim=1) + layer.bias,
        lambda layer, x: functional.linear(x, torch.cat([layer.weight[:4], layer.weight[4:]]), layer.bias),
        lambda layer, x: functional.linear(x, torch.cat([layer.weight, layer.weight])[:16], layer.bias),
        lambda layer, x: functional.linear(layer.weight, x).T + layer.bias,
    ],
)
def test_adapters_take_part_however_a_layer_reads_its_weight(way: Callable[[nn.Linear, Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    layer, x = Reading(way), torch.randn(5, 24)
    layer.requires_grad_(False)
    weight = layer.weight.clone()
    adapt([BackboneBlock([layer])], 2, seed=0)
    a, b = (one for one in layer.parameters() if one.requires_grad)
    nn.init.normal_(b)
    found = layer(x)
    assert type(found) is Tensor
    assert layer.weight.shape == weight.shape
    torch.testing.assert_close(found, functional.linear(x, weight + b @ a, layer.bias))
    gradients = torch.autograd.grad(found.square().sum(), (a, b))
    expected = torch.autograd.grad(functional.linear(x, weight + b @ a, layer.bias).square().sum(), (a, b))
    torch.testing.assert_close(gradients, expected)
    merge(layer)
    torch.testing.assert_close(layer.weight, nn.Parameter(weight + b @ a, requires_grad=False))


def test_adapters_keep_no_copy_of_a_weight_for_the_backward_pass() -> None:
    layer = nn.Linear(24, 16).requires_grad_(False)
    adapt([BackboneBlock([layer])], 2, seed=0)
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        layer(torch.randn(5, 24, requires_grad=True))
    frozen = layer.get_parameter("parametrizations.weight.original")
    large = [one for one in kept if one.numel() == frozen.numel()]
    assert large
    assert all(one.data_ptr() == frozen.data_ptr() for one in large)


def test_torchs_own_attention_is_adapted_and_merged() -> None:
    def made() -> nn.Sequential:
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
        return nn.Sequential(OrderedDict(stem=nn.Linear(16, 16), layers=nn.Sequential(layer)))

    backbone = made()
    assert largest_rank(backbone) == 16
    tokens = torch.randn(3, 5, 16)
    before = backbone(tokens).detach()
    backbone.requires_grad_(False)
    adapt(blocks(backbone)[1:], 2, seed=0)
    trained = {name.split(".parametrizations.")[1] for name, one in backbone.named_parameters() if one.requires_grad}
    assert trained == {f"{name}.0.{part}" for name in ("in_proj_weight", "weight") for part in "ab"}
    assert sum(one.requires_grad for one in backbone.parameters()) == 2 * 4  # attention's two layers, the MLP's two
    torch.testing.assert_close(backbone(tokens), before)
    for step in range(2):  # B is zero at first, so A has no gradient
        torch.autograd.backward(backbone(tokens).square().sum())
        moved = [one for one in backbone.parameters() if one.grad is not None and one.grad.any()]
        assert len(moved) == 4 * (step + 1)
        with torch.no_grad():
            for one in moved:
                one.sub_(1e-2 * one.grad)  # type: ignore[operator]
    adapted = backbone(tokens).detach()
    assert not torch.allclose(adapted, before)
    merge(backbone)
    torch.testing.assert_close(backbone.eval()(tokens), adapted)
    assert backbone.state_dict().keys() == made().state_dict().keys()


def test_networks_without_attention_take_no_adapters(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"'{RESNET}' has no attention or MLP layers to adapt: --lora is for transf"):
        adapted(cache, tmp_path, RESNET)
