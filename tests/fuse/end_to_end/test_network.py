"""The network before and during training: its start from cached features, rates, frozen parts, recomputation."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from mt.backbones import load_backbone
from mt.errors import InputError
from mt.fuse.dvme.module import DVME
from mt.fuse.end_to_end.loop import Kept, Run
from mt.fuse.end_to_end.network import EndToEnd, Standardize, checkpoint_blocks, even_scale
from mt.fuse.end_to_end.request import Settings
from mt.fuse.end_to_end.trainable.blocks import blocks
from mt.fuse.end_to_end.trainable.families import CandidateRates, parameter_groups
from mt.fuse.end_to_end.trainable.limits import check_trainable
from mt.fuse.end_to_end.warm_start import cached_stage, network_from
from mt.fuse.end_to_end.work import Part, predict, smooth_loss
from tests.fuse.end_to_end.small import RESNET, VIT, Bench
from tests.fuse.gated import gated


def start(bench: Bench, **settings: object) -> Any:
    fitted = cached_stage(bench.budget, "binary", 2, seed=0, device="cpu")
    return fitted, network_from(fitted, bench.networks, Settings(dropout=0.0, **settings))  # type: ignore[arg-type]


@pytest.mark.parametrize("models", [(RESNET,), (VIT,), (RESNET, VIT)])
def test_warm_start_reproduces_the_cached_stage(cache: Path, models: tuple[str, ...]) -> None:
    bench = Bench(cache, *models)
    fitted, network = start(bench)
    logits, received = predict(network, bench.work(bench.joined.first.cases.ids), np.arange(20))
    expected, attention = fitted.predict(bench.joined.test)
    cached = np.log(expected / (1 - expected.astype(np.float64)))
    np.testing.assert_allclose(logits[:, 0], cached, atol=1e-3 * cached.std())
    np.testing.assert_allclose(received, attention, atol=1e-4)


@pytest.mark.parametrize("train_batch_norm", [False, True])
def test_batch_norms_keep_their_statistics_unless_asked(cache: Path, train_batch_norm: bool) -> None:
    bench = Bench(cache, RESNET, settings=Settings(batch=8, learning_rates=(1e-3,)))
    _, network = start(bench, train_batch_norm=train_batch_norm)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    before = [norm.get_buffer("running_mean").clone() for norm in norms]
    weights = [norm.weight.detach().clone() for norm in norms]
    run = Run(network, bench.work(), Part(np.arange(40), bench.budget.y), bench.candidate(1e-3), epochs=1)
    run.train_epoch(Kept(None, run.work))  # type: ignore[arg-type]  # too short for a checkpoint
    after = [norm.get_buffer("running_mean") for norm in norms]
    moved = [not torch.equal(mean, old) for mean, old in zip(after, before, strict=True)]
    assert all(moved) if train_batch_norm else not any(moved)
    assert any(not torch.equal(norm.weight, weight) for norm, weight in zip(norms, weights, strict=True))


@pytest.mark.parametrize("model", [RESNET, VIT])
def test_unfreeze_last_trains_the_last_blocks_alone(cache: Path, model: str) -> None:
    bench = Bench(cache, model)
    _, network = start(bench, last=2)
    parts = blocks(network.backbones[0])
    before = [[p.detach().clone() for p in part.parameters] for part in parts]
    run = Run(network, bench.work(), Part(np.arange(40), bench.budget.y), bench.candidate(1e-3), epochs=1)
    run.train_epoch(Kept(None, run.work))  # type: ignore[arg-type]  # too short for a checkpoint
    changed = [
        any(not torch.equal(a, b) for a, b in zip(old, part.parameters, strict=True))
        for old, part in zip(before, parts, strict=True)
    ]
    assert changed == [False] * (len(parts) - 2) + [True] * 2
    assert not any(module.training for part in parts[:-2] for one in part.modules for module in one.modules())


def test_a_network_without_known_blocks_is_trained_whole_or_refused() -> None:
    backbone = SimpleNamespace(name="one", model=nn.Sequential(nn.Linear(4, 4)))
    check_trainable([backbone], Settings())  # type: ignore[list-item]
    with pytest.raises(InputError, match=r"the blocks of 'one' are not known here. Train all of it: --unfreeze"):
        check_trainable([backbone], Settings(last=1))  # type: ignore[list-item]


def test_weights_that_blocks_share_belong_to_the_first() -> None:
    shared = nn.Linear(4, 4)
    backbone = nn.Sequential(*(nn.Sequential(nn.ReLU(), nn.Sequential(nn.Linear(4, 4), shared)) for _ in range(3)))
    parts = blocks(backbone)
    assert [len(part.parameters) for part in parts] == [4, 2, 2]
    rates = CandidateRates(1e-3, (1e-3,), (0.5,))
    groups = parameter_groups([backbone], [], rates, weight_decay=0.01)
    torch.optim.AdamW([{"params": group["params"]} for group in groups])
    assert sum(len(group["params"]) for group in groups) == len(list(backbone.parameters())) == 8


@pytest.mark.parametrize("name", [RESNET, VIT, "dino", "supervised", "efficientnet-lite0", "timm:convnext_atto"])
def test_blocks_hold_every_parameter_once_in_order(name: str) -> None:
    backbone = load_backbone(name, "random").model
    parts = blocks(backbone)
    held = [id(parameter) for part in parts for parameter in part.parameters]
    assert sorted(held) == sorted(id(parameter) for parameter in backbone.parameters())
    expected = {"dino": 1 + 12, "supervised": 1 + 16, RESNET: 1 + 4, "efficientnet-lite0": 1 + 16}
    assert len(parts) == expected.get(name, len(parts)) > 4


def test_rates_fall_towards_the_images_and_vectors_do_not_decay(cache: Path) -> None:
    _, network = start(Bench(cache, RESNET, VIT))
    rates, heads = CandidateRates(1.0, (0.5, 0.25), (0.5, 1.0)), (network.head, network.own)
    groups = parameter_groups(network.backbones, heads, rates, weight_decay=0.01)
    rate = {id(p): group["rate"] for group in groups for p in group["params"]}
    assert len(rate) == sum(len(group["params"]) for group in groups) == len(list(network.parameters()))
    for backbone, last, decay in zip(network.backbones, (0.5, 0.25), (0.5, 1.0), strict=True):
        found = [{rate[id(p)] for p in part.parameters} for part in blocks(backbone)]
        assert found == [{last * decay ** (len(found) - 1 - depth)} for depth in range(len(found))]
    assert {rate[id(p)] for p in network.head.parameters()} == {1.0}
    assert all((p.ndim > 1) == (group["weight_decay"] > 0) for group in groups for p in group["params"])


def test_gradient_checkpointing_computes_blocks_again_to_the_same_gradients(cache: Path) -> None:
    bench = Bench(cache, RESNET, VIT)
    work = bench.work()
    found = []
    for again in (False, True):
        _, network = start(bench)
        calls: list[object] = []
        if again:
            network.backbones[1].blocks[0].register_forward_hook(lambda module, *_, to=calls: to.append(module))
            network.backbones[1].blocks[0].attn.register_forward_hook(lambda module, *_, to=calls: to.append(module))
            checkpoint_blocks(network)
        network.train()(work.inputs(work.images.pixels(np.arange(4)), None)).square().sum().backward()
        found.append([p.grad.clone() for p in network.parameters()])
        assert len(calls) == (3 if again else 0)  # the block once, what is inside it twice
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_batch_norms_count_a_batch_once_though_blocks_are_computed_twice(cache: Path) -> None:
    bench = Bench(cache, RESNET)
    work, found = bench.work(), []
    for again in (False, True):
        _, network = start(bench, train_batch_norm=True)
        if again:
            checkpoint_blocks(network)
        network.train()(work.inputs(work.images.pixels(np.arange(8)), None)).square().sum().backward()
        found.append(dict(network.named_buffers()))
    assert any("running_mean" in name for name in found[0])
    for name, buffer in found[0].items():
        torch.testing.assert_close(found[1][name], buffer, msg=name)


def test_images_and_weights_are_channels_last(cache: Path) -> None:
    bench = Bench(cache, RESNET)
    _, network = start(bench)
    convs = [module.weight for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in convs)
    work = bench.work(augment="mild")
    moves = work.augmentation.draw(0, 0, [0, 1])
    (images,) = work.inputs(work.images.pixels(np.arange(2)), moves)
    assert images.is_contiguous(memory_format=torch.channels_last)


def test_training_begins_from_a_last_layer_at_zero_and_every_backbone_learns_for_itself(cache: Path) -> None:
    bench = Bench(cache, RESNET, VIT)
    _, network = start(bench)
    work = bench.work()
    images = work.inputs(work.images.pixels(np.arange(8)), None)
    network.begin([2.0, 3.0])
    assert [float(one.scale.min()) for one in network.scalings] == [2.0, 3.0]
    assert [float(one.scale.max()) for one in network.scalings] == [2.0, 3.0]
    together, *own = network.train().every_logits(images)
    assert len(own) == 2
    for logits in (together, *own):
        torch.testing.assert_close(logits, network.head.output.bias.detach().expand_as(logits))
    for head in network.own:
        torch.nn.init.ones_(head.output.weight)
    total = torch.stack([logits.square().sum() for logits in network.every_logits(images)[1:]]).sum()
    torch.autograd.backward(total)
    assert all(any(p.grad is not None for p in backbone.parameters()) for backbone in network.backbones)
    assert network.head.output.weight.grad is None  # their losses are not that of all together


def test_dvme_and_the_mean_of_the_heads_of_its_models_predict_by_halves(cache: Path) -> None:
    bench = Bench(cache, RESNET, VIT)
    _, network = start(bench)
    work = bench.work()
    images = work.inputs(work.images.pixels(np.arange(8)), None)
    alone = network.eval()(images).detach()
    network.begin([2.0, 3.0])
    with torch.no_grad():
        for parameter in [*network.head.parameters(), *network.own.parameters()]:
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
        together, one, other = network.eval().every_logits(images)
        logits = network(images)
    assert (one - other).abs().max() > 1e-2
    torch.testing.assert_close(logits, together / 2 + one / 4 + other / 4)
    assert (logits - alone).abs().max() > 1e-2


def test_the_heads_of_the_models_do_not_hide_what_attention_learns() -> None:
    embeddings, labels, _ = gated(1400)
    X, y = [torch.from_numpy(one) for one in embeddings], torch.from_numpy(labels)
    scalings = [Standardize(torch.zeros(16), torch.ones(16), 50.0) for _ in X]
    torch.manual_seed(0)
    network = EndToEnd([nn.Linear(16, 16), nn.Linear(16, 16)], scalings, DVME((16, 16), 1, width=64)).train()
    network.begin([0.5, 0.5])
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    for _ in range(40):
        for rows in torch.split(torch.randperm(400), 32):
            optimizer.zero_grad()
            logits = network.every_logits([one[rows] for one in X])
            together, *own = (smooth_loss(one, y[rows], "binary", 0.1).mean() for one in logits)
            torch.autograd.backward(together + torch.stack(own).mean())
            optimizer.step()
    network.eval()
    test, truth = [one[400:] for one in X], labels[400:]
    with torch.no_grad():
        dvme, *own = network.every_logits(test)
        found = [roc_auc_score(truth, one) for one in (dvme, torch.stack(own).mean(dim=0), network(test))]
    assert found[2] > found[0] - 0.01
    assert found[2] > found[1] + 0.1  # a mean of linear heads cannot follow the gate


@pytest.mark.parametrize("model", [RESNET, VIT])
def test_one_model_has_no_head_beside_its_own(cache: Path, model: str) -> None:
    bench = Bench(cache, model)
    _, network = start(bench)
    network.begin([1.0])
    work = bench.work()
    assert len(network.every_logits(work.inputs(work.images.pixels(np.arange(8)), None))) == 1


def test_training_divides_embeddings_by_one_number_whatever_columns_are_quiet_or_constant() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(3.0, 1.0, (500, 40)) * np.geomspace(1e-3, 1.0, 40)
    X[:, ::4] = 7.0
    centred = X - X.mean(axis=0)
    scale = even_scale(X, X.mean(axis=0))
    assert np.sqrt(np.square(centred / scale).sum(axis=1).mean()) == pytest.approx(6.0)
    wider = np.hstack([X, np.full((500, 1000), 5.0)])
    assert even_scale(wider, wider.mean(axis=0)) == pytest.approx(scale)
    assert even_scale(np.ones((5, 3)), np.ones(3)) == 1.0  # nothing to divide
