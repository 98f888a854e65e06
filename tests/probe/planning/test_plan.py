"""`mt probe --dry-run` shows planned fits and detectable differences; it fits, reads and writes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks import planning
from mt.cache.feature_file.read import FeatureFile
from mt.cli import group
from mt.errors import InputError
from mt.probe.planning.expected import PLAUSIBLE, RULES, Counts, expectations
from mt.probe.planning.probe_plan import plans
from mt.probe.request import ProbeRequest
from mt.probe.scores.metrics import over_cases
from tests.probe.features import probed, write_features, write_pair

ASKED: dict[str, Any] = {"protocol": "clip", "fractions": [0.25, 1.0], "shots": [3], "seeds": 2}


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail if an embedding is read."""
    monkeypatch.setattr(FeatureFile, "embeddings", property(lambda _: pytest.fail("embeddings were read")))


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize("task", ["binary", "multiclass", "ordinal", "multilabel"])
@pytest.mark.parametrize("draw", ["stratified", "random"])
def test_labels_are_those_of_the_first_draw(tmp_path: Path, task: str, draw: str) -> None:
    write_pair(tmp_path, task=task, n_classes=2 if task == "binary" else 3, grouped=True)
    asked = {**ASKED, "draw": draw, "fractions": [0.25], "shots": [], "protocol": "default"}
    (plan,) = plans(ProbeRequest(tmp_path, **asked))
    (budget,) = plan.budgets
    assert (budget.n_labels, budget.n_fits, budget.n_stored) == (30, 2, 0)
    assert (plan.n_cases, plan.n_units, len(plan.class_names)) == (80, 20, len(budget.per_class))
    assert sum(budget.per_class) == 30 or task == "multilabel"
    assert all(expected for expected in plan.expected.values())
    assert list(tmp_path.glob("*.sqlite*")) == [], "nothing is written"


