"""Non-inferiority and equivalence: p and interval agree, no verdict claims equality, and few claims are wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks import margins
from mt.cli import group
from mt.errors import InputError
from mt.probe.margin_table import p_of, reading
from mt.probe.request import Margin
from mt.probe.scores.comparisons import replicate_scores
from mt.probe.scores.margins import MarginTest, margin_test, margin_tests
from mt.probe.scores.score_tables import score_tables
from mt.probe.tables import said
from tests.probe.features import write_pair
from tests.report.stores import filled


def _sample(shift: float, n: int, seed: int, draws: int = 1) -> tuple[np.ndarray, dict[str, list[np.ndarray]]]:
    """Return labels, and scores of two methods; the first separates the classes by `shift` standard deviations less."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % 2)
    both = rng.normal(size=n) * 0.7
    predictions = {
        name: [signal * y + both + 0.7 * rng.normal(size=n) for _ in range(draws)]
        for name, signal in (("new", 1.5 - shift), ("old", 1.5))
    }
    return y, predictions


@pytest.mark.parametrize("draws", [1, 3])
def test_a_bound_is_beyond_the_margin_exactly_where_p_is_small(draws: int) -> None:
    for seed in range(6):
        y, predictions = _sample(0.1 * seed, 120, seed, draws)
        replicates = replicate_scores("roc_auc", y, predictions, n_resamples=1000)
        pair = replicates.compare("new", "old")
        for margin in (0.01, 0.05, 0.1, 0.2):
            test = margin_test(replicates, "new", "old", margin)
            assert (test.noninferior <= 0.025) == (pair.low > -margin)
            assert (test.equivalent <= 0.025) == (pair.low > -margin and pair.high < margin)
            assert (test.inferior <= 0.025) == (pair.high < -margin)


def test_a_loss_is_better_where_it_is_less() -> None:
    y = np.arange(200) % 2
    good, bad = np.where(y == 1, 0.8, 0.2), np.full(200, 0.5)
    predictions = {"good": [good + 0.01 * np.sin(np.arange(200))], "bad": [bad + 0.01 * np.cos(np.arange(200))]}
    replicates = replicate_scores("log_loss", y, predictions, n_resamples=1000)
    assert margin_test(replicates, "good", "bad", 0.01).verdict == "superior"
    assert margin_test(replicates, "bad", "good", 0.01).verdict == "inferior"
    assert margin_test(replicates, "bad", "good", 0.6).verdict == "equivalent"


def test_on_the_edge_of_the_margin_a_wrong_claim_is_as_rare_as_stated() -> None:
    """The truth is worse by exactly the margin: non-inferiority is then claimed in at most 2.5 % of samples."""
    truth = 0.5
    y, predictions = _sample(truth, 200_000, 0)
    scores = replicate_scores("roc_auc", y, predictions, n_resamples=2).scores[:, 0]
    margin, repeats = float(scores[1] - scores[0]), 300
    claims = 0
    for seed in range(repeats):
        y, predictions = _sample(truth, 100, 1000 + seed)
        replicates = replicate_scores("roc_auc", y, predictions, n_resamples=400)
        claims += margin_test(replicates, "new", "old", margin).noninferior <= 0.025
    error = np.sqrt(0.025 * 0.975 / repeats)
    assert claims / repeats < 0.025 + 3 * error


def test_holm_counts_the_rows_against_the_reference(tmp_path: Path) -> None:
    store = filled(tmp_path / "s.sqlite", models={"simclr": 0.6, "swav": 0.9, "dino": 0.95}, seeds=2, budgets=[0.1])
    tests = margin_tests(score_tables(store.scores(), store), store, reference="swav", margin=0.05)
    assert [(test.pair.a, test.pair.b, test.pair.n_family) for test in tests] == [
        ("simclr", "swav", 2),
        ("dino", "swav", 2),
    ]
    for test in tests:
        assert test.holm[0] >= test.noninferior
        assert test.verdict in {"equivalent", "non-inferior", "superior", "inferior", "undecided"}
    again = margin_tests(score_tables(store.scores(), store), store, reference="swav", margin=0.05)
    assert again == tests


