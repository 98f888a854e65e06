"""Comparisons of the rows of a table: which rows may be paired, Holm's family, and the draws and cases behind p."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mt.probe.scores import comparisons as comparing
from mt.probe.scores import score_tables as kept
from mt.probe.scores.comparisons import Comparison, compare, holm
from mt.probe.scores.score_tables import comparisons, competing, marks, score_tables
from mt.probe.tables import print_comparisons
from mt.terminal.tables import interval_text
from tests.probe.features import QUICK, probed, store_of, write_features, write_pair
from tests.report.stores import filled


def test_rows_on_other_test_cases_or_draws_are_not_paired(tmp_path: Path) -> None:
    for model, signal in (("m1", 0.7), ("m2", 0.7), ("fewer-tested", 3.0), ("fewer-trained", 3.0)):
        write_pair(tmp_path, model=model, signal=signal)
    write_features(tmp_path, model="fewer-tested", split="test", n=60, signal=3.0)
    write_features(tmp_path, model="fewer-trained", n=100, signal=3.0)
    study = probed(tmp_path, **QUICK)
    store = store_of(study)
    ((grid),) = score_tables(study.scores, store)
    (budget,) = grid.budgets
    assert set(competing(grid, budget, store)) == {"m1", "m2"}
    assert max(grid.rows, key=lambda row: grid.cells[row, budget].spread.mean).startswith("fewer")
    found = marks(grid, budget, store)
    assert set(found) == {"m1", "m2"}
    assert found[max(found, key=lambda row: grid.cells[row, budget].spread.mean)] == "best"
    assert [(pair.a, pair.b) for pair in comparisons([grid], store)] == [("m1", "m2")]


def _question(pair: Comparison) -> tuple[str, float | None, str | None]:
    """Return the metric, fraction and subgroup of a comparison of stored scores."""
    assert pair.subject is not None
    assert pair.budget is not None
    return pair.subject.metric, pair.budget.fraction, pair.subject.subgroup


def test_the_family_of_holm_holds_every_subgroup_of_a_dataset_budget_and_metric(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "RESAMPLES", 200)
    sex: dict[str, Any] = {"columns": {"sex": ["F", "M"] * 40}}
    for model, signal in (("m1", 0.7), ("m2", 0.2), ("m3", 0.4)):
        write_features(tmp_path, model=model, signal=signal)
        write_features(tmp_path, model=model, split="test", n=80, signal=signal, **sex)
    study = probed(tmp_path, protocol="clip", fractions=[0.2, 0.5], seeds=1, metrics=["roc_auc", "brier"], by="sex")
    found = comparisons(score_tables(study.scores, store_of(study)), store_of(study))
    assert len(found) == 2 * 2 * 2 * 3
    for metric in ("roc_auc", "brier"):
        for fraction in (0.2, 0.5):
            family = [pair for pair in found if _question(pair)[:2] == (metric, fraction)]
            assert {_question(pair)[2] for pair in family} == {"F", "M"}
            np.testing.assert_allclose([pair.p_holm for pair in family], holm([pair.p for pair in family]))


def test_p_counts_among_ten_thousand_joint_resamples(tmp_path: Path) -> None:
    for model in ("m1", "m2"):
        write_pair(tmp_path, model=model)
    study = probed(tmp_path, **QUICK)
    (pair,) = comparisons(score_tables(study.scores, store_of(study)), store_of(study))
    assert (pair.n_resamples, pair.n_draws, pair.redrawn) == (10_000, 2, 0)
    assert pair.p * 10_001 == pytest.approx(round(pair.p * 10_001))
    assert pair.p >= 1 / 10_001


def test_a_new_revision_of_comparisons_computes_them_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "RESAMPLES", 200)
    for model in ("m1", "m2"):
        write_pair(tmp_path, model=model)
    store = store_of(study := probed(tmp_path, **QUICK))
    (table,) = score_tables(study.scores, store)
    (budget,) = table.budgets
    before = comparisons([table], store), marks(table, budget, store)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(kept, "replicate_scores", refuse)
    assert (comparisons([table], store), marks(table, budget, store)) == before
    monkeypatch.setattr(comparing, "REVISION", comparing.REVISION + 1)
    for ask in (lambda: comparisons([table], store), lambda: marks(table, budget, store)):
        with pytest.raises(AssertionError, match="computed again"):
            ask()


def test_rows_with_the_same_predictions_are_printed_as_such(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for method, strength in (("concat", 0.8), ("dvme", 0.8), ("average", 1.2)):
        store = filled(tmp_path / "s.sqlite", models={"a + b": strength}, method=method, seeds=2, budgets=[0.1])
    found = {(pair.a, pair.b): pair for pair in comparisons(score_tables(store.scores(), store), store)}
    same = found["concat: a + b", "dvme: a + b"]
    print_comparisons([same])
    text = capsys.readouterr().out
    assert "+0.000 (same predictions)" in text
    assert "[" not in text.split("same predictions")[1].split("Intervals")[0], "no interval"
    row = same.row()
    assert [row[name] for name in ("reason", "low", "high", "p", "p_holm")] == ["same predictions", *[None] * 4]
    others = [pair for pair in found.values() if pair is not same]
    assert [pair.p_holm for pair in others] == holm([pair.p for pair in others])
    assert {pair.n_family for pair in found.values()} == {2}, "twins do not count"


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ((0.0121, -0.0042, 0.0279), "+0.012 [-0.004, +0.028]"),
        ((-0.00001, -0.00003, 0.00002), "-0.00001 [-0.00003, +0.00002]"),
        ((0.2, 0.2, 0.2000004), "+0.2000000 [+0.2000000, +0.2000004]"),
    ],
)
def test_an_interval_is_never_printed_with_zero_width(numbers: tuple[float, float, float], text: str) -> None:
    assert interval_text(*numbers) == text


def test_rows_of_scaled_probabilities_leave_the_p_of_others_as_it_is(tmp_path: Path) -> None:
    """Holm's family grew from 3 to 15 pairs with `--calibrate`, of which most are of rows that score alike."""
    models = {"simclr": 0.6, "swav": 0.9, "dino-large": 1.0}
    every: dict[str, Any] = {"seeds": 2, "budgets": [0.1], "metrics": ["roc_auc", "log_loss"]}
    store = filled(tmp_path / "s.sqlite", models=models, **every)

    def compared() -> dict[tuple[str, str, str], Comparison]:
        pairs = comparisons(score_tables(store.scores(), store), store)
        return {(_question(pair)[0], pair.a, pair.b): pair for pair in pairs}

    plain = compared()
    assert [pair.n_family for pair in plain.values()] == [3] * 6
    filled(tmp_path / "s.sqlite", models=models, **every, code=2, outcome={"protocol": "default, temperature"})
    both = compared()
    assert {place: both[place] for place in plain} == plain
    added = [pair for place, pair in both.items() if place not in plain]
    assert {_question(pair)[0] for pair in added} == {"log_loss"}
    assert sorted((pair.scaled, pair.n_family) for pair in added) == [(1, 9)] * 9 + [(2, 3)] * 3


def test_a_table_of_scaled_rows_alone_is_compared(tmp_path: Path) -> None:
    scaled: dict[str, Any] = {"outcome": {"protocol": "default, temperature"}, "seeds": 2, "budgets": [0.1]}
    store = filled(tmp_path / "s.sqlite", models={"simclr": 0.6, "swav": 0.9}, **scaled)
    assert [pair.scaled for pair in comparisons(score_tables(store.scores(), store), store)] == [2]


def test_a_comparison_turned_is_the_other_difference() -> None:
    found = compare("brier", [0, 1, 1, 0], [[0.2, 0.6, 0.9, 0.3]], [[0.1, 0.9, 0.9, 0.2]], n_resamples=200)
    turned = found.turned()
    assert (turned.a, turned.b) == (found.b, found.a)
    assert (turned.difference, turned.low, turned.high) == (-found.difference, -found.high, -found.low)
    assert repr(turned.turned()) == repr(found)  # NaN equals no NaN
