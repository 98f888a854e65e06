"""No cell of any CSV file that mt writes can run in a spreadsheet, whatever names people choose."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mt.cache.exporting import export
from mt.cache.feature_file.read import open_features
from mt.predict.predicted import Predictions
from mt.report import write_report
from mt.report.request import ReportRequest
from mt.terminal.spreadsheet import as_written, inert
from tests.probe.features import probed, write_features
from tests.report.stores import filled

STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d")
FORMULA = "cmd|' /C calc'!A0"


def running(*texts: str) -> list[str]:
    """Return the cells of CSV texts that a spreadsheet would run."""
    cells = [cell for text in texts for row in csv.reader(io.StringIO(text, newline="")) for cell in row]
    return [cell for cell in cells if cell.startswith(STARTS) and not _number(cell)]


def _number(cell: str) -> bool:
    return cell.strip("+-").replace(".", "", 1).replace("e-", "", 1).isdigit()


def files_in(folder: Path) -> list[str]:
    paths = sorted(folder.rglob("*.csv"))
    assert paths
    return [path.read_bytes().decode() for path in paths]


@pytest.mark.parametrize("start", STARTS)
def test_text_that_would_run_gets_an_apostrophe_and_loses_it_again(start: str) -> None:
    cell = f"{start}{FORMULA}"
    assert inert(cell) == f"'{cell}"
    assert as_written(inert(cell)) == cell


@pytest.mark.parametrize("cell", ["-1", "+1.5", "-1e-05", -1.5, None, "", "a=b", "'quoted"])
def test_numbers_and_other_text_stay(cell: Any) -> None:
    assert inert(cell) == cell


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("form", ["csv", "npy"])
def test_an_export_is_inert_in_ids_groups_and_columns(tmp_path: Path, start: str, form: str) -> None:
    name = f"{start}{FORMULA}"
    (tmp_path / "out").mkdir()
    for task, classes in (("multiclass", 3), ("multilabel", 2)):
        file = write_features(
            tmp_path / task,
            n=6,
            task=task,
            n_classes=classes,
            grouped=True,
            class_names=[f"{name}{k}" for k in range(classes)],
            columns={name: [f"{name} value"] * 6},
            ids=[f"{name}{row}" for row in range(6)],
        )
        export(open_features(file), tmp_path / "out" / f"{task}.{form}", form)
    assert running(*files_in(tmp_path / "out")) == []


@pytest.mark.parametrize("start", ["=", "\r"])
def test_the_tables_of_a_report_are_inert_in_every_name(tmp_path: Path, start: str) -> None:
    name = f"{start}{FORMULA}"
    for task, classes in (("binary", 2), ("multilabel", 3), ("multiclass", 3)):
        store = filled(
            tmp_path / "scores.sqlite",
            task=task,
            dataset=f"{name} {task}[seed=3]",
            class_names=[f"{name}{k}" for k in range(classes)],
            models={f"{name} a": 0.3, f"{name} b": 1.0},
            seeds=1,
        )
    write_report(store, ReportRequest(out=tmp_path / "report" / "r.html", export=False))
    texts = files_in(tmp_path / "report")
    assert len(texts) > 3
    assert running(*texts) == []


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_predictions_are_inert_in_ids_classes_and_problems(start: str, task: str) -> None:
    name, out = f"{start}{FORMULA}", io.StringIO()
    Predictions(
        [name, f"{name}2"], np.ones((1, 2), np.float32), (f"{name}a", f"{name}b"), task, {f"{name}2": name}
    ).write_csv(out)
    assert running(out.getvalue()) == []


@pytest.mark.parametrize("start", ["=", "\r"])
def test_the_attention_of_saved_bags_is_inert(tmp_path: Path, start: str) -> None:
    name = f"{start}{FORMULA}"
    for split, n in (("train", 40), ("test", 40)):
        write_features(
            tmp_path,
            split=split,
            n=n,
            labels=np.arange(n) // 4 % 2,
            columns={
                "slide": [f"{name}{split}{row // 4}" for row in range(n)],
            },
            ids=[f"{name}{split}{row}" for row in range(n)],
        )
    probed(tmp_path, bag="slide", pool="attention", fractions=[1.0], seeds=1, save=tmp_path / "saved")
    assert running(*files_in(tmp_path / "saved")) == []