def test_scaled_rows_leave_the_verdicts_of_others_as_they_are(tmp_path: Path) -> None:
    models = {"simclr": 0.6, "swav": 0.9, "dino-large": 0.95}
    every: dict[str, Any] = {"seeds": 2, "budgets": [0.1], "metrics": ["roc_auc", "log_loss"]}
    store = filled(tmp_path / "s.sqlite", models=models, **every)

    def tested() -> list[MarginTest]:
        return margin_tests(score_tables(store.scores(), store), store, reference="swav", margin=0.05)

    plain = tested()
    filled(tmp_path / "s.sqlite", models=models, **every, code=2, outcome={"protocol": "default, temperature"})
    added = [test for test in tested() if test not in plain]
    assert len(tested()) == len(plain) + len(added)
    assert {(test.pair.n_family, test.pair.scaled) for test in added} == {(3, 1)}
    assert {test.pair.subject.metric for test in added if test.pair.subject} == {"log_loss"}


def test_the_same_predictions_are_equivalent_and_a_difference_without_spread_is_undecided() -> None:
    y, predictions = _sample(0.1, 60, 0)
    twins = replicate_scores("roc_auc", y, {**predictions, "copy": predictions["old"]}, n_resamples=1000)
    test = margin_test(twins, "copy", "old", 0.05)
    assert (test.verdict, test.pair.reason) == ("equivalent", "same predictions")
    assert said(test.pair) == "+0.000 (same predictions)"
    both = {"right": [y + 0.0], "too": [y + 0.1 * np.sin(np.arange(60))]}
    test = margin_test(replicate_scores("roc_auc", y, both, n_resamples=1000), "right", "too", 0.05)
    assert (test.verdict, test.pair.reason) == ("undecided", "same on every resample")
    assert list(map(p_of, test.holm)) == ["–"] * 3


def test_the_note_says_which_number_decides() -> None:
    """One comparison's interval can lie beyond the margin where Holm's p, over several, shows nothing."""
    y, predictions = _sample(0.0, 150, 3)
    one = margin_test(replicate_scores("roc_auc", y, predictions, n_resamples=1000), "new", "old", 0.05)
    alone, three = (replace(one, pair=replace(one.pair, n_family=count)) for count in (1, 3))
    assert "Each follows from the 95 % interval" in reading([alone])
    assert "p decides (one-sided, 2.5 %), adjusted by Holm over 3 comparisons" in reading([three])
    assert "interval is of one comparison alone" in reading([three])


@pytest.mark.parametrize(
    ("size", "reference", "message"),
    [
        (0.02, None, "Add: --reference"),
        (None, "dino", "Add: --margin D"),
        (0.0, "dino", "--margin must be above 0"),
    ],
)
def test_a_margin_and_its_reference_go_together(size: float | None, reference: str | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Margin.of(size, reference)


def test_the_command_prints_what_is_shown_and_never_calls_rows_equal(tmp_path: Path) -> None:
    for model in ("m1", "m2"):
        write_pair(tmp_path, model=model)

    def run(*words: str) -> str:
        asked = ["probe", "--cache-dir", str(tmp_path), "--fraction", "0.5", "--seeds", "2", "--protocol", "clip"]
        asked += ["--margin", "0.05", "--reference", *words]
        return CliRunner().invoke(group, asked, catch_exceptions=False).output

    table = run("m1")
    assert "Against m1, margin 0.05" in table
    assert "that does not show that it is as good: see --margin" in " ".join(table.split())
    rows = [json.loads(line) for line in run("m1", "--json").splitlines() if line.startswith("{")]
    (test,) = [row for row in rows if "margin" in row]
    assert (test["reference"], test["margin"], test["comparison"]) == ("m1", 0.05, "m2 - m1")
    assert {"verdict", "p_noninferior", "p_equivalent", "p_noninferior_holm", "low", "high"} <= test.keys()
    with pytest.raises(InputError, match="No row 'm3'"):
        run("m3")


def test_at_the_margin_wrong_claims_are_as_rare_as_stated_with_patients_and_draws() -> None:
    """The short form of `python -m benchmarks.margins`."""
    row = margins.measure(margins.Setting(120, 0.4, 40, 0.08, draws=2), repeats=120, resamples=300)
    assert row.holds, row
    assert row.equivalent <= row.noninferior
