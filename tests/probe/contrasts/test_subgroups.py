"""Differences between subgroups: the pairs, intervals that respect patients, and too few cases refused or flagged."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks import contrasts
from mt.cli import group
from mt.probe.contrasts.difference import difference
from mt.probe.contrasts.subgroups import SubgroupDifference, subgroup_differences
from mt.probe.scores.comparisons import holm
from mt.probe.scores.metrics import over_cases
from mt.probe.scores.score_tables import comparisons, score_tables
from mt.probe.scores.scoring import LEAST_UNITS
from mt.probe.tables import print_comparisons
from mt.types import LabelledRows, ScoredRows
from tests.probe.features import QUICK, probed, store_of, write_features


def written(cache: Path, columns: dict[str, list[Any]], n: int = 200, **options: Any) -> None:
    write_features(cache, split="train", columns={name: ["x"] * 120 for name in columns})
    write_features(cache, split="test", n=n, columns=columns, **options)


def found(cache: Path, **asked: Any) -> list[SubgroupDifference]:
    answers = probed(cache, **{**QUICK, **asked})
    with store_of(answers) as store:
        return subgroup_differences(score_tables(answers.scores, store), store)


def cases(n: int, seed: int, *, patients: int = 0, shift: float = 0.0) -> ScoredRows:
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % 2)
    p = 1 / (1 + np.exp(-(rng.normal(size=n) + (1.5 - shift) * (y - 0.5))))
    groups = [f"{seed}-{row % patients}" for row in range(n)] if patients else None
    return ScoredRows(LabelledRows(None, y, groups), p)


def test_two_values_make_one_difference_and_more_stand_against_the_rest(tmp_path: Path) -> None:
    sex = (["F", "M", "M", ""] * 50)[:200]
    written(tmp_path, {"sex": sex, "site": (["x", "y", "z", "x"] * 50)[:200], "one": ["same"] * 200})
    (pair,) = found(tmp_path, by="sex")
    assert (pair.a, pair.b, pair.found.n_draws, pair.n_family) == ("F", "M", 2, 1)
    several = found(tmp_path, by="site")
    assert [(one.a, one.b, one.n_family) for one in several] == [(name, "the rest", 3) for name in "xyz"]
    assert found(tmp_path, by="one") == []
    for one in several:
        assert one.simultaneous[0] < one.found.low <= one.found.value <= one.found.high < one.simultaneous[1]


def test_a_difference_is_that_of_the_two_subgroups_scores(tmp_path: Path) -> None:
    written(tmp_path, {"sex": ["F", "M"] * 100})
    answers = probed(tmp_path, **QUICK, by="sex")
    (one,) = found(tmp_path, by="sex")
    means = {name: np.mean([s.value for s in answers.scores if s.subgroup == name]) for name in "FM"}
    assert one.found.value == pytest.approx(means["F"] - means["M"])
    assert found(tmp_path, by="sex") == [one], "from the store"


def test_patients_on_both_sides_narrow_the_interval_and_are_counted() -> None:
    rng = np.random.default_rng(0)
    n, patient = 400, np.arange(400) // 2  # one case of each patient on each side
    y = np.repeat(rng.permutation(np.arange(n // 2) % 2), 2)
    own = np.repeat(rng.normal(size=n // 2), 2)
    p = 1 / (1 + np.exp(-(y + own + 0.2 * rng.normal(size=n))))
    sides = [ScoredRows(LabelledRows(None, y[k::2], patient[k::2]), p[k::2]) for k in (0, 1)]
    apart = [ScoredRows(LabelledRows(None, y[k::2], 1000 * k + patient[k::2]), p[k::2]) for k in (0, 1)]
    together, independent = (difference("roc_auc", [a], [b]) for a, b in (sides, apart))
    assert (together.shared, independent.shared) == (200, 0)
    assert together.high - together.low < 0.6 * (independent.high - independent.low)


def test_a_side_without_variance_of_its_own_leaves_the_others_interval() -> None:
    a, b = cases(300, 1), cases(300, 2)
    whole = difference("roc_auc", [a], [b])
    ends = [over_cases("roc_auc", one.y, [one.p])[1] for one in (a, b)]
    assert whole.low == pytest.approx(whole.value - np.hypot(whole.a - ends[0].low, ends[1].high - whole.b))
    assert whole.high == pytest.approx(whole.value + np.hypot(ends[0].high - whole.a, whole.b - ends[1].low))
    assert not whole.shared


def test_draws_widen_the_interval() -> None:
    a, b = [cases(300, 1), cases(300, 1, shift=1.0)], [cases(300, 2), cases(300, 2)]
    one, several = difference("roc_auc", a[:1], b[:1]), difference("roc_auc", a, b)
    assert several.n_draws == 2
    assert several.high - several.low > 2 * (one.high - one.low), "two draws differ much"


@pytest.mark.parametrize(
    ("positives", "flag"), [(LEAST_UNITS - 1, "no interval: fewer than 5 test"), (8, "fewer than 20 test")]
)
def test_few_cases_are_refused_or_flagged(tmp_path: Path, positives: int, flag: str) -> None:
    labels = np.array([1] * positives + [0] * 40 + [0, 1] * 60)
    written(tmp_path, {"sex": ["F"] * (positives + 40) + ["M"] * 120}, n=len(labels), labels=labels)
    (one,) = found(tmp_path, by="sex")
    assert one.flags[0].startswith(flag)
    assert one.found.units == (positives, 60)
    assert (one.row()["low"] is None) == flag.startswith("no interval")
    assert not one.shown


def test_a_subgroup_of_one_class_has_no_difference(tmp_path: Path) -> None:
    labels = np.array([0] * 50 + [0, 1] * 40)
    written(tmp_path, {"sex": ["F"] * 50 + ["M"] * 80}, n=130, labels=labels)
    (one,) = found(tmp_path, by="sex")
    assert one.row()["difference"] is None
    assert "not defined" in one.flags[0]


def test_one_prediction_per_group_keeps_patients_together(tmp_path: Path) -> None:
    labels = np.repeat(np.arange(50) % 2, 4)
    written(tmp_path, {"view": ["PA", "AP"] * 100}, labels=labels, grouped=True)
    (rows,), (groups,) = found(tmp_path, by="view"), found(tmp_path, by="view", level="group")
    assert rows.found.shared == groups.found.shared == 50
    assert groups.subject.level == "group"


def test_the_command_prints_the_differences_as_table_and_json(tmp_path: Path) -> None:
    written(tmp_path, {"sex": ["F", "M"] * 100})

    def run(*words: str) -> str:
        asked = [
            "probe",
            "--cache-dir",
            str(tmp_path),
            "--fraction",
            "0.5",
            "--seeds",
            "2",
            "--protocol",
            "clip",
            *words,
        ]
        return CliRunner().invoke(group, asked, catch_exceptions=False, env={"COLUMNS": "160"}).output

    table = run("--by", "sex")
    assert "Differences between subgroups" in table
    assert "sex: F - M" in table
    assert "does not show that subgroups are served equally well" in " ".join(table.split())
    rows = [json.loads(line) for line in run("--by", "sex", "--json").splitlines() if line.startswith("{")]
    (row,) = [row for row in rows if "subgroup_difference" in row]
    assert (row["subgroup_difference"], row["by"], row["n_family"], row["flags"]) == ("F - M", "sex", 1, [])
    assert row["low"] < row["difference"] < row["high"]
    assert row["p"] == row["p_holm"] > 0
    assert "p (Holm)" in table
    assert "Differences" not in run()


@pytest.mark.parametrize(
    ("metric", "shift", "n_draws"),
    [
        *itertools.product(["roc_auc", "f1", "log_loss"], [0.0, 0.4, 0.9], [1, 3]),
        ("average_precision", 0.4, 1),
        ("sensitivity_at_95_specificity", 0.4, 1),
    ],
)
def test_p_is_one_minus_the_level_at_which_the_interval_reaches_zero(metric: str, shift: float, n_draws: int) -> None:
    a = [cases(200, 1, patients=80, shift=0.1 * k) for k in range(n_draws)]
    b = [cases(150, 1, patients=60, shift=shift + 0.1 * k) for k in range(n_draws)]
    found = difference(metric, a, b, tested=True)
    assert (found.p <= 0.05) == found.excludes_zero
    at = difference(metric, a, b, level=1 - found.p)
    nearer = at.low if found.value > 0 else at.high
    assert nearer == pytest.approx(0, abs=2e-4)
    assert np.isnan(difference(metric, a, b).p), "only if asked"


def test_equal_scores_have_p_1_and_scores_far_apart_a_tiny_one() -> None:
    a = cases(200, 1)
    assert difference("roc_auc", [a], [a], tested=True).p == 1
    assert 0 < difference("roc_auc", [a], [cases(200, 2, shift=4.0)], tested=True).p < 1e-12


def test_p_values_are_adjusted_by_holm_over_all_rows_of_a_budget(tmp_path: Path) -> None:
    labels = np.array([0] * 50 + [0, 1] * 75)
    site = ["w"] * 50 + ["x", "x", "y", "y", "z", "z"] * 25
    for model in ("m1", "m2"):
        write_features(tmp_path, model=model, split="train", columns={"site": ["x"] * 120})
        write_features(tmp_path, model=model, split="test", n=200, labels=labels, columns={"site": site})
    several = found(tmp_path, by="site")
    assert len(several) == 8
    tested = [one for one in several if one.a != "w"]
    assert all(np.isnan([one.p_holm, one.found.p]).all() for one in several if one.a == "w"), "one class"
    assert [one.p_holm for one in tested] == holm([one.found.p for one in tested])
    for one in tested:
        assert (one.found.p <= 0.05) == one.found.excludes_zero
        assert one.p_holm >= one.found.p
        assert one.p_holm <= 0.05 or not one.shown, "what Bonferroni's interval shows, Holm shows too"
        assert one.row()["p"] == one.found.p


@pytest.mark.parametrize(
    "setting",
    [
        contrasts.Setting("by-case", 1, 300, 0.3, 75, 0.4, 0.0),
        contrasts.Setting("by-patient", 3, 300, 0.3, 0, 0.3, 0.0),
    ],
)
def test_without_a_difference_p_is_rarely_small(setting: contrasts.Setting) -> None:
    """The type I error of docs/intervals.md on fewer simulations: a Monte-Carlo error of 0.018."""
    for row in contrasts.measure(setting, repeats=150, metrics=("roc_auc", "accuracy"), classifiers=10):
        assert row.rejected <= 0.05 + 2.5 * 0.018, row


def test_p_is_uniform_without_a_difference() -> None:
    p = [difference("accuracy", [cases(200, k)], [cases(200, 1000 + k)], tested=True).p for k in range(150)]
    for level, error in ((0.05, 0.018), (0.2, 0.033), (0.5, 0.041)):
        assert abs(np.mean(np.array(p) <= level) - level) < 3 * error, level


@pytest.mark.parametrize("setting", [contrasts.SETTINGS[0], contrasts.Setting("external", 5, 300, 0.3, 60)])
def test_differences_cover(setting: contrasts.Setting) -> None:
    """The short form of `python -m benchmarks.contrasts`."""
    rows = list(contrasts.measure(setting, repeats=80, metrics=("roc_auc", "accuracy", "log_loss"), classifiers=30))
    for row in rows:
        assert row.holds, row
        assert row.refused == 0
        assert row.ratio < 1.6, row


@pytest.mark.parametrize(
    ("positives", "flag"), [(LEAST_UNITS - 1, "no interval: fewer than 5"), (8, "fewer than 20 test"), (40, "")]
)
def test_two_models_in_a_subgroup_of_few_cases_are_refused_or_flagged(
    tmp_path: Path, positives: int, flag: str
) -> None:
    labels = np.array([1] * positives + [0] * 40 + [0, 1] * 60)
    sex = {"sex": ["F"] * (positives + 40) + ["M"] * 120}
    for model in ("m1", "m2"):
        write_features(tmp_path, model=model, split="train")
        write_features(tmp_path, model=model, split="test", n=len(labels), labels=labels, columns=sex)
    answers = probed(tmp_path, **QUICK, by="sex")
    with store_of(answers) as store:
        found = comparisons(score_tables(answers.scores, store), store)
        pairs = {pair.subject.subgroup: pair for pair in found if pair.subject is not None}
        print_comparisons(list(pairs.values()))
    assert pairs["M"].flags == ()
    assert np.isfinite([pairs["M"].low, pairs["M"].p, pairs["M"].p_holm]).all()
    assert "".join(pairs["F"].flags).startswith(flag)
    assert np.isnan(pairs["F"].low) == flag.startswith("no interval") == (pairs["F"].row()["p"] is None)
