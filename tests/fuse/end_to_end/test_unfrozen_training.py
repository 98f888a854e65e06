"""The training loop: accumulation, averaged weights, precision, a loss that is not a number, a full memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mt.errors import FitError, InputError, MtError
from mt.fuse.end_to_end.checkpoint import Checkpoints
from mt.fuse.end_to_end.choice.fit import Fitter
from mt.fuse.end_to_end.images import Images
from mt.fuse.end_to_end.loop import Kept, Run
from mt.fuse.end_to_end.request import Machine, Settings
from mt.fuse.end_to_end.warm_start import cached_stage, network_from
from mt.fuse.end_to_end.work import Part, batches, dropout, memory_advice, predict, smooth_loss
from tests.featurize.extracting import pictures
from tests.fuse.end_to_end.small import RESNET, VIT, Bench
from tests.noting import noted


def trained(bench: Bench, folder: Path, *, lr: float = 1e-3, epochs: int = 2, **changes: object) -> Run:
    settings = replace(bench.settings, **changes)  # type: ignore[arg-type]
    work = replace(bench.work(), settings=settings)
    network = network_from(cached_stage(bench.budget, "binary", 2, seed=0, device="cpu"), bench.networks, settings)
    run = Run(network, work, Part(np.arange(40), bench.budget.y), bench.candidate(lr), epochs=epochs)
    for _ in range(epochs):
        run.train_epoch(Kept(Checkpoints(folder), work))
    run.finished()
    return run


def test_training_lowers_the_loss_and_moves_backbones(cache: Path, tmp_path: Path) -> None:
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
    old, new = (network.backbones[0].get_parameter("conv1.0.weight") for network in (before, run.network))
    assert not torch.equal(old, new)


def test_the_loss_of_several_models_is_that_of_all_together_plus_the_mean_of_their_own(cache: Path) -> None:
    bench = Bench(cache, RESNET, VIT, settings=Settings(batch=8, label_smoothing=0.2))
    start, work = cached_stage(bench.budget, "binary", 2, seed=0, device="cpu"), bench.work()
    network = network_from(start, bench.networks, bench.settings)
    run = Run(network, work, Part(np.arange(40), bench.budget.y), bench.candidate(1e-3), epochs=1)
    together, one, other = (torch.randn(4, 1, generator=torch.Generator().manual_seed(seed)) for seed in range(3))
    y = torch.tensor([0, 1, 1, 0])
    parts = [
        torch.nn.functional.binary_cross_entropy_with_logits(z[:, 0], 0.8 * y + 0.1, reduction="sum")
        for z in (together, one, other)
    ]
    torch.testing.assert_close(run._loss([together, one, other], y), parts[0] + (parts[1] + parts[2]) / 2)
    torch.testing.assert_close(run._loss([together], y), parts[0])


def test_the_weights_at_the_end_are_the_mean_of_the_last_steps(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []
    watched = noted(Run._average, lambda self: seen.append(self.parameters[0].detach().clone()))
    monkeypatch.setattr(Run, "_average", watched)
    run = trained(Bench(cache, RESNET), tmp_path, epochs=2)  # ten steps, of which the last two are averaged
    torch.testing.assert_close(run.parameters[0].data, (seen[-1] + seen[-2]) / 2)
    assert not torch.equal(run.parameters[0].data, seen[-1])


@pytest.mark.parametrize(
    ("task", "logits", "y"),
    [
        ("binary", [[0.3], [-2.0]], [1, 0]),
        ("multiclass", [[0.3, 1.0, -1.0], [2.0, 0.0, 0.5]], [1, 2]),
        ("multilabel", [[0.3, 1.0], [2.0, -0.5]], [[1, 0], [-1, 1]]),
    ],
)
def test_smoothed_labels_are_those_of_torch(task: str, logits: list[Any], y: list[Any]) -> None:
    z, labels = torch.tensor(logits), torch.tensor(y)
    found = smooth_loss(z, labels, task, 0.2)
    if task == "multilabel":
        each = torch.nn.functional.binary_cross_entropy_with_logits(z, labels * 0.8 + 0.1, reduction="none")
        expected = torch.stack([each[0].mean(), each[1, 1]])  # -1 is not known
    else:
        several = torch.cat([torch.zeros_like(z), z], dim=1) if task == "binary" else z
        expected = torch.nn.functional.cross_entropy(several, labels, label_smoothing=0.2, reduction="none")
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found, smooth_loss(z, labels, task, 0.0))


def test_tf32_is_off_while_networks_train_and_predict(cache: Path, tmp_path: Path) -> None:
    bench = Bench(cache, RESNET)
    seen: list[bool] = []
    assert torch.backends.cudnn.allow_tf32, "torch's own setting, which a run must not rely on"
    last = bench.networks[0].get_submodule("layer4")
    for hook in (last.register_forward_hook, last.register_full_backward_hook):
        hook(lambda *_: seen.append(torch.backends.cudnn.allow_tf32))
    run = trained(bench, tmp_path, epochs=1)
    predict(run.network, run.work, np.arange(8))
    assert len(seen) == 5 + 5 + 1
    assert not any(seen)
    assert torch.backends.cudnn.allow_tf32


def test_accumulated_parts_make_the_same_steps(cache: Path, tmp_path: Path) -> None:
    rows, dropout = np.arange(40), Settings.dropout
    assert dropout > 0

    def logits(batch_size: int, **changes: object) -> np.ndarray:
        bench = Bench(cache, RESNET, VIT, batch_size=batch_size)
        for network in bench.networks:  # the dropout of backbones' own stays off
            network.register_forward_hook(lambda module, _, x: F.dropout(x, 0.5, module.training))
        run = trained(bench, tmp_path, **{"dropout": dropout, **changes})  # type: ignore[arg-type]
        assert run.step == 2 * -(-40 // run.work.settings.batch)
        return predict(run.network, run.work, rows)[0]

    whole, parts = logits(8), logits(3)  # 8 = 3 + 3 + 2
    np.testing.assert_allclose(parts, whole, atol=1e-3)
    for changed in ({"batch": 4}, {"dropout": 0.0}, {"label_smoothing": 0.0}):
        assert np.abs(logits(8, **changed) - whole).max() > 3e-3


def test_dropout_depends_on_seed_epoch_and_sample_alone() -> None:
    def drawn(*samples: int, seed: int = 0, epoch: int = 0) -> list[np.ndarray]:
        return dropout([400, 600], 0.25, seed=seed, epoch=epoch, samples=np.array(samples))

    together = drawn(3, 7, 5)
    assert [one.shape for one in together] == [(3, 400), (3, 600)]
    for one, alone in zip(together, drawn(7), strict=True):
        np.testing.assert_array_equal(one[1:2], alone)
        np.testing.assert_allclose(np.unique(one), [0, 1 / 0.75])
        assert one.mean() == pytest.approx(1, abs=0.1)
    for other in (drawn(7, seed=1), drawn(7, epoch=1), drawn(8)):
        assert not np.array_equal(together[0][1], other[0][0])
    assert not np.array_equal(together[0][:, :100], together[1][:, :100])  # each head drops others
    assert dropout([4], 0.0, seed=0, epoch=0, samples=np.arange(2)) == []


def test_the_time_that_is_foretold_is_that_of_whole_steps(cache: Path) -> None:
    bench = Bench(cache, RESNET, VIT)
    fitted = cached_stage(bench.budget, "binary", 2, seed=0, device="cpu")
    network = network_from(fitted, bench.networks, bench.settings)
    run = Run(network, bench.work(), Part(np.arange(40), bench.budget.y), bench.candidate(1e-3), epochs=1)
    steps: list[object] = []
    run.optimizer.register_step_post_hook(lambda *_: steps.append(1))
    assert run.images_per_second() > 0
    assert len(steps) == 2


def test_every_epoch_sees_every_sample_once_in_a_new_order() -> None:
    first, second = (np.concatenate(batches(50, 16, seed=1, epoch=epoch)) for epoch in (0, 1))
    np.testing.assert_array_equal(np.sort(first), np.arange(50))
    assert not np.array_equal(first, second)
    assert [len(batch) for batch in batches(50, 16, seed=1, epoch=0)] == [13, 13, 12, 12]


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize(("models", "lora"), [((RESNET, VIT), None), ((VIT,), 2)])
def test_low_precision_trains(
    cache: Path, tmp_path: Path, precision: str, models: tuple[str, ...], lora: int | None
) -> None:
    run = trained(Bench(cache, *models), tmp_path, precision=precision, lora=lora)
    assert all(parameter.dtype == torch.float32 for parameter in run.parameters)
    assert np.isfinite(predict(run.network, run.work, np.arange(40))[0]).all()


def test_a_loss_that_is_no_number_names_the_batch_and_the_last_good_checkpoint(cache: Path, tmp_path: Path) -> None:
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


def test_a_gradient_that_is_no_number_stops_before_it_reaches_the_weights(cache: Path, tmp_path: Path) -> None:
    bench = Bench(cache, RESNET, checkpoint_every=1)
    work = bench.work()
    start = cached_stage(bench.budget, "binary", 2, seed=0, device="cpu")
    network = network_from(start, bench.networks, bench.settings)
    run = Run(network, work, Part(np.arange(40), bench.budget.y), bench.candidate(1e-4), epochs=1)
    weight = run.parameters[0]
    weight.register_hook(lambda gradient: torch.full_like(gradient, torch.nan) if run.step == 2 else gradient)
    with pytest.raises(FitError, match=r"The gradient is not a number at epoch 1, step 3, on the images .*checkpoint"):
        run.train_epoch(Kept(Checkpoints(tmp_path), work))
    assert all(torch.isfinite(parameter).all() for parameter in run.parameters)


def test_a_run_in_float16_goes_on_with_its_scaler(cache: Path, tmp_path: Path) -> None:
    bench = Bench(cache, RESNET, settings=Settings(batch=8, dropout=0.3, precision="float16"), checkpoint_every=2)
    start, work = cached_stage(bench.budget, "binary", 2, seed=0, device="cpu"), bench.work()

    def begun() -> Run:
        network = network_from(start, bench.networks, bench.settings)
        return Run(network, work, Part(np.arange(40), bench.budget.y), bench.candidate(1e-3), epochs=1)

    whole, kept = begun(), Kept(Checkpoints(tmp_path), work)
    whole.scaler.load_state_dict({**whole.scaler.state_dict(), "scale": 2.0**11, "growth_interval": 3})  # grows once
    whole.train_epoch(kept)
    assert whole.scaler.get_scale() == 2.0**12
    found = kept.files.read()
    assert found is not None
    resumed = begun()
    resumed.restore(found.tensors, found.facts["position"])
    assert (resumed.step, resumed.scaler.get_scale()) == (4, 2.0**12)
    resumed.train_epoch(Kept(Checkpoints(tmp_path / "again"), work))
    assert resumed.scaler.state_dict() == whole.scaler.state_dict()
    for one, other in zip(whole.parameters, resumed.parameters, strict=True):
        assert torch.equal(one, other)


def test_a_full_memory_says_what_needs_less(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("mt.fuse.end_to_end.network.EndToEnd.every_logits", full)
    with pytest.raises(MtError, match=r"--batch-size 4 --accumulate 2 \(the same steps\), or --checkpoint-grad"):
        trained(Bench(cache, RESNET), tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr(torch.optim.AdamW, "step", full)  # the optimizer's moments take memory at the first step
    with pytest.raises(MtError, match="--batch-size 4 --accumulate 2"):
        trained(Bench(cache, RESNET), tmp_path)
    bench = Bench(cache, RESNET)
    with pytest.raises(MtError, match="--batch-size 4 --accumulate 2"):  # a fit's first step of all is that timed
        Fitter(bench.budget, bench.networks, bench.work(), Kept(Checkpoints(tmp_path), bench.work())).fit()
    inuse = memory_advice(
        Settings(last=4, precision="float32"), Machine(batch_size=1, checkpoint_grad=True), torch.device("cuda")
    )
    assert "Use less: --precision bfloat16, or --unfreeze-last 2. " in inuse
    least = memory_advice(Settings(last=1), Machine(batch_size=1, checkpoint_grad=True), torch.device("cpu"))
    assert least.endswith("Nothing is left that needs less of it: take a smaller backbone, see: mt models")
    learned = memory_advice(Settings(train_batch_norm=True), Machine(batch_size=8), torch.device("cpu"))
    assert "Use less: --batch-size 4, or --checkpoint-grad" in learned  # parts have statistics of their own


def test_images_are_kept_up_to_the_memory_given_and_are_those_of_the_ids(cache: Path) -> None:
    bench = Bench(cache, RESNET)
    ids = list(bench.joined.first.pool.ids)
    recipes = [bench.backbones[0].preprocess] * 2
    kept, fresh = (Images(bench.dataset, ids[::-1], recipes, memory=memory) for memory in (1 << 20, 0))
    expected = recipes[0].geometry(pictures(bench.dataset.splits["train"])[39])
    for images in (kept, fresh, kept):
        one, other = images.pixels(np.array([0, 5]))
        np.testing.assert_array_equal(one[0], expected)
        np.testing.assert_array_equal(one, other)
        one[:] = 0  # a caller's changes stay the caller's
        assert other.any()
    with pytest.raises(InputError, match="1 of 2 cases of the cached features are not in 'synthetic@40'"):
        Images(bench.dataset, [ids[0], "elsewhere"], recipes)
