"""Every benchmark runs, at a size too small for its numbers to mean anything; one `mt probe` enters few files."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks import (
    _device_decoder,
    _paper_hours,
    _scale_steps,
    _scale_writer,
    few_labels,
    fused,
    gpu,
    own_heads,
    scale,
    scaled,
    start_share,
    trial_networks,
    walk,
)
from benchmarks._finetune_table import Row, print_tables
from mt.cache import open_features
from mt.cache.catalog import Catalog
from mt.cache.content import ContentIndex
from mt.datasets.decoding import nvjpeg
from mt.fuse.dvme.module import DVME
from mt.fuse.end_to_end.blended import Blended
from mt.fuse.end_to_end.network import EndToEnd, LinearHead, Standardize
from mt.probe.questions import find_pairs
from tests.datasets.nvjpeg_stand_in import NvJpeg
from tests.probe.features import write_features


@pytest.mark.slow
def test_the_gpu_benchmark_runs_at_a_small_size(capsys: pytest.CaptureFixture[str]) -> None:
    gpu.main(["--small", "--device", "cpu"])
    table = capsys.readouterr().out.split("| what |")[1]
    for what in (
        "PCam",
        "in one pass",
        "small JPEG",
        "bare forward pass",
        "large JPEG",
        "large PNG",
        "decoder alone",
        "a whole PCam",
        "DVME",
        "end-to-end step",
        "hours",
        "solver",
        "multilabel",
    ):
        assert what in table


def test_how_far_a_devices_decoder_moves_things_is_measured(
    tmp_path: Path, pretend: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvjpeg._reads.cache_clear()
    monkeypatch.setattr(nvjpeg, "by_nvjpeg", NvJpeg())
    _device_decoder.write_tissue(tmp_path / "tissue", 60, 32)
    found = _device_decoder.moved(tmp_path / "tissue", "timm:test_resnet", "pretend", tmp_path / "cache")
    nvjpeg._reads.cache_clear()
    assert 0 < found.median <= found.largest < 1
    assert 0 <= found.by_pillow <= 1
    assert 0 <= found.by_device <= 1


def test_the_hours_of_the_papers_study_are_those_of_its_images_and_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    def parts(**rates: float) -> dict[str, float]:
        hours, text = _paper_hours.paper_hours(**rates)
        found = {name: float(value) for name, value in (one.split() for one in text.split(", "))}
        assert hours == pytest.approx(sum(found.values()), abs=0.02)
        return found

    once = parts(featurize=1000.0, train=100.0)
    assert once["featurizing"] == pytest.approx(449_318 / 1000 / 3600, abs=0.01)
    assert parts(featurize=1000.0, train=50.0)["training"] == pytest.approx(2 * once["training"], rel=1e-3)
    # One draw of 1,000 labels: 26,000 images to train both rates, at most as many to choose, 500 test cases.
    monkeypatch.setattr(_paper_hours, "PAPER", {"small": (1_500, 1_000)})
    monkeypatch.setattr(_paper_hours, "PAPER_DRAWS", {1.0: 1})
    small = parts(featurize=1.0, train=1.0)
    assert 2 * 4 * 26_000 < small["training"] * 3600 <= 2 * 4 * 52_000
    assert small["predicting"] * 3600 == pytest.approx(2 * (2 * 2 * 200 + 2 * 1_000 + 5 * 500), abs=20)


def test_what_each_head_says_is_kept_of_the_first_network_that_predicts() -> None:
    scalings = [Standardize(torch.zeros(16), torch.ones(16), 5.0) for _ in range(2)]
    networks = []
    for seed in range(3):
        head = DVME((16, 16), 3, width=16, heads=2)
        networks.append(EndToEnd([nn.Linear(4, 16), nn.Linear(4, 16)], scalings, head).eval())
        networks[-1].begin([1.0, 1.0])
        for parameter in [*networks[-1].head.parameters(), *networks[-1].own.parameters()]:
            parameter.data.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed)))
    start, first, second = networks
    both = Blended(start, [first, second], "multiclass", share=0.5)
    batches = [[torch.randn(n, 4, generator=torch.Generator().manual_seed(n)) for _ in range(2)] for n in (5, 3)]
    with torch.no_grad(), own_heads.recording() as seen:
        second(batches[0])
        for batch in batches:
            both.with_attention(batch)
        logits = torch.cat([first(batch) for batch in batches])
    every = torch.from_numpy(np.concatenate(seen, axis=1))
    assert every.shape == (3, 8, 3)
    torch.testing.assert_close(own_heads.WAYS["halves"](every), logits)
    assert (own_heads.WAYS["DVME alone"](every) - logits).abs().max() > 1e-2


def test_what_each_network_says_is_kept_and_the_ways_to_predict_are_asked_of_it() -> None:
    scaling = Standardize(torch.zeros(16), torch.ones(16), 5.0)
    networks = [EndToEnd([nn.Linear(4, 16)], [scaling], LinearHead(16, 3)).eval() for _ in range(4)]
    images = [torch.randn(5, 4, generator=torch.Generator().manual_seed(0))]
    with torch.no_grad(), trial_networks.recording() as seen:
        Blended(None, networks[:1], "multiclass", share=1.0).with_attention(images)
        assert seen["batches"] == []
        trained, trials = networks[:2], networks[2:]
        without, all_of_them = (
            Blended(None, trained, "multiclass", share=1.0, temperature=2.0, trials=one) for one in ((), trials)
        )
        expected = [networks[0](images) / 2, *(one.with_attention(images)[0] for one in (without, all_of_them))]
    (every,) = map(torch.from_numpy, seen["batches"])
    found = [one / seen["temperature"] for one in trial_networks.ways(every, seen["trained"], "multiclass")]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.softmax(1), other.double().softmax(1), rtol=0, atol=1e-6)
    assert all((one.softmax(1) - other.softmax(1)).abs().max() > 1e-3 for one, other in itertools.pairwise(found))


def test_rules_of_the_start_are_asked_of_the_same_networks(tmp_path: Path) -> None:
    y = torch.tensor([0, 1] * 15)
    start = 3 * (2.0 * y - 1)[:, None]
    trained = torch.where(torch.arange(30)[:, None] < 2, -start, start)  # two of thirty cases are wrong
    held = {"0.start": start.numpy(), "0.trained": trained.numpy(), "0.y": y.numpy()}
    logits: dict[str, Any] = held | {"start": -start.numpy(), "trained": start.numpy(), "outputs": np.array([0, 1])}
    np.savez(tmp_path / "one.npz", task="binary", **logits)
    one = np.load(tmp_path / "one.npz")
    found = {rule: start_share.by_rule(change, one, y.numpy()) for rule, change in start_share.RULES.items()}
    assert [share for share, *_ in found.values()] == [0.5, 0.0, 1.0, 0.5]
    assert [found[rule][1] for rule in ("lowest loss", "trained alone")] == [0.0, 1.0]
    assert found["as it is"] == found["halves"] == start_share.by_rule(start_share.RULES["as it is"], one, y.numpy())


def test_one_label_budget_walks_through_few_files() -> None:
    for state, (entered, _) in walk.walks().items():
        assert len(entered) <= walk.GOAL, f"{state}: {', '.join(sorted(entered))}"
        assert {"probe/cli.py", "probe/run.py", "results/store.py"} <= entered.keys()


def test_fusion_on_few_labels_recommends_what_has_the_lower_loss_out_of_fold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for model in ("m1", "m2"):
        for split, n in (("train", 120), ("test", 60)):
            write_features(tmp_path, model=model, split=split, n=n, task="multiclass", n_classes=3, signal=2)
    pairs = find_pairs(Catalog(tmp_path), models=["m1", "m2"])
    monkeypatch.setattr(few_labels, "DRAWS", 2)
    monkeypatch.setattr(few_labels, "LABELS", {"fusion": (30,)})
    lines = list(few_labels.MEASURES["fusion"]("made-up", pairs, []))
    assert [one["method"] for one in lines] == ["concat", "blend of all", "recommended"] * 2
    for concat, blend, recommended in (lines[:3], lines[3:]):
        best = min(concat, blend, key=lambda one: one["out_of_fold"])
        assert min(concat["roc_auc"], blend["roc_auc"]) > 0.9, "features go with their own labels"
        assert recommended == {**best, "method": "recommended", "chosen": best["method"]}
    assert list(few_labels.fusion("made-up", pairs, lines[:3])) == lines[3:], (
        "a draw that is known is not measured again"
    )
    few_labels.print_tables(lines)
    assert "| made-up, 30 |" in capsys.readouterr().out


def test_what_mt_fuse_recommends_on_few_labels_is_what_has_the_lower_loss_out_of_fold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for model in few_labels.MODELS:
        for split, n in (("train", 120), ("test", 60)):
            write_features(
                tmp_path / "cache", model=model, split=split, n=n, task="multiclass", n_classes=3, signal=2, dim=4
            )
    pairs = find_pairs(Catalog(tmp_path / "cache"), models=few_labels.MODELS)
    lines = list(fused.fused("made-up", pairs, 30, 2, tmp_path))
    assert len(lines) == 2 * (len(fused.METHODS) + 3)
    for rule, rivals in (("recommended", ("concat", "blend", "dvme")), (fused.CORRECTED, fused.METHODS)):
        for chosen in (one for one in lines if one["method"] == rule):
            draw = [one for one in lines if one["seed"] == chosen["seed"] and one["method"] in rivals]
            best = min((one for one in draw if one["out_of_fold"] is not None), key=lambda one: one["out_of_fold"])
            assert (chosen["chosen"], chosen["roc_auc"]) == (best["method"], best["roc_auc"])
    known = {(one["seed"], one["method"]): one for one in lines}
    for seed in range(2):  # a lower loss of best-single can only make it win
        if known[seed, fused.CORRECTED]["chosen"] == "best-single":
            assert known[seed, fused.AS_IT_IS]["chosen"] == "best-single"
    assert not any(one["trained"] for one in lines if one["method"] == "dvme"), "below 100 rows nothing is trained"
    fused.print_table(lines)
    assert "| made-up, 30 | 2 |" in capsys.readouterr().out


@pytest.mark.parametrize(("task", "n_classes", "kinds"), [("binary", 2, 2), ("multiclass", 3, 1)])
def test_scaling_on_few_labels_is_shown_before_and_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str, n_classes: int, kinds: int
) -> None:
    for split, n in (("train", 120), ("test", 60)):
        write_features(tmp_path, split=split, n=n, task=task, n_classes=n_classes)
    monkeypatch.setattr(scaled, "DRAWS", 2)
    monkeypatch.setattr(scaled, "LABELS", (20,))
    (pair,) = find_pairs(Catalog(tmp_path), models=["m1"])
    rows = list(scaled.scaled("made-up", pair))
    assert [row[2] for row in rows] == ["temperature", "platt"][:kinds]
    assert all(re.fullmatch(r"\d\.\d{3} → \d\.\d{3} ± \d\.\d{3}", cell) for row in rows for cell in row[3:])


def test_simulated_workers_fill_a_file_through_the_real_writer(tmp_path: Path) -> None:
    found = _scale_writer.written(tmp_path / "file.h5", blocks=3, dim=8, dtype="float16", workers=2)
    assert open_features(tmp_path / "file.h5", verify=True).n_ok == 3 * _scale_writer.ROWS
    assert found["bytes"] == (tmp_path / "file.h5").stat().st_size


@pytest.mark.parametrize("generated", [True, False])
def test_many_rows_are_listed_featurized_and_recognised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, generated: bool
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    if not generated:
        scale.made(tmp_path, 300)
    index = ContentIndex(tmp_path / "index.sqlite")
    dataset = _scale_steps.listed(tmp_path, 300, index)
    computed = _scale_steps.featurized(tmp_path, dataset, index)
    assert sorted(result.rows for result in computed) == [60, 240]
    assert all(result.cached for result in _scale_steps.featurized(tmp_path, dataset, index))
    for result in computed:
        assert len(open_features(result.path, verify=True).groups or ()) == result.rows


def test_the_table_of_fine_tuning_says_which_conditions_hold(capsys: pytest.CaptureFixture[str]) -> None:
    def rows(method: str, *accuracies: float) -> list[Row]:
        return [Row("tissue", 100, seed, method, value, 1 - value) for seed, value in enumerate(accuracies)]

    known = [*rows("probe lite0", 0.5, 0.6), *rows("script lite0", 0.7, 0.8), *rows("probe lite1", 0.5, 0.6)]
    known += [
        *rows("fine-tune lite0", 0.66, 0.8),
        *rows("script lite1", 0.7, 0.8),
        *rows("fine-tune lite1", 0.65, 0.75),
    ]
    known += [*rows("concat", 0.6, 0.7), *rows("dvme, unfrozen", 0.7, 0.8, 0.9)]
    print_tables(known)
    lines = capsys.readouterr().out.splitlines()
    lite0, lite1, several = (line.split(" | ") for line in lines if line.startswith("| tissue"))
    # Exactly a standard error less than the script, and nine tenths of its gain.
    assert lite0[5:] == ["-0.020 ± 0.020", "0.180 ± 0.020", "0.450, 0.250, 0.270", "0.90", "all |"]
    # 0.05 less in both draws; three quarters of the gain.
    assert lite1[5:] == ["-0.050 ± 0.000", "0.150 ± 0.000", "0.450, 0.250, 0.300", "0.75", "NO, yes, NO |"]
    # The best is lite0, on the two draws that all have.
    assert several[1] == "2"
    assert several[4:7] == ["0.730 ± 0.070, 0.270", "0.750 ± 0.050, 0.250", "0.020 ± 0.020"]
