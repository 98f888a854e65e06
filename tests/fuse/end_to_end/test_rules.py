"""The rules of evaluation: nothing outside the budget is seen, and numbers of another revision are not answered."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from mt.featurize import FeaturizeRequest, extract
from mt.fuse.cli import fuse
from mt.results.store import Fit, ScoreStore
from tests.fuse.end_to_end.small import RESNET


def ran(cache: Path, scores: Path, *arguments: str) -> Result:
    command = ["--cache-dir", str(cache), "--scores", str(scores), "--unfreeze", "--model", RESNET, "--everything"]
    command += ["--device", "cpu", "--workers", "1", "--batch-size", "8", "--lr", "1e-3", *arguments]
    return CliRunner().invoke(fuse, command, catch_exceptions=False)


def labelled(folder: Path, labels: list[str]) -> str:
    """Return a table of the same 30 images with these labels; the last 10 are the test split."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(30):
        Image.fromarray(rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    with (folder / "labels.csv").open("w", newline="") as file:
        rows = [(f"{n}.png", label, "train" if n < 20 else "test") for n, label in enumerate(labels)]
        csv.writer(file).writerows([("image", "label", "split"), *rows])
    return f"table:{folder / 'labels.csv'}"


def test_labels_outside_the_budget_change_no_weight_and_no_choice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mt.fuse.end_to_end.choice.shares.SHARES", (0.5, 1.0))

    def fitted(name: str, labels: list[str]) -> tuple[bytes, Fit]:
        data, cache, scores = labelled(tmp_path / name, labels), tmp_path / f"{name}-cache", tmp_path / f"{name}.sqlite"
        extract(FeaturizeRequest([data], [RESNET], cache_dir=cache, weights=["random"], image_size=32))
        half = ("--fraction", "0.5", "--seeds", "1", "--draw", "random", "--epochs", "4")
        ran(cache, scores, *half, "--save", str(tmp_path / f"{name}-model"))
        (tensors,) = (tmp_path / f"{name}-model").glob("*.safetensors")
        with ScoreStore(scores) as store:
            return tensors.read_bytes(), store.fit(json.loads(tensors.with_suffix(".json").read_text())["fit"])

    labels = ["even", "odd"] * 15
    weights, fit = fitted("one", labels)
    assert fit.outcome["settings"]["epochs"] == 4
    assert len(fit.rows) == 10
    unused = np.setdiff1d(np.arange(20), fit.rows)
    others = list(labels)
    for rows in (unused, np.arange(20, 30)):
        for row, label in zip(rows, np.random.default_rng(1).permutation([labels[row] for row in rows]), strict=True):
            others[row] = str(label)
    assert sum(one != other for one, other in zip(labels, others, strict=True)) >= 6
    again, other_fit = fitted("other", others)
    np.testing.assert_array_equal(fit.rows, other_fit.rows)
    assert fit.identity != other_fit.identity  # other labels are other data
    assert again == weights
    for what in ("settings", "selection"):
        assert fit.outcome[what] == other_fit.outcome[what]
    np.testing.assert_array_equal(fit.probabilities, other_fit.probabilities)


def test_a_raised_revision_fits_again_and_all_fits_are_announced_and_accounted_for(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mt.fuse.end_to_end.loop.Run.images_per_second", lambda _: 0.45)
    quick = ("--fraction", "0.5", "--fraction", "1", "--seeds", "2", "--epochs", "1", "--fixed", "--json")
    first = ran(cache, tmp_path / "s", *quick)
    (line,) = [line for line in first.stderr.splitlines() if "fits:" in line]
    # 20 and 20 of half the labels, 40 of all; each predicts 10, which takes a third of the time
    assert line == "  all 3 fits: about 80 images at most: about 4 min"
    found = [json.loads(line) for line in first.stdout.splitlines()]
    costs = [row for row in found if "cost" in row]
    assert [(row["method"], row["fraction"], row["seed"], row["images"]) for row in costs] == [
        ("fine-tune", 0.5, 0, 20),
        ("fine-tune", 0.5, 1, 20),
        ("fine-tune", 1.0, 0, 40),
    ]
    assert all(row["seconds"] > 0 and row["images_choosing"] == 0 for row in costs)
    again = ran(cache, tmp_path / "s", *quick)
    assert ", 0 fitted" in again.stderr
    assert "fits:" not in again.stderr
    assert [json.loads(line) for line in again.stdout.splitlines() if '"cost"' in line] == costs
    monkeypatch.setattr("mt.fuse.end_to_end.tuner.REVISION", 99)
    assert ", 3 fitted" in ran(cache, tmp_path / "s", *quick).stderr
