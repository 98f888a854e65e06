"""Choices inside a budget: fifths, schedule, race, share of the trained network, temperature, and what they cost."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mt.errors import FitError, InputError
from mt.fuse.dvme.fit import fit_dvme
from mt.fuse.end_to_end.blended import Blended, StartBlend
from mt.fuse.end_to_end.checkpoint import Checkpoints
from mt.fuse.end_to_end.choice.fit import Fitter, TunedFit, _Done
from mt.fuse.end_to_end.choice.held_out import ENOUGH, held_out
from mt.fuse.end_to_end.choice.planning import Effort, plan_for
from mt.fuse.end_to_end.choice.schedule import epochs_for, schedule_for
from mt.fuse.end_to_end.choice.shares import SHARES, HeldOut, Share, choose_share
from mt.fuse.end_to_end.loop import Kept, Run
from mt.fuse.end_to_end.network import EndToEnd
from mt.fuse.end_to_end.trainable.families import ADAPTERS, TRANSFORMER
from mt.fuse.end_to_end.warm_start import network_from
from mt.fuse.end_to_end.work import Work, predict
from mt.probe.methods.linear import link
from mt.system.ranks import Ranks
from mt.types import LabelledRows
from tests.fuse.end_to_end.small import RESNET, VIT, Bench, blend_first
from tests.noting import noted, recorded


def fitter(bench: Bench, y: np.ndarray, folder: Path, **changes: Any) -> Fitter:
    asked: dict[str, Any] = {"learning_rates": (1e-3, 1e-4), "epochs": 2} | changes
    settings = replace(bench.settings, **asked)
    work = replace(bench.work(), settings=settings)
    return Fitter(replace(bench.budget, y=y), bench.networks, work, Kept(Checkpoints(folder), work))


def fitted(bench: Bench, y: np.ndarray, folder: Path, **changes: Any) -> TunedFit:
    return fitter(bench, y, folder, **changes).fit()


def test_processes_that_read_different_checkpoints_stop(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(cache, RESNET)
    monkeypatch.setattr(Ranks, "broadcast", lambda *_: {"run": 1, "seconds": 2.0})  # what the first rank has read
    with pytest.raises(
        InputError, match=r"different checkpoints in .*Name a folder that all of them see: --checkpoints"
    ):
        fitter(bench, bench.budget.y, tmp_path)


@pytest.mark.parametrize("n", [40, 200])
def test_fifths_are_stratified_split_no_group_and_hold_out_enough(n: int) -> None:
    groups = np.arange(n) // 4
    y = (groups % 4 == 0).astype(np.int64)
    budget: LabelledRows[tuple[np.ndarray, ...]] = LabelledRows((np.zeros((n, 2)),), y, groups)
    found = held_out(budget, task="binary", n_classes=2, seed=0)
    assert len(found) in {40: (3, 4), 200: (1,)}[n]
    for fit, held in found:
        assert not set(groups[fit]) & set(groups[held])
        assert sorted([*fit, *held]) == list(range(n))
        assert len(held) == pytest.approx(0.2 * n, abs=8)
        assert y[held].mean() == pytest.approx(y.mean(), abs=0.26)
    everything = np.concatenate([held for _, held in found])
    assert len(everything) == len(set(everything)) >= min(ENOUGH, n / 2)
    assert held_out(budget.take(np.flatnonzero(y == 0)), task="binary", n_classes=2, seed=0) == []


@pytest.mark.parametrize(("n", "epochs"), [(4, 100), (100, 40), (1_000, 13), (1_000_000, 3)])
def test_steps_hardly_depend_on_the_budget(n: int, epochs: int) -> None:
    assert epochs_for(n) == epochs


@pytest.mark.parametrize("n", [75, 100, 300, 1_000, 10_000])
def test_choosing_costs_less_than_training(n: int) -> None:
    n_fifths = 1 if n >= 5 * ENOUGH else 2
    schedule = schedule_for(n, None, n_candidates=2, n_fifths=n_fifths)
    choosing, training = schedule.images(n)
    assert 0.35 * training < choosing < 0.7 * training
    assert schedule.passes == math.floor(schedule.whole * 0.95 / ((1 + n_fifths) * 0.8))  # as it was measured


@pytest.mark.parametrize("epochs", [None, 1, 2, 7])
@pytest.mark.parametrize("n_candidates", range(1, 9))
def test_choosing_costs_less_than_training_whatever_races(n_candidates: int, epochs: int | None) -> None:
    for n in (*range(20, 75), 75, 149, 150, 1_000, 30_000, 1_000_000):
        for n_fifths in range(6):
            schedule = schedule_for(n, epochs, n_candidates=n_candidates, n_fifths=n_fifths)
            choosing, training = schedule.images(n)
            assert choosing <= training
            grouped = schedule_for(n, epochs, n_candidates=n_candidates, n_fifths=n_fifths, rest=n - 2)
            assert grouped.images(n)[0] <= training  # few large groups
            if n_fifths:
                assert choosing > 0.5 * 0.8 * n * schedule.whole
                assert schedule.rounds[0].candidates == n_candidates
                assert schedule.rounds[-1].candidates <= 2 or epochs in (1, 2)


def test_three_and_more_candidates_race_by_halving(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(cache, RESNET)
    rates = (1e-3, 3e-4, 1e-4, 3e-5)
    loss_of = {1e-3: 0.4, 3e-4: 0.2, 1e-4: 0.3, 3e-5: 0.1}
    runs: list[tuple[float, int, int]] = []

    def tried(self: Fitter, trial: Any) -> _Done:
        runs.append((trial.candidate.backbones[0], trial.epochs, len(trial.rows)))
        self._count(trial)
        return _Done(trial, len(runs) - 1)

    def held_out_loss(_: Fitter, tried: list[_Done]) -> float:
        return min(loss_of[one.job.candidate.backbones[0]] for one in tried)

    def chosen(found: list[float], _: str) -> Share:
        return Share(0.0, 1.0, {"0": found[0]})

    monkeypatch.setattr(Fitter, "_try", tried)
    monkeypatch.setattr(Fitter, "_held_out", held_out_loss)
    monkeypatch.setattr("mt.fuse.end_to_end.choice.fit.choose_share", chosen)
    found = fitted(bench, bench.budget.y, tmp_path, learning_rates=rates, epochs=40)
    assert runs[:4] == [(rate, 3, 32) for rate in rates]
    assert runs[4:6] == [(3e-5, 6, 32), (3e-4, 6, 32)]
    assert runs[6:] == [(3e-5, 6, 32), (3e-4, 6, 32)] * 3
    assert found.settings["lr"] == [[3e-5], [3e-4]]
    assert found.cost["images_choosing"] == (4 * 3 + 8 * 6) * 32 <= 2 * 40 * 40
    runs.clear()
    fitted(bench, bench.budget.y, tmp_path, learning_rates=rates, epochs=1)
    assert runs[:5] == [*((rate, 1, 2) for rate in rates), (3e-5, 1, 5)]  # less than a pass: one over some of the rows
    assert sum(rows for _, _, rows in runs) <= 2 * 40


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
@pytest.mark.parametrize(("better", "share"), [("start", 0.0), ("trained", 1.0), ("both", 0.5)])
def test_the_share_has_the_lowest_held_out_loss_and_the_start_stays_as_it_is(
    task: str, better: str, share: float
) -> None:
    rng = np.random.default_rng(0)
    y = torch.from_numpy(rng.integers(0, 2, (200, 2) if task == "multilabel" else 200))
    if task == "multiclass":
        right = torch.nn.functional.one_hot(y, 2).double()
    else:
        right = 2.0 * (y[:, None] if task == "binary" else y).double() - 1
    noise = [torch.from_numpy(rng.normal(size=right.shape)) for _ in range(2)]
    good, bad = [2 * right + one for one in noise], -right + noise[0]
    start, trained = {"start": (good[0], bad), "trained": (bad, good[1]), "both": good}[better]
    found = choose_share(
        [HeldOut(start[:120], trained[:120], y[:120]), HeldOut(start[120:], trained[120:], y[120:])], task
    )
    assert found.share == share
    assert found.lowest == found.losses[f"{share:g}"] == min(found.losses.values())
    assert list(found.losses) == [f"{one:g}" for one in SHARES]
    assert (found.temperature == 1) == (share == 0)
    before, after = found.scaling()["scaling"]["log_loss"]
    assert before == pytest.approx(_log_loss_at_one(start, trained, share, y, task))
    assert (after == before) if share == 0 else (after == found.lowest < before)


@pytest.mark.parametrize(("times", "share"), [(1, 0.5), (10, 0.0)])
def test_the_start_has_more_than_half_only_if_it_is_clearly_better(times: int, share: float) -> None:
    y = torch.tensor([0, 1] * 15)
    start = 3 * (2.0 * y - 1)[:, None]
    trained = torch.where(torch.arange(30)[:, None] < 2, -start, start)  # two of thirty cases are wrong
    found = choose_share([HeldOut(start.repeat(times, 1), trained.repeat(times, 1), y.repeat(times))], "binary")
    assert found.losses["0"] == found.lowest < found.losses["0.5"] < found.losses["1"]
    assert found.share == share
    alone = choose_share([HeldOut(start[:1], -start[:1], y[:1])], "binary")  # one case shows nothing
    assert alone.share == 0.5
    assert alone.scaling()["scaling"]["log_loss"][1] == alone.losses["0.5"]


def test_more_certainty_where_all_cases_are_right_does_not_keep_the_start() -> None:
    y = torch.arange(30) % 2
    start = torch.where(y[:, None] > 0, 6.0, -6.0) + 0.1 * torch.cos(torch.arange(30))[:, None]
    found = choose_share([HeldOut(start, start - torch.sign(start), y)], "binary")
    assert found.losses["0"] == found.lowest < found.losses["0.5"] < found.lowest + 0.001
    assert found.share == 0.5


def _log_loss_at_one(start: Tensor, trained: Tensor, share: float, y: Tensor, task: str) -> float:
    """Return the mean log loss of the mixture without a temperature, in terms of probabilities."""
    link = torch.sigmoid if task != "multiclass" else partial(torch.softmax, dim=1)
    p = (1 - share) * link(start) + share * link(trained)
    if task == "multiclass":
        return float(-p[torch.arange(len(y)), y].log().mean())
    y = y.double().reshape(p.shape)
    each = -(y * p.log() + (1 - y) * (1 - p).log())
    return float(each.sum() / len(y)) if task == "binary" else float(each.mean())


def test_a_few_cases_that_are_all_right_do_not_make_certain() -> None:
    y = torch.tensor([0, 1] * 5)
    sure = (2.0 * y - 1).double()[:, None]
    few = choose_share([HeldOut(-sure, sure, y)], "binary")
    many = choose_share([HeldOut(-sure.repeat(50, 1), sure.repeat(50, 1), y.repeat(50))], "binary")
    assert few.temperature > many.temperature
    overconfident = torch.where(torch.arange(10)[:, None] < 2, -20 * sure, 20 * sure)
    assert choose_share([HeldOut(overconfident, overconfident * 0.99, y)], "binary").temperature > 1


def test_both_candidates_are_tried_on_every_fifth_and_trained_on_the_whole_budget(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[tuple[float, int, int]] = []

    def note(run: Run) -> None:
        runs.append((run.candidate.backbones[0], run.epochs, len(run.part.rows)))

    monkeypatch.setattr("mt.fuse.end_to_end.choice.shares.SHARES", (0.5, 1.0))
    monkeypatch.setattr(Run, "outcome", noted(Run.outcome, note))
    monkeypatch.setattr("mt.fuse.end_to_end.choice.schedule.LONG_ENOUGH", 0.0)
    bench = Bench(cache, RESNET)
    found = fitted(bench, bench.budget.y, tmp_path, epochs=20)
    raced = found.selection["candidates"]
    best = sorted((1e-3, 1e-4), key=lambda rate: raced[f"{rate:g}"])
    assert runs[:2] == [(1e-3, 4, 32), (1e-4, 4, 32)]
    assert runs[2:] == [(rate, 4, 32) for rate in best] * 3 + [(rate, 20, 40) for rate in best]
    assert found.settings["lr"] == [[rate] for rate in best]
    assert (found.settings["trained"], found.settings["trials"]) == (2, 8)
    choosing = 2 * 4 * 4 * 32
    assert found.cost["images_choosing"] == choosing
    assert found.cost["images"] == choosing + 2 * 20 * 40
    assert found.cost["seconds"] > 0


@pytest.mark.parametrize("changed", ["labels", "embeddings"])
def test_what_is_held_out_changes_nothing_but_the_choice(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    bench = Bench(cache, RESNET)
    pairs = held_out(bench.budget, task="binary", n_classes=2, seed=0)[:1]
    turned = bench.budget.y.copy()
    turned[pairs[0][1]] = turned[pairs[0][1]][::-1]
    assert not np.array_equal(turned, bench.budget.y)
    monkeypatch.setattr("mt.fuse.end_to_end.choice.planning.held_out", lambda *_, **__: pairs)
    tried = []
    for number in range(2):
        y = turned if number and changed == "labels" else bench.budget.y
        one = fitter(bench, y, tmp_path / str(number), learning_rates=(1e-3,))
        if number and changed == "embeddings":
            X = bench.budget.X[0].copy()
            X[pairs[0][1]] *= 10  # neither the start nor the scale of training may come from them
            one.budget = replace(one.budget, X=(X,))
        one.fit()
        tried.append(one.record.held_out[0])
    for name in ("start", "trained"):
        assert torch.equal(getattr(tried[0], name), getattr(tried[1], name))


@pytest.mark.parametrize("models", [(RESNET,), (RESNET, VIT)])
def test_a_training_that_fails_costs_no_accuracy(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, models: tuple[str, ...]
) -> None:
    """Trained networks that are wrong on every held-out image leave the start as it was."""
    bench = Bench(cache, *models)
    finished: list[EndToEnd] = []

    monkeypatch.setattr(Run, "finished", recorded(Run.finished, finished))

    def wrong(network: EndToEnd, work: Work, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        logits, attention = predict(network, work, rows)
        if any(network is one for one in finished):
            logits = -10.0 * (2 * bench.budget.y[rows, None] - 1)
        return logits, attention

    monkeypatch.setattr("mt.fuse.end_to_end.choice.fit.predict", wrong)
    found = fitted(bench, bench.budget.y, tmp_path)
    assert len(finished) == 8
    assert "start_kept" in found.flags
    assert (found.settings["share"], found.settings["epochs"]) == (0, 0)
    assert found.network is not None
    logits, _ = predict(found.network, bench.work(bench.joined.first.cases.ids), np.arange(20))
    expected, _ = found.start.predict(bench.joined.test)
    np.testing.assert_allclose(1 / (1 + np.exp(-logits[:, 0])), expected, atol=1e-4)


def test_with_three_classes_a_kept_start_is_the_row_dvme_blend_included(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(cache, RESNET, VIT)
    y = bench.budget.X[0][:, 0].argsort().argsort() % 3
    monkeypatch.setattr("mt.fuse.dvme.selection.beside_blend", blend_first)
    settings = replace(bench.settings, learning_rates=(1e-3, 1e-4), epochs=2)
    work = replace(bench.work(), settings=settings, task="multiclass", n_classes=3)
    one = Fitter(replace(bench.budget, y=y), bench.networks, work, Kept(Checkpoints(tmp_path), work))
    one.plan = replace(one.plan, fifths=one.plan.fifths[:1])
    finished: list[EndToEnd] = []
    monkeypatch.setattr(Run, "finished", recorded(Run.finished, finished))

    def wrong(network: EndToEnd, work: Work, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        logits, attention = predict(network, work, rows)
        return (-10.0 * np.eye(3)[y[rows]] if any(network is one for one in finished) else logits), attention

    monkeypatch.setattr("mt.fuse.end_to_end.choice.fit.predict", wrong)
    found = one.fit()
    assert (found.settings["share"], found.settings["recipe"]["start"]) == (0, "blend")
    row = fit_dvme(bench.budget.X, y, task="multiclass", n_classes=3, seed=work.seed)  # as the row `dvme` is fitted
    assert row.blend is not None
    assert found.network is not None
    test = replace(work, images=bench.work(bench.joined.first.cases.ids).images)
    logits, attention = predict(found.network, test, np.arange(20))
    expected, received = row.predict(bench.joined.test)
    np.testing.assert_allclose(link(logits, "multiclass"), expected, atol=1e-4)
    np.testing.assert_allclose(attention, received, atol=1e-4)
    for share in (0.0, 0.25):  # of the start's network, beside blend
        mixed = replace(row, choice=replace(row.choice, share=share))
        begun = one._network(mixed)
        both = Blended(begun, (), "multiclass", share=0.0, blend=StartBlend.of(mixed))
        p = link(predict(both, test, np.arange(20))[0], "multiclass")
        np.testing.assert_allclose(p, mixed.predict(bench.joined.test)[0], atol=1e-4)


@pytest.mark.parametrize(("failed", "times"), [(0, -1.0), (1, -1.0), (2, -1.0), (1, np.nan)])
def test_a_training_that_ends_at_chance_after_trials_that_went_well_has_no_part(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failed: int, times: float
) -> None:
    """Eight trials and two trainings, then the two networks again, from what was kept of them."""
    bench = Bench(cache, RESNET)
    finished: list[EndToEnd] = []
    monkeypatch.setattr(Run, "finished", recorded(Run.finished, finished))

    def predicted(network: EndToEnd, work: Work, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        logits, attention = predict(network, work, rows)
        right = 3.0 * (2 * bench.budget.y[rows, None] - 1)
        if any(network is one for one in finished[10 : 10 + failed]):
            logits = times * right
        elif any(network is one for one in finished):
            logits = right
        return logits, attention

    monkeypatch.setattr("mt.fuse.end_to_end.choice.fit.predict", predicted)
    found = fitted(bench, bench.budget.y, tmp_path)
    assert len(finished) == 12
    none = failed == 2
    assert ("training_failed" in found.flags, "start_kept" in found.flags) == (none, False)
    assert (found.settings["share"] == 0) == none
    assert (found.settings["epochs"], found.settings["trained"]) == (2, 2 - failed)
    assert found.network is not None
    assert found.network.trained == finished[10 + failed :]


@pytest.mark.parametrize(
    ("models", "changes"),
    [
        ((RESNET,), {}),
        ((RESNET, VIT), {}),
        ((RESNET,), {"train_batch_norm": True}),
        ((RESNET,), {"last": 2}),
        ((VIT,), {"lora": 2}),
    ],
)
def test_the_networks_of_the_trials_predict_too(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, models: tuple[str, ...], changes: dict[str, Any]
) -> None:
    """Two rates on two fifths; a trial whose fifth lacks a label has no part."""
    monkeypatch.setattr("mt.fuse.end_to_end.choice.shares.SHARES", (0.5, 1.0))
    bench = Bench(cache, *models)
    pairs = held_out(bench.budget, task="binary", n_classes=2, seed=0)[:2]
    monkeypatch.setattr("mt.fuse.end_to_end.choice.planning.held_out", lambda *_, **__: pairs)
    finished: list[EndToEnd] = []
    monkeypatch.setattr(Run, "finished", recorded(Run.finished, finished))
    one = fitter(bench, bench.budget.y, tmp_path, epochs=6, **changes)
    assert one.plan.schedule.keeps_trials
    found = one.fit()
    order = np.argsort(list(found.selection["candidates"].values()))
    assert found.network is not None
    assert (found.settings["trained"], found.settings["trials"]) == (2, 4)
    assert ("too_few_to_train" in found.start.choice.flags) == (len(models) == 2)
    assert "too_few_to_train" not in found.flags  # the cached stage trained no network; here they are
    made = [finished[number] for number in (4, 5, *order, 2, 3)]
    kept = [*found.network.trained, *found.network.trials]
    for network, again in zip(made, kept, strict=True):
        state = again.state_dict()
        assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    for first, second in itertools.combinations(kept, 2):
        assert not torch.equal(first.head.output.weight, second.head.output.weight)
    other = replace(found.start, outputs=np.array([1]))
    rates = [one.candidates[number] for number in (0, 1, *order)]
    known = [_Done(one._trial(rate, (found.start, *pairs[0]), 1, ""), number) for number, rate in enumerate(rates)]
    assert len(one._networks(known, found.start)) == 4
    assert one._networks(known, other) == []


@pytest.mark.parametrize(
    ("n", "n_fifths", "keeps"), [(25, 5, False), (70, 3, False), (75, 2, True), (100, 2, True), (1_000, 1, True)]
)
def test_trials_of_less_than_a_third_of_the_schedule_do_not_predict(n: int, n_fifths: int, keeps: bool) -> None:
    budget = LabelledRows[tuple[np.ndarray, ...]]((np.zeros((n, 2)),), np.arange(n) % 2)
    assert len(held_out(budget, task="binary", n_classes=2, seed=0)) == n_fifths
    assert schedule_for(n, None, n_candidates=2, n_fifths=n_fifths).keeps_trials == keeps
    assert not schedule_for(n, None, n_candidates=8, n_fifths=n_fifths).keeps_trials
    assert not schedule_for(n, None, n_candidates=2, n_fifths=0).keeps_trials


def test_attention_and_projections_learn_with_the_backbones(cache: Path, tmp_path: Path) -> None:
    bench = Bench(cache, RESNET, VIT)
    found = fitted(bench, bench.budget.y, tmp_path, fixed=True, epochs=3, weight_decay=0.0)
    assert found.network is not None
    (network,) = found.network.trained
    begun = network_from(found.start, bench.networks, bench.settings)
    begun.begin([1.0, 1.0])  # sets what reads the head to zero
    before = {name: one for name, one in begun.named_parameters() if not name.startswith("own.")}
    trained = dict(network.named_parameters())
    moved = {name for name, one in before.items() if not torch.equal(one, trained[name])}
    assert all(one.abs().max() > 0 for name, one in trained.items() if name.startswith("own."))
    head = [f"attention.{name}" for name in ("query", "key", "value", "out")]
    head += ["projections.0", "projections.1", "fusion", "head"]
    assert {f"head.{name}.weight" for name in head} <= moved
    for backbone in ("backbones.0.", "backbones.1."):
        assert {name for name in before if name.startswith(backbone)} <= moved


def test_adapters_have_rates_of_their_own(cache: Path, tmp_path: Path) -> None:
    bench = Bench(cache, VIT)
    for lora, family in ((None, TRANSFORMER), (2, ADAPTERS)):
        one = fitter(bench, bench.budget.y, tmp_path, learning_rates=(), lora=lora)
        assert [found.backbones for found in one.candidates] == [(rate,) for rate in family.rates]


def test_fixed_chooses_nothing(cache: Path, tmp_path: Path) -> None:
    bench = Bench(cache, RESNET)
    found = fitted(bench, bench.budget.y, tmp_path, fixed=True)
    assert (found.settings["lr"], found.settings["epochs"], found.settings["share"]) == ([[1e-3]], 2, 1.0)
    assert (found.selection, found.cost["images_choosing"], found.cost["images"]) == ({}, 0, 80)


def test_a_budget_of_one_class_trains_nothing_and_one_without_a_fifth_takes_half_of_both(
    cache: Path, tmp_path: Path
) -> None:
    bench = Bench(cache, RESNET, VIT)
    none = fitted(bench, np.zeros(40, np.int64), tmp_path / "0", epochs=1)
    assert (none.network, none.flags, none.settings["epochs"]) == (None, ("one_class",), 0)
    few = bench.budget.take(np.array([np.argmin(bench.budget.y), np.argmax(bench.budget.y)]))
    kept = fitter(bench, bench.budget.y, tmp_path / "1", epochs=1)
    kept.budget, kept.plan = few, replace(kept.plan, fifths=held_out(few, task="binary", n_classes=2, seed=0))
    found = kept.fit()
    assert "fixed_schedule" in found.flags
    assert (found.settings["epochs"], found.settings["share"], found.selection) == (1, 0.5, {})


def test_fifths_whose_classes_the_rest_does_not_know_say_nothing(cache: Path, tmp_path: Path) -> None:
    bench = Bench(cache, RESNET)
    twenty = bench.budget.take(np.arange(20))
    one = fitter(bench, bench.budget.y, tmp_path, epochs=1)
    one.budget, one.work = replace(twenty, y=np.arange(20)), replace(one.work, task="multiclass", n_classes=20)
    one.plan = replace(one.plan, fifths=[(np.arange(16), np.arange(16, 20))])
    found = one.fit()
    assert "fixed_schedule" in found.flags
    assert found.settings["share"] == 0.5


def test_predictions_that_are_no_numbers_name_the_images(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(cache, RESNET)
    monkeypatch.setattr(
        "mt.fuse.end_to_end.choice.fit.predict", lambda network, work, rows: (np.full((len(rows), 1), np.nan), None)
    )
    with pytest.raises(FitError, match=r"Predictions of held-out images are not numbers, on .*Lower the rate"):
        fitted(bench, bench.budget.y, tmp_path)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "1,024 images to choose and 1,600 to train, {} 3 networks: about 33 min"),
        ({"fixed": True}, "0 images to choose and 800 to train, {} 1 network: about 11 min"),
    ],
)
def test_how_long_it_takes_is_said_before(
    changes: dict[str, bool],
    expected: str,
    cache: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench(cache, RESNET)
    monkeypatch.setattr(Run, "images_per_second", lambda _: 2.0)
    one = fitter(bench, bench.budget.y, tmp_path, epochs=20, **changes)
    one.n_cases = 1230
    found = one.fit()
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "labels: about" in line]
    assert line == "  40 labels: about " + expected.format("at 2 images/s, and 1,230 to predict with at most")
    assert found.cost["images_choosing"] == (0 if changes else 1_024)


def test_the_time_of_a_fit_counts_its_starts_and_the_test_cases(cache: Path) -> None:
    bench = Bench(cache, RESNET)
    plan = plan_for(bench.budget, bench.settings, task="binary", n_classes=2, seed=0, n_candidates=2)
    one = plan.effort(600)
    assert one == Effort(1, sum(plan.images), 600 * plan.networks, 1 + len(plan.fifths))
    assert one + one == Effort(2, 2 * one.images, 2 * one.passes, 2 * one.starts)
    assert Effort(1, 120, 0, 0).minutes(2.0, 0.0) == 1
    assert Effort(1, 120, 360, 0).minutes(2.0, 0.0) == 2  # predicting takes a third of a training step
    assert Effort(1, 120, 360, 3).minutes(2.0, 60.0) == 5
    long = replace(plan, schedule=schedule_for(100, None, n_candidates=2, n_fifths=2), fifths=plan.fifths[:2])
    assert long.networks == 7  # two trained ones, four of trials, the start
