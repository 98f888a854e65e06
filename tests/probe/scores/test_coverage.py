"""Every interval covers the truth in a simulation: the short form of `python -m benchmarks.coverage`."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest

from benchmarks import coverage
from benchmarks._expected import METRICS as EXPECTED
from benchmarks._expected import STUDIES, Combined, Study, measure_expected
from benchmarks._thresholds import NAMES as AT_THRESHOLD
from mt.probe.scores.metrics import METRICS, value_of


@pytest.mark.parametrize("patients", [0, 50])
@pytest.mark.parametrize("task", ["binary", "multiclass", "ordinal", "multilabel"])
def test_intervals_cover_and_are_not_much_longer_than_the_oracles(task: str, patients: int) -> None:
    setting = coverage.Setting(task, 120, 0.3, patients)
    names = [
        name
        for given, names in coverage.settings_of(list(coverage.TASK_OF), [120], [0.3], [patients])
        for name in names
        if given == setting
    ]
    rows = list(coverage.measure(setting, names, repeats=80))
    assert [row.metric for row in rows] == names
    for row in rows:
        assert row.units >= coverage.FEW
        assert row.holds, row
        assert row.refused == 0


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_with_50_cases_and_a_class_of_5_percent_intervals_cover_or_are_refused(task: str) -> None:
    """Every twelfth sample lacks the class: scores of the other classes alone have other truths."""
    names = ["balanced_accuracy", "macro_f1", "log_loss", *(["brier"] if task == "binary" else [])]
    for row in coverage.measure(coverage.Setting(task, 50, 0.05, 0), names, repeats=800):
        assert row.holds, row
        assert 0.05 < row.refused < 0.12 or (task, row.metric, row.refused) == ("multiclass", "log_loss", 0)


def test_a_mean_over_labels_with_few_positives_each_covers() -> None:
    """Biases of the labels add up: with correlations estimated from one or two positives, coverage was 0.90."""
    (row,) = coverage.measure(coverage.Setting("multilabel", 50, 0.05, 0), ["mean_ap"], repeats=250)
    assert row.coverage >= coverage.LEAST, row


@pytest.mark.parametrize("patients", [0, 20])
def test_with_very_few_positives_intervals_still_cover(patients: int) -> None:
    names = ["roc_auc", "average_precision", "balanced_accuracy", "f1", "brier", "log_loss"]
    for row in coverage.measure(coverage.Setting("binary", 100, 0.05, patients), names, repeats=100):
        assert row.holds, row


@pytest.mark.parametrize(("n", "prevalence", "patients"), [(200, 0.05, 0), (1000, 0.05, 0), (50, 0.5, 20)])
def test_an_auc_of_097_is_covered_by_intervals_that_are_not_too_long(n: int, prevalence: float, patients: int) -> None:
    """The few positives with low scores decide: DeLong's variance alone covers 0.92, or is 1.5 oracle lengths long."""
    setting = coverage.Setting("binary", n, prevalence, patients).at_auc(0.97)
    (row,) = coverage.measure(setting, ["roc_auc"], repeats=600)
    assert row.coverage >= coverage.LEAST, row
    assert row.ratio <= coverage.LONGEST, row


@pytest.mark.parametrize("patients", [0, 50])
def test_what_a_threshold_achieves_has_intervals_that_cover(patients: int) -> None:
    rows = list(coverage.measure_thresholds(coverage.Setting("binary", 120, 0.3, patients), repeats=100))
    assert {row.metric.split(" ")[0] for row in rows} == set(AT_THRESHOLD)
    for row in rows:
        assert row.coverage + 2 * row.error >= coverage.LEAST, row
        assert row.holds, row


def test_the_interval_over_draws_and_cases_covers_where_that_over_cases_alone_does_not() -> None:
    study = Study(5, 400, 0.3, 0, 0.4)
    rows = list(measure_expected(study, coverage.SEPARATION, coverage.WITHIN, repeats=60, classifiers=300))
    assert [row.metric for row in rows] == list(EXPECTED)
    for row in rows:
        assert row.coverage + 2 * row.error >= coverage.LEAST, row
        assert row.ratio <= coverage.LONGEST, row
    assert rows[0].cases_alone < 0.8


@pytest.mark.parametrize("shape", [{}, {"spread": 1.5}, {"missed": 0.1}])
def test_simulated_scores_have_the_auc_that_is_asked_for(shape: dict[str, float]) -> None:
    setting = coverage.Setting("binary", 40_000, 0.5, 0, **shape).at_auc(0.9)
    y, p, _ = coverage.simulate(setting, np.random.default_rng(0))
    assert value_of("roc_auc", y, [p]) == pytest.approx(0.9, abs=0.006)


def test_every_metric_is_measured_but_those_without_an_interval() -> None:
    assert set(METRICS) - set(coverage.TASK_OF) == set(coverage.NO_INTERVAL)
    settings = list(coverage.settings_of(list(coverage.TASK_OF), coverage.CASES, coverage.PREVALENCES, (0,)))
    assert {name for _, names in settings for name in names} == set(coverage.TASK_OF)


def test_a_cell_misses_its_goals_by_coverage_length_or_width() -> None:
    setting = coverage.Setting("binary", 100, 0.2, 0)
    good = coverage.Row(setting, "roc_auc", 20.0, 0.94, 0.01, 1.1, 0.0, 0.05)
    assert good.holds
    for wrong in ({"coverage": 0.9}, {"ratio": 1.6}, {"shortest": 0.0}):
        row = coverage.Row(**{**vars(good), **wrong})
        assert not row.holds
        assert coverage.Row(**{**vars(row), "units": 5.0}).holds == ("ratio" in wrong), "only longer if units are few"
    refused = coverage.Row(**{**vars(good), "coverage": np.nan, "error": np.nan, "refused": 1.0, "shortest": np.inf})
    assert not refused.holds
    assert coverage.Row(**{**vars(refused), "units": 5.0}).holds


@pytest.mark.parametrize(("ratio", "missed"), [(1.4, 0), (1.6, 1)])
def test_the_length_of_the_interval_over_draws_and_cases_is_checked(
    ratio: float, missed: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(coverage, "STUDIES", STUDIES[:1])
    row = Combined("roc_auc", 0.95, 0.01, 0.9, ratio)
    monkeypatch.setattr(coverage, "measure_expected", lambda *_, **__: iter([row]))
    with pytest.raises(SystemExit, match="1 rows miss") if missed else nullcontext():
        coverage.print_expected(10, 1)
    assert capsys.readouterr().out.count("MISSED") == missed


def test_the_table_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    coverage.main(
        ["--metric", "accuracy", "--cases", "60", "--prevalence", "0.5", "--patients", "0", "--repeats", "40"]
    )
    lines, summary = (part.splitlines() for part in capsys.readouterr().out.split("\n\n"))
    assert summary[-1].startswith("| accuracy | 2 | 0.")
    assert lines[0].startswith("| task | metric |")
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| binary", "| multiclass"]
    assert 0 <= np.float64(lines[2].split(" | ")[6]) <= 1
