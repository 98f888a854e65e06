"""The calibration of rows is that of `mt.calibration` on their stored predictions, shown under the table of errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from mt.cli import group
from mt.errors import InputError
from mt.probe.reliability.row_calibration import TITLES, calibration_of
from mt.probe.scores.calibration import calibration
from tests.probe.features import QUICK, probed, store_of, write_pair

NAMES = dict(zip(TITLES, ("intercept", "slope", "observed_expected"), strict=True))


@pytest.mark.parametrize("options", [{}, {"task": "multiclass", "n_classes": 3}, {"grouped": True}])
def test_the_numbers_of_one_draw_are_those_of_the_public_function(tmp_path: Path, options: dict[str, Any]) -> None:
    write_pair(tmp_path, **options)
    study = probed(tmp_path, **{**QUICK, "seeds": 1}, metrics=["ece"])
    (score,) = study.scores
    with store_of(study) as store:
        fit = store.fit(score.fit)
        cases = store.cases(fit.cases)
        for _ in range(2):  # the second one is read from the store
            found = calibration_of([score], store)
            own = calibration(cases.y, fit.probabilities.astype(float), groups=cases.groups)
            assert found.ece.debiased == pytest.approx(own.ece_debiased)
            expected = own.ece_if_calibrated
            assert (found.ece.if_calibrated, found.ece.low, found.ece.high) == pytest.approx(
                (expected.value, expected.low, expected.high)
            )
            for name, plain in NAMES.items():
                mine, theirs = found.measures[name], getattr(own, plain)
                assert (mine.value, mine.low, mine.high) == pytest.approx((theirs.value, theirs.low, theirs.high))


def test_several_draws_have_the_mean_and_one_interval(tmp_path: Path) -> None:
    write_pair(tmp_path)
    study = probed(tmp_path, **QUICK, metrics=["ece"])
    with store_of(study) as store:
        both, each = calibration_of(study.scores, store), [calibration_of([one], store) for one in study.scores]
    for name in TITLES:
        assert both.measures[name].value == pytest.approx(np.mean([one.measures[name].value for one in each]))
        assert both.measures[name].low < both.measures[name].value < both.measures[name].high
    assert both.ece.debiased == pytest.approx(np.mean([one.ece.debiased for one in each]))


def run(cache: Path, *words: str) -> Any:
    asked = ["probe", "--cache-dir", str(cache), "--fraction", "0.5", "--seeds", "2", "--protocol", "clip", *words]
    return CliRunner().invoke(group, asked, env={"COLUMNS": "180"})


def test_the_table_of_errors_is_followed_by_what_judges_calibration(tmp_path: Path) -> None:
    write_pair(tmp_path)
    shown = run(tmp_path, "--metric", "ece").stdout
    for words in ("debiased 0.", "by chance 0.", "Calibration\n", *TITLES.values(), "95 % interval"):
        assert words in shown
    rows = [json.loads(line) for line in run(tmp_path, "--metric", "ece", "--json").stdout.splitlines()]
    (row,) = [row for row in rows if "calibration" in row]
    low, high = row["calibration_slope_95"]
    assert low < row["calibration_slope"] < high
    assert f"{row['calibration_slope']:.2f} [{low:.2f}, {high:.2f}]" in shown
    assert "Calibration\n" not in run(tmp_path).stdout


@pytest.mark.parametrize("name", ["calibration", *TITLES])
def test_the_name_of_a_measure_leads_to_where_it_is_shown(tmp_path: Path, name: str) -> None:
    write_pair(tmp_path)
    found = run(tmp_path, "--metric", name)
    assert isinstance(found.exception, InputError)
    assert f"'{name}' is not a score of its own: --metric ece prints intercept, slope" in str(found.exception)