def test_stored_fits_are_counted_and_labels_are_what_fits_use(tmp_path: Path) -> None:
    for model in ("m1", "m2"):
        write_pair(tmp_path, model=model)
    scores = probed(tmp_path, **{**ASKED, "models": ["m1"]}).scores
    (plan,) = plans(ProbeRequest(tmp_path, **ASKED))
    assert [(str(one.budget), one.n_fits, one.n_stored) for one in plan.budgets] == [
        ("25 %", 4, 2),
        ("100 %", 2, 1),
        ("3 shots", 4, 2),
    ]
    assert plan.models == ("m1", "m2")
    first = {(s.fraction, s.shots): s for s in reversed(scores)}
    for one in plan.budgets:
        score = first[one.budget.fraction, one.budget.shots]
        assert (one.n_labels, list(one.per_class)) == (score.n_labels, score.realised["rows"])


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize(("asked", "cases"), [({}, 40), ({"test_folds": 4}, 160)])
def test_test_cases_are_those_that_would_be_scored(tmp_path: Path, asked: dict[str, Any], cases: int) -> None:
    labels = {"train": np.arange(120) % 4 == 0, "test": np.arange(40) % 4 == 0}
    for split, y in labels.items():
        write_features(tmp_path, split=split, n=len(y), labels=y.astype(np.int64), grouped=True)
    (plan,) = plans(ProbeRequest(tmp_path, **ASKED, **asked))
    assert (plan.n_cases, plan.counts[1], plan.units[1], plan.rarest) == (cases, cases // 4, cases // 4, 1)
    (by_group,) = plans(ProbeRequest(tmp_path, **ASKED, **asked, level="group"))
    assert (by_group.n_cases, by_group.counts) == (cases // 4, (0, cases // 4)), "each group has a positive"
    assert by_group.expected["roc_auc"] == []
    if asked:
        assert plan.budgets[0].n_labels == 160 * 3 // 4 // 4, "a quarter of three folds of four"
        wide, narrow = plan.expected["roc_auc"], expectations("roc_auc", _counts(plan))
        assert wide[0].half_width == pytest.approx(narrow[0].half_width * np.sqrt(1 + 4 / 3))


def _counts(plan: Any) -> Counts:
    cases, units = (np.array([[a, b], [b, a]]) for a, b in (plan.counts, plan.units))
    return Counts(cases, units, plan.n_cases, plan.n_units)


def test_a_request_that_would_fail_fails(tmp_path: Path) -> None:
    write_pair(tmp_path)
    with pytest.raises(InputError, match="No finished train features for --model nothing"):
        plans(ProbeRequest(tmp_path, models=["nothing"]))


@pytest.mark.usefixtures("unread")
def test_the_command_prints_the_plan_and_stops(tmp_path: Path) -> None:
    write_pair(tmp_path)
    write_features(tmp_path, "there", split="test")
    write_features(tmp_path, "there", split="train")

    def run(*words: str) -> str:
        asked = ["probe", "--cache-dir", str(tmp_path), "--dry-run", "--dataset", "toy", *words]
        return CliRunner().invoke(group, asked, catch_exceptions=False, env={"COLUMNS": "160"}).output

    text = " ".join(run("--metric", "all", "--primary", "roc_auc@1%").split())
    assert "toy: 1 model, 80 test cases; 'class 0' is rarest: 40 cases" in text
    assert "average precision: no expectation" in text
    assert "11 fits, 0 of them stored" in text
    assert "Comparison with the internal test: 11 fits, 0 stored." in run("--test-dataset", "there")
    rows = [json.loads(line) for line in run("--json").splitlines()]
    assert [(row["fraction"], row["metric"], row["n_fits"]) for row in rows] == [
        (0.01, "roc_auc", 5),
        (0.1, "roc_auc", 5),
        (1.0, "roc_auc", 1),
    ]
    assert [one["score"] for one in rows[0]["expected"]] == list(PLAUSIBLE)
    assert list(tmp_path.glob("*.sqlite*")) == [], "nothing is written"


@pytest.mark.usefixtures("unread")
def test_a_metric_that_will_have_no_interval_is_refused_with_its_reason(tmp_path: Path) -> None:
    for split, y in (("train", np.arange(60) % 2), ("test", np.zeros(20, dtype=np.int64))):
        write_features(tmp_path, split=split, n=len(y), labels=y)
    request = ProbeRequest(tmp_path, **ASKED, metrics=["all"])
    (plan,) = plans(request)
    labels = np.zeros(20, dtype=np.int64)
    for metric, why in plan.refused.items():
        value, found = over_cases(metric, labels, [np.linspace(0.1, 0.6, 20)])
        assert metric == "ece" or bool(why) == bool(found.reason), metric
        assert not why or why == found.reason or np.isnan(value)
        assert not (why and plan.expected[metric])
    words = ["probe", "--cache-dir", str(tmp_path), "--dry-run", "--metric", "balanced_accuracy"]
    text = CliRunner().invoke(group, words, catch_exceptions=False, env={"COLUMNS": "160"}).output
    assert "balanced accuracy: no interval: 1 of 2 classes has no test case; at least 1 of each is needed." in text
    rows = CliRunner().invoke(group, [*words, "--json"], catch_exceptions=False).output.splitlines()
    assert {json.loads(row)["no_interval"] for row in rows} == {plan.refused["balanced_accuracy"]}


@pytest.mark.parametrize("metric", list(RULES))
def test_what_is_expected_shrinks_with_more_cases_and_correlation(metric: str) -> None:
    few, many = (expectations(metric, Counts.of(np.arange(n) % 3, None, 3)) for n in (60, 600))
    for one, other in zip(few, many, strict=True):
        assert other.half_width < one.half_width < 0.5
        assert other.detectable[1] < other.detectable[0] < one.detectable[0]


@pytest.mark.parametrize(
    ("metric", "setting"), [one for one in planning.WIDTHS if (one[1].n, one[1].prevalence) == (400, 0.2)]
)
def test_expected_widths_come_true(metric: str, setting: Any) -> None:
    """The short form of `python -m benchmarks.planning`."""
    one = planning.widths(metric, setting, repeats=30)
    assert one.holds, one


def test_the_detectable_difference_is_found_as_often_as_stated() -> None:
    one = planning.power(150, 0.3, 0.6, repeats=100)
    assert one.holds, one
