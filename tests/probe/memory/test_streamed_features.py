"""`mt probe --memory` gives the scores of a plain probe from features that are read chunk by chunk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mt.cli import group
from mt.errors import InputError
from mt.results.store import ScoreStore
from tests.probe.features import write_features

TASKS = {"binary": 2, "multiclass": 4, "ordinal": 4, "multilabel": 3}


def probe(cache: Path, name: str, *arguments: str) -> Result:
    command = ["probe", "--cache-dir", str(cache), "--scores", str(cache / f"{name}.sqlite"), *arguments]
    return CliRunner().invoke(group, command)


def values(result: Result) -> list[float]:
    assert result.exit_code == 0, (result.stderr, result.exception)
    return [json.loads(line)["value"] for line in result.stdout.splitlines()]


@pytest.mark.parametrize(
    ("task", "protocol"),
    [*((task, "default") for task in TASKS), ("multiclass", "patho-bench"), ("binary", "dinov2-logreg")],
)
def test_scores_are_those_of_a_plain_probe(task: str, protocol: str, tmp_path: Path) -> None:
    for split, n in (("train", 400), ("test", 150)):
        facts: dict[str, Any] = {"task": task, "n_classes": TASKS[task], "signal": 0.3, "grouped": True}
        write_features(tmp_path, split=split, n=n, dim=12, **facts)
    arguments = ["--protocol", protocol, "--fraction", "0.2", "--fraction", "1", "--seeds", "2", "--json"]
    plain, streamed = probe(tmp_path, "plain", *arguments), probe(tmp_path, "streamed", *arguments, "--memory", "1MB")
    assert values(streamed) == pytest.approx(values(plain), abs=2e-3)
    assert "Streamed within 1 MB: " in streamed.stderr
    assert "passes over the rows" in streamed.stderr
    for name in ("plain", "streamed"):
        with ScoreStore(tmp_path / f"{name}.sqlite") as store:
            fits = [store.fit(score.fit) for score in store.scores()]
        assert {fit.outcome.get("streamed", False) for fit in fits} == {name == "streamed"}


@pytest.mark.parametrize(
    "option",
    [
        ["--bag", "group"],
        ["--pool", "max"],
        ["--test-folds", "3"],
        ["--solver", "sklearn"],
        ["--solver", "cuml"],
        ["--bag", "slide", "--pool", "attention"],
        ["--test-folds", "3", "--repeats", "2"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("dry", [[], ["--dry-run"]], ids=["fitted", "planned"])
def test_what_holds_all_rows_is_refused_with_what_to_type(option: list[str], dry: list[str], tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_features(tmp_path, split=split)
    result = probe(tmp_path, "refused", "--memory", "1MB", *option, *dry)
    assert isinstance(result.exception, InputError)
    assert str(result.exception).endswith("or remove --memory.")
    assert len(str(result.exception).splitlines()) == 1


def test_features_too_wide_for_the_limit_are_refused_with_the_least_that_serves(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_features(tmp_path, split=split, dim=300)
    for dry in ([], ["--dry-run"]):
        result = probe(tmp_path, "wide", "--memory", "2MB", "--protocol", "clip", "--fraction", "1", *dry)
        assert isinstance(result.exception, InputError)
        said = (
            "Reading 'toy' (m1, 300 columns) from disk in every step needs about 3 MB of memory; 2 MB is what --memory"
        )
        assert str(result.exception) == f"{said} allows. Type at least --memory 3MB."
    assert probe(tmp_path, "wide", "--memory", "3MB", "--protocol", "clip", "--fraction", "1").exit_code == 0


OPTIONS = [
    ["--draw", "random"],
    ["--draw", "random-groups"],
    ["--shots", "20"],
    ["--draw-file", "draws.csv"],
    ["--select", "val"],
    ["--select", "val", "--threshold", "youden"],
    ["--threshold", "youden"],
    ["--threshold", "sensitivity:0.9", "--prevalence", "0.1", "--calibrate", "platt"],
    ["--calibrate", "temperature"],
    ["--by", "sex", "--threshold", "youden"],
    ["--level", "group"],
    ["--test-dataset", "other"],
    ["--test-dataset", "other", "--calibrate", "platt"],
    ["--save", "models"],
    ["--primary", "roc_auc@50%"],
    ["--compare", "--margin", "0.05", "--reference", "m1"],
    ["--metric", "all"],
    ["--protocol", "ssl-transfer"],
]


@pytest.mark.parametrize("option", OPTIONS, ids=" ".join)
def test_what_a_probe_prints_is_the_same_with_every_other_option(
    option: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for dataset, model in (("toy", "m1"), ("toy", "m2"), ("other", "m1")):
        for split, n in (("train", 200), ("val", 60), ("test", 80)):
            sex = {"sex": ["fm"[row % 2] for row in range(n)]}
            write_features(tmp_path, dataset, model, split, n=n, signal=0.3, grouped=True, columns=sex)
    arguments = ["--dataset", "toy", "--seeds", "1", "--json", *option]
    arguments += [] if "--shots" in option else ["--fraction", "0.5"]
    arguments += [] if "--compare" in option else ["--model", "m1"]
    protocol = [] if {"--protocol", "--select"} & {*option} else ["--protocol", "clip"]
    plain, streamed = (
        numbers(probe(tmp_path, name, *arguments, *protocol, *limit))
        for name, limit in (("plain", []), ("streamed", ["--memory", "1MB"]))
    )
    assert len(plain) == len(streamed) > 0
    assert streamed == pytest.approx(plain, abs=5e-3, nan_ok=True)


def numbers(result: Result) -> list[float]:
    """Return every fractional number that a probe printed, in order."""
    assert result.exit_code == 0, (result.stderr, result.exception)
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    return [value for row in rows for _, value in sorted(row.items()) if isinstance(value, float)]
