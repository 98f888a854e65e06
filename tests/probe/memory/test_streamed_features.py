"""`mt probe --memory`: the scores of a plain probe, from features that are read chunk by chunk."""

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
    ],
    ids=" ".join,
)
def test_what_holds_all_rows_is_refused_with_what_to_type(option: list[str], tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_features(tmp_path, split=split)
    result = probe(tmp_path, "refused", "--memory", "1MB", *option)
    assert isinstance(result.exception, InputError)
    assert str(result.exception).endswith("or remove --memory.")
