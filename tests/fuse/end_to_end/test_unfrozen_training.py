"""The loop and the choice: accumulation, precision, a loss that is no number, a full memory, the budget rule."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from mt.errors import FitError, InputError, MtError
from mt.fuse.end_to_end.checkpoint import Checkpoints
from mt.fuse.end_to_end.fit import HELD, Fitter, held_out
from mt.fuse.end_to_end.images import Images
from mt.fuse.end_to_end.loop import Kept, Run
from mt.fuse.end_to_end.request import Machine, Settings
from mt.fuse.end_to_end.warm_start import cached_stage, network_from
from mt.fuse.end_to_end.work import Part, batches, memory_advice, predict
from mt.types import LabelledRows
from tests.fuse.end_to_end.small import RESNET, VIT, Bench


def trained(bench: Bench, folder, *, lr: float = 1e-3, epochs: int = 2, **changes: object) -> Run:
    settings = replace(bench.settings, **changes)  # type: ignore[arg-type]
    work = replace(bench.work(), settings=settings)
    network = network_from(cached_stage(bench.budget, "binary", 2, seed=0, device="cpu"), bench.networks, settings)
    run = Run(network, work, Part(np.arange(40), bench.budget.y), lr=lr, epochs=epochs)
    for _ in range(epochs):
        run.train_epoch(Kept(Checkpoints(folder), work))
    return run


def test_training_lowers_the_loss_and_moves_backbones(cache, tmp_path):
    bench = Bench(cache, RESNET)
    run = trained(bench, tmp_path, epochs=30)
    before = network_from(cached_stage(bench.budget, "binary", 2, seed=0, device="cpu"), bench.networks, bench.settings)
    y = torch.from_numpy(bench.budget.y).double()
    losses = [
        torch.nn.functional.binary_cross_entropy_with_logits(
            torch.from_numpy(predict(network, run.work, np.arange(40))[0][:, 0]), y
        )
        for network in (before, run.network)
    ]
    assert losses[1] < 0.9 * losses[0]
    stem = [network.backbones[0].conv1[0].weight for network in (before, run.network)]
    assert not torch.equal(*stem)


def test_tf32_is_off_while_networks_train_and_predict(cache, tmp_path):
    bench, seen = Bench(cache, RESNET), []
    assert torch.backends.cudnn.allow_tf32, "torch's own setting, which a run must not rely on"
    last = bench.networks[0].layer4
    for hook in (last.register_forward_hook, last.register_full_backward_hook):
        hook(lambda *_: seen.append(torch.backends.cudnn.allow_tf32))
    run = trained(bench, tmp_path, epochs=1)
    predict(run.network, run.work, np.arange(8))
    assert len(seen) == 5 + 5 + 1
    assert not any(seen)
    assert torch.backends.cudnn.allow_tf32


def test_accumulated_parts_make_the_same_steps(cache, tmp_path):
    whole = trained(Bench(cache, RESNET, VIT, batch_size=8), tmp_path)
    parts = trained(Bench(cache, RESNET, VIT, batch_size=3), tmp_path)  # 8 = 3 + 3 + 2
    assert parts.step == whole.step == 10
    rows = np.arange(40)
    found = [predict(run.network, run.work, rows)[0] for run in (whole, parts)]
    np.testing.assert_allclose(*found, atol=1e-3)
    apart = trained(Bench(cache, RESNET, VIT), tmp_path, batch=4)
    assert np.abs(predict(apart.network, apart.work, rows)[0] - found[0]).max() > 1e-2


def test_every_epoch_sees_every_sample_once_in_a_new_order():
    first, second = (np.concatenate(batches(50, 16, seed=1, epoch=epoch)) for epoch in (0, 1))
    np.testing.assert_array_equal(np.sort(first), np.arange(50))
    assert not np.array_equal(first, second)
    assert [len(batch) for batch in batches(50, 16, seed=1, epoch=0)] == [13, 13, 12, 12]


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_low_precision_trains(cache, tmp_path, precision):
    run = trained(Bench(cache, RESNET, VIT), tmp_path, precision=precision)
    assert all(parameter.dtype == torch.float32 for parameter in run.parameters)
    assert np.isfinite(predict(run.network, run.work, np.arange(40))[0]).all()


def test_a_loss_that_is_no_number_names_the_batch_and_the_last_good_checkpoint(cache, tmp_path):
    bench = Bench(cache, RESNET, checkpoint_every=1)
    with pytest.raises(FitError, match="not a number at epoch 1, step ") as caught:
        trained(bench, tmp_path, lr=1e30)
    last = Checkpoints(tmp_path).last
    assert f"The last good checkpoint is {last}" in str(caught.value)
    found = Checkpoints(tmp_path).read()
    assert found is not None
    step = found.facts["position"]["step"]
    ids = bench.joined.first.pool.ids
    batch = batches(40, 8, seed=0, epoch=0)[step]
    assert f"on the images {', '.join(ids[row] for row in batch)}." in str(caught.value)


def test_a_gradient_that_is_no_number_stops_before_it_reaches_the_weights(cache, tmp_path):
    bench = Bench(cache, RESNET, checkpoint_every=1)
    work = bench.work()
    start = cached_stage(bench.budget, "binary", 2, seed=0, device="cpu")
    network = network_from(start, bench.networks, bench.settings)
    run = Run(network, work, Part(np.arange(40), bench.budget.y), lr=1e-4, epochs=1)
    weight = run.parameters[0]
    weight.register_hook(lambda gradient: torch.full_like(gradient, torch.nan) if run.step == 2 else gradient)
    with pytest.raises(FitError, match=r"The gradient is not a number at epoch 1, step 3, on the images .*checkpoint"):
        run.train_epoch(Kept(Checkpoints(tmp_path), work))
    assert all(torch.isfinite(parameter).all() for parameter in run.parameters)


def test_a_held_out_loss_that_is_no_number_leaves_the_last_good_checkpoint(cache, tmp_path, monkeypatch):
    bench = Bench(cache, RESNET)

    def nowhere(network, work, rows):
        logits, attention = predict(network, work, rows)
        return np.where(broken, np.nan, logits), attention

    broken = False
    monkeypatch.setattr("mt.fuse.end_to_end.fit.predict", nowhere)
    real = Run.train_epoch

    def train(run, kept):
        nonlocal broken
        real(run, kept)
        broken = run.epoch == 2

    monkeypatch.setattr(Run, "train_epoch", train)
    with pytest.raises(FitError, match="The held-out loss is not a number after epoch 2, on the images ") as caught:
        fitted(bench, bench.budget.y, tmp_path)
    found = Checkpoints(tmp_path).read()
    assert found is not None
    assert found.facts["position"]["epoch"] == 1
    assert str(Checkpoints(tmp_path).last) in str(caught.value)


def test_a_run_in_float16_goes_on_with_its_scaler(cache, tmp_path):
    bench = Bench(cache, RESNET, settings=Settings(batch=8, dropout=0.3, precision="float16"), checkpoint_every=2)
    start, work = cached_stage(bench.budget, "binary", 2, seed=0, device="cpu"), bench.work()

    def begun() -> Run:
        network = network_from(start, bench.networks, bench.settings)
        return Run(network, work, Part(np.arange(40), bench.budget.y), lr=1e-3, epochs=1)

    whole, kept = begun(), Kept(Checkpoints(tmp_path), work)
    whole.scaler.load_state_dict({**whole.scaler.state_dict(), "scale": 2.0**11, "growth_interval": 3})  # grows once
    whole.train_epoch(kept)
    assert whole.scaler.get_scale() == 2.0**12
    found = kept.read()
    assert found is not None
    resumed = begun()
    kept.restore(resumed, found)
    assert (resumed.step, resumed.scaler.get_scale()) == (4, 2.0**12)
    resumed.train_epoch(Kept(Checkpoints(tmp_path / "again"), work))
    assert resumed.scaler.state_dict() == whole.scaler.state_dict()
    for one, other in zip(whole.parameters, resumed.parameters, strict=True):
        assert torch.equal(one, other)


def test_a_full_memory_says_what_needs_less(cache, tmp_path, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("mt.fuse.end_to_end.network.EndToEnd.forward", full)
    with pytest.raises(MtError, match=r"--batch-size 4 --accumulate 2 \(the same steps\), or --checkpoint-grad"):
        trained(Bench(cache, RESNET), tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr(torch.optim.AdamW, "step", full)  # the optimizer's moments take memory at the first step
    with pytest.raises(MtError, match="--batch-size 4 --accumulate 2"):
        trained(Bench(cache, RESNET), tmp_path)
    inuse = memory_advice(Settings(last=4), Machine(batch_size=1, checkpoint_grad=True), torch.device("cuda"))
    assert "Use less: --precision bfloat16, or --unfreeze-last 2. " in inuse


def test_the_fifth_is_stratified_and_splits_no_group():
    groups = np.arange(200) // 4
    y = (groups % 4 == 0).astype(np.int64)
    budget = LabelledRows((np.zeros((200, 2)),), y, groups)
    work: Any = SimpleNamespace(task="binary", n_classes=2, seed=0)
    fit, held = held_out(budget, work)
    assert not set(groups[fit]) & set(groups[held])
    assert sorted([*fit, *held]) == list(range(200))
    assert len(held) == pytest.approx(HELD * 200, abs=4)
    assert y[held].mean() == pytest.approx(y.mean(), abs=0.05)
    assert held_out(budget.take(np.flatnonzero(y == 0)), work) is None


def fitted(bench: Bench, y: np.ndarray, folder) -> tuple[list[list[float]], int, Fitter]:
    work = replace(bench.work(), settings=replace(bench.settings, learning_rates=(1e-3, 1e-4), epochs=2))
    fitter = Fitter(replace(bench.budget, y=y), bench.networks, work, Kept(Checkpoints(folder), work))
    found = fitter.fit()
    return list(found.selection["epochs"].values()), found.settings["epochs"], fitter


def test_rate_and_epochs_have_the_lowest_held_out_loss_and_the_refit_uses_all(cache, tmp_path, monkeypatch):
    sizes = []
    monkeypatch.setattr(Run, "train_epoch", lambda run, kept, real=Run.train_epoch: (
        sizes.append((run.lr, len(run.part.rows))), real(run, kept)))  # fmt: skip
    histories, epochs, _ = fitted(Bench(cache, RESNET), Bench(cache, RESNET).budget.y, tmp_path)
    assert [len(history) for history in histories] == [3, 3]
    lr = (1e-3, 1e-4)[int(np.argmin([min(history) for history in histories]))]
    assert epochs == int(np.argmin(min(histories, key=min)))
    assert sizes == [(1e-3, 32)] * 2 + [(1e-4, 32)] * 2 + [(lr, 40)] * epochs


def test_held_out_labels_change_nothing_but_the_choice(cache, tmp_path, monkeypatch):
    bench = Bench(cache, RESNET)
    _, held = held_out(bench.budget, bench.work())
    turned = bench.budget.y.copy()
    turned[held] = turned[held][::-1]
    assert not np.array_equal(turned, bench.budget.y)
    kept: list[list[torch.Tensor]] = []
    monkeypatch.setattr(Fitter, "_held_out_loss", lambda self, run, held: float(
        kept[-1].append(run.network.head.linear.weight.detach().clone()) or len(kept[-1])))  # fmt: skip
    monkeypatch.setattr("mt.fuse.end_to_end.fit.held_out", lambda budget, work: held_out(bench.budget, work))
    for number, y in enumerate((bench.budget.y, turned)):
        kept.append([])
        fitted(bench, y, tmp_path / str(number))
    for one, other in zip(*kept, strict=True):
        assert torch.equal(one, other)


def test_a_budget_of_one_class_trains_nothing_and_one_without_a_fifth_keeps_to_the_schedule(cache, tmp_path):
    bench = Bench(cache, RESNET, VIT)
    work = replace(bench.work(), settings=replace(bench.settings, epochs=1))
    alone = replace(bench.budget, y=np.zeros(40, np.int64))
    none = Fitter(alone, bench.networks, work, Kept(Checkpoints(tmp_path / "0"), work)).fit()
    assert (none.network, none.flags, none.settings["epochs"]) == (None, ("one_class",), 0)
    few = bench.budget.take(np.array([np.argmin(bench.budget.y), np.argmax(bench.budget.y)]))
    kept = Fitter(few, bench.networks, work, Kept(Checkpoints(tmp_path / "1"), work)).fit()
    assert "fixed_schedule" in kept.flags
    assert (kept.settings["epochs"], kept.settings["lr"], kept.selection) == (1, 1e-4, {})


def test_images_are_kept_up_to_the_memory_given_and_are_those_of_the_ids(cache):
    bench = Bench(cache, RESNET)
    ids = list(bench.joined.first.pool.ids)
    recipes = [bench.backbones[0].preprocess] * 2
    kept, fresh = (Images(bench.dataset, ids[::-1], recipes, memory=memory) for memory in (1 << 20, 0))
    expected = recipes[0].geometry(bench.dataset.splits["train"].images.load(39, 40)[0])
    for images in (kept, fresh, kept):
        one, other = images.pixels(np.array([0, 5]))
        np.testing.assert_array_equal(one[0], expected)
        np.testing.assert_array_equal(one, other)
        one[:] = 0  # a caller's changes stay the caller's
        assert other.any()
    with pytest.raises(InputError, match="1 of 2 cases of the cached features are not in 'synthetic@40'"):
        Images(bench.dataset, [ids[0], "elsewhere"], recipes)
