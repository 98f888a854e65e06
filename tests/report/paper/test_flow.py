"""The flow of cases counts images, and patients where feature files know them; it names none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mt.cache.catalog import Catalog
from mt.report import collect
from mt.report.paper.methods_text import methods
from mt.types import MISSING
from tests.probe.features import QUICK, probed, store_of, write_features


def rows_of(text: str) -> list[list[str]]:
    """Return the cells of the flow's table."""
    table = text.partition("### Flow of cases")[2].partition("### Table 1")[0]
    lines = [line for line in table.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.parametrize("grouped", [True, False])
def test_patients_are_counted_where_they_are_known(tmp_path: Path, *, grouped: bool) -> None:
    lost = [0, 1, 2, 3, 9]  # all four images of patient 0, and one of patient 2
    write_features(tmp_path, grouped=grouped, n=120, unreadable=lost)
    write_features(tmp_path, split="test", grouped=grouped, n=80)
    with store_of(probed(tmp_path, **QUICK)) as store:
        text = methods(store, collect(store), Catalog(tmp_path))[0]
        gone = methods(store, collect(store), None)[0]
    heading, _, train, test = rows_of(text)
    assert train[:5] == ["train", "m1", "120", "5 unreadable", "115"]
    assert test[:5] == ["test", "m1", "80", "none", "80"]
    assert "patient-" not in text
    if grouped:
        assert heading[5:] == ["patients or groups listed", "excluded", "excluded in part", "used"]
        assert (train[5:], test[5:]) == (["30", "1", "1", "29"], ["20", "0", "0", "20"])
    else:
        assert len(heading) == 5
        assert "Patients or groups are not counted: the feature files hold none." in text
    assert "Patients or groups are not counted: the feature files are gone." in gone


def test_images_without_a_label_are_counted(tmp_path: Path) -> None:

    labels = np.arange(120) % 2
    labels[:7] = MISSING
    write_features(tmp_path, labels=labels)
    write_features(tmp_path, split="test", n=80)
    with store_of(probed(tmp_path, **QUICK)) as store:
        text = methods(store, collect(store), Catalog(tmp_path))[0]
    assert rows_of(text)[2][4] == "120, 7 without a label"
