"""The report shows scores by test folds as an experiment of its own, never beside scores on a test split."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mt.report.labels_needed import labels_needed
from mt.report.panels import collect, stored_experiments
from mt.report.reproduce import commands
from mt.results.store import ScoreStore
from tests.probe.features import probed, write_pair

ASKED = {"protocol": "clip", "fractions": [0.3, 1.0], "seeds": 2}
FOLDS = {**ASKED, "test_folds": 3, "repeats": 2}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScoreStore]:
    cache = tmp_path_factory.mktemp("folds")
    for model, signal in (("m1", 0.3), ("m2", 0.9)):
        write_pair(cache, model=model, signal=signal)
    probed(cache, **ASKED)
    with ScoreStore(probed(cache, **FOLDS).store) as store:
        yield store


def test_folds_have_a_name_and_a_panel_of_their_own(store: ScoreStore) -> None:
    names = [one.name for one in stored_experiments(store)]
    assert sorted(names) == ["m1, 3-fold x 2", "m1, test split", "m2, 3-fold x 2", "m2, test split"]
    (newest,) = collect(store)
    assert newest.title == "toy, 3-fold x 2"
    assert set(newest.names) == {"m1, 3-fold x 2", "m2, 3-fold x 2"}
    assert {one.name for one in newest.others} == {"m1, test split", "m2, test split"}
    both = collect(store, names=["m1, 3-fold x 2", "m2, test split"])
    assert [(panel.title, panel.names) for panel in both] == [
        ("toy", ("m2, test split",)),
        ("toy, 3-fold x 2", ("m1, 3-fold x 2",)),
    ]


def test_cells_marks_and_labels_needed_are_those_of_a_test_split(store: ScoreStore) -> None:
    (panel,) = collect(store)
    draws = {(cell.name[:2], str(cell.budget)): len(cell.scores) for cell in panel.headline}
    assert draws == {("m1", "30 %"): 4, ("m1", "100 %"): 2, ("m2", "30 %"): 4, ("m2", "100 %"): 2}
    assert {cell.mark for cell in panel.headline} <= {"best", "tied", ""}
    assert [cell.n_labels for cell in panel.curve("m2, 3-fold x 2")] == [40, 133]
    needed = labels_needed(panel, "m2, 3-fold x 2", "m1, 3-fold x 2")
    assert needed is not None
    assert (needed.labels, needed.sign) == (40, "≤")


def test_the_commands_that_reproduce_it_name_the_folds(store: ScoreStore) -> None:
    said = commands(collect(store))
    probes = [line for line in said if line.startswith("mt probe")]
    assert len(probes) == 2
    assert "--fraction 0.3 --test-folds 3 --repeats 2 --seeds 2" in probes[0] + probes[1]
    assert "--fraction 1 --test-folds 3 --repeats 2 --seeds 1" in probes[0] + probes[1]
