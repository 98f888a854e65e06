"""One curve is one experiment: scores on other features are named and never joined to it."""

from __future__ import annotations

import csv
import io
import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from mt.cache.names import digest
from mt.cli import group
from mt.errors import InputError
from mt.probe.questions import Budget
from mt.report import Panel, collect
from mt.report.charts.efficiency import label_efficiency
from mt.report.charts.figures import records
from mt.report.charts.palette import looks_of
from mt.report.experiments import experiments
from mt.report.labels_needed import labels_needed
from mt.report.origins import Origins
from mt.report.short_names import ShortNames
from mt.report.tables import as_csv, as_latex
from tests.report.stores import filled, outcome_of, tuned

SMALL, LARGE = "efficientnet-lite0 at 32 px, grouped", "efficientnet-lite0 at 64 px, ungrouped"
FEATURIZE = "mt featurize --model efficientnet-lite0 --dataset folder:ihc"
# Two image sizes, and two test sets.
ASKED = [
    f"{FEATURIZE} --image-size 32 --group-regex 'pt(\\d+)'",
    "mt probe --shots 2 --seeds 2",
    f"{FEATURIZE} --image-size 64",
    "mt probe --dataset 'folder:ihc[]' --shots 10 --seeds 2",
]


def run(command: str) -> str:
    """Run a command line of ours; returns its output."""
    ran = CliRunner().invoke(group, shlex.split(command)[1:], catch_exceptions=False)
    assert ran.exit_code == 0, ran.output
    return ran.stdout


def images(folder: Path) -> None:
    """Write 96 images of 24 patients, unequally many each."""
    rng = np.random.default_rng(0)
    for patient in range(24):
        for number in range(2 + patient % 5):
            label = "sick" if (patient + number) % 2 else "well"
            place = folder / label / f"pt{patient:02d}_{number}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 200, (40, 40, 3)) + np.array([40 * (label == "sick"), 0, 0])
            Image.fromarray(pixels.astype(np.uint8)).save(place)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where someone featurized and probed twice, with other settings."""
    folder = tmp_path_factory.mktemp("work")
    images(folder / "ihc")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MT_CACHE_DIR", str(folder / "cache"))
        for command in ASKED:
            run(command)
    return folder


@pytest.fixture
def here(work: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(work)
    monkeypatch.setenv("MT_CACHE_DIR", str(work / "cache"))
    return work


def scores(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((folder / "scores.csv").read_text(encoding="utf-8"))))


def test_both_are_listed_under_names_that_say_what_differs(here: Path) -> None:
    listed = {one["experiment"]: one for one in map(json.loads, run("mt report --list --json").splitlines())}
    assert {name: one["draws"] for name, one in listed.items()} == {SMALL: {"2 shots": 2}, LARGE: {"10 shots": 2}}
    assert {name for name, one in listed.items() if one["shown"]} == {SMALL}
    assert listed[SMALL]["features"]["test"] != listed[LARGE]["features"]["test"]
    assert SMALL in run("mt report --list")


@pytest.mark.parametrize(
    ("options", "shown", "budget"),
    [
        ("", SMALL, "2 shots"),
        (f"--experiment '{SMALL}'", SMALL, "2 shots"),
        (f"--experiment '{LARGE}'", LARGE, "10 shots"),
    ],
)
def test_one_of_them_is_shown_and_the_other_is_named(here: Path, options: str, shown: str, budget: str) -> None:
    written = json.loads(run(f"mt report --json --map-points 0 --out one.html {options}"))
    assert [(row["method"], row["budget"], row["n_draws"]) for row in scores(here / "one")] == [(shown, budget, "2")]
    assert written["others"] == [name for name in (SMALL, LARGE) if name != shown]
    assert f"<b>{written['others'][0]}</b>" in (here / "one.html").read_text(encoding="utf-8")


def test_asked_for_together_they_stand_in_charts_of_their_own(here: Path) -> None:
    run("mt report --map-points 0 --out both.html --experiment efficientnet-lite0")
    assert {row["method"] for row in scores(here / "both")} == {SMALL, LARGE}
    titles = [f"<h2>folder:ihc{settings} <small>" for settings in (r"[group_regex=pt(\d+)]", "")]
    assert all(title in (here / "both.html").read_text(encoding="utf-8") for title in titles)
    assert not list((here / "both").glob("*needed*"))


@pytest.mark.slow
@pytest.mark.parametrize("options", ["", f"--experiment '{LARGE}'", "--experiment efficientnet-lite0"])
def test_the_page_reproduces_what_it_shows(here: Path, options: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run(f"mt report --map-points 0 --out first.html {options}")
    page = (here / "first.html").read_text(encoding="utf-8")
    block = page.partition("<h3>Reproduce</h3>")[2].partition("<pre")[2].partition(">")[2].partition("</pre>")[0]
    commands = [line.replace("&#39;", "'") for line in block.splitlines()]
    assert any("--image-size" in command for command in commands)
    monkeypatch.setenv("MT_CACHE_DIR", str(here / f"again-{len(options)}"))
    for command in commands:
        run(command)
    named = [{**row, "method": row["model"]} for row in scores(here / "first")]
    assert [{**row, "method": row["model"]} for row in scores(here / "report")] == named


def test_an_experiment_that_is_not_there_gets_the_nearest(tmp_path: Path) -> None:
    store = filled(tmp_path / "s.sqlite", seeds=1)
    with pytest.raises(InputError, match=r"No experiment 'dinno'. Did you mean 'dino'\? See: mt report --list"):
        collect(store, names=["dinno"])


def test_the_newest_complete_one_is_shown(tmp_path: Path) -> None:
    """One that lacks a budget was interrupted; it is named, and shown when asked for."""
    path, newer = tmp_path / "s.sqlite", {"versions": {"solver": 2}}
    filled(path, seeds=2)
    store = filled(path, seeds=2, budgets=(0.01, 0.1), code=2, outcome=newer)
    (panel,) = collect(store)
    assert len(panel.curve("dino")) == 3
    assert "dino, solver 2" in {one.name for one in panel.others}
    (other,) = collect(store, names=["dino, solver 2"])
    assert [len(cell.scores) for cell in other.headline] == [2, 2]
    filled(path, seeds=2, code=2, outcome=newer)
    (panel,) = collect(store)
    assert {score.versions["solver"] for cell in panel.cells for score in cell.scores} == {2}


def test_more_draws_on_test_folds_do_not_make_one_on_a_test_split_incomplete(tmp_path: Path) -> None:
    """A study with fewer draws of one budget, test folds of another beside it, and then a trial at other features."""
    path = tmp_path / "s.sqlite"
    folds = {"name": "5-fold x 3", "k": 5, "repeats": 3, "seed": 0, "algorithm": "kfold", "revision": 1}
    realised = outcome_of("binary", ("normal", "tumour"), 1)["realised"]
    filled(path, seeds=2, budgets=(0.1, 1.0))
    filled(path, seeds=3, budgets=(0.01,))
    filled(path, seeds=5, budgets=(0.1,), code=2, outcome={"realised": {**realised, "test_folds": folds}})
    store = filled(path, seeds=1, budgets=(0.01,), code=3, outcome={"versions": {"solver": 2}})
    (panel,) = collect(store)
    assert len(panel.curve("dino, test split")) == 3


def test_networks_trained_with_other_settings_or_code_are_never_joined(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    one: dict[str, Any] = {"models": {"dino": 1.0}, "method": "fine-tune", "budgets": (0.1,)}
    now = {**outcome_of("binary", ("normal", "tumour"), 30)["versions"], "unfrozen": 13}
    filled(path, seeds=1, code=2, outcome={**tuned(), "versions": {**now, "unfrozen": 12}}, **one)
    filled(path, seeds=2, code=3, outcome={**tuned(epochs=8, learning_rates=(0.001234567,)), "versions": now}, **one)
    store = filled(path, seeds=3, code=4, outcome={**tuned(), "versions": now}, **one)
    (panel,) = collect(store)
    assert list(panel.names) == ["fine-tune: dino, --precision float32"]
    assert [len(cell.scores) for cell in panel.headline] == [3]
    assert {one.name for one in panel.others} == {
        "fine-tune: dino, --precision float32, unfrozen 12",
        "fine-tune: dino, --lr 0.001234567 --epochs 8 --precision float32, unfrozen 13",
    }


def names_of(panels: list[Panel]) -> dict[str, set[str]]:
    return {panel.title: set(panel.names) for panel in panels}


def test_a_part_of_a_recipe_is_said_on_all_datasets_or_on_none(tmp_path: Path) -> None:
    """Two protocols on one dataset: the other names its only one too."""
    path = tmp_path / "s.sqlite"
    for dataset, protocols in (("here", ("default", "clip")), ("there", ("default",)), ("far", ("prism",))):
        for protocol in protocols:
            some = {"protocol": protocol, "solver": "other" if dataset == "far" else "torch"}
            code = 1 + ("default", "clip", "prism").index(protocol)
            store = filled(path, dataset=dataset, models={"dino": 1.4}, seeds=1, outcome=some, code=code)
    assert names_of(collect(store)) == {
        "here": {"dino, default", "dino, clip"},
        "there": {"dino, default"},
        "far": {"dino, prism"},
    }
    assert {one.name for one in collect(store, datasets=["there"])[0].cells} == {"dino, default"}
    assert names_of(collect(store, names=["dino, default"])) == {"here": {"dino, default"}, "there": {"dino, default"}}


@pytest.mark.parametrize(
    ("other", "shown", "hidden"),
    [
        ({"image_size": "at 96 px"}, "dino at 64 px", "dino at 96 px"),
        ({"seed": "split seed 3"}, "dino", "dino, split seed 3"),
        ({}, "dino", "dino, features old-here"),
    ],
)
def test_features_on_one_dataset_give_no_name_of_its_own_to_what_it_shows(
    tmp_path: Path, other: dict[str, str], shown: str, hidden: str
) -> None:
    """Features were made twice on one dataset, once on the other: what both show has one name."""
    usual = {"image_size": "at 64 px", "seed": "split seed 0"}
    store = filled(tmp_path / "s.sqlite", dataset="here", models={"dino": 1.4}, seeds=1)
    filled(tmp_path / "s.sqlite", dataset="there", models={"dino": 1.4}, seeds=1)
    scores = store.scores()
    for kept in (one.fingerprints["train"][0] for one in scores):
        store.remember(digest({"origin of features": kept["file"]}), {"facts": usual})
    store.remember(digest({"origin of features": "old-here"}), {"facts": usual | other})
    old = [
        replace(
            one,
            identity=f"old {one.identity}",
            fingerprints={
                split: [{**kept, "file": "old-here"} for kept in several] for split, several in one.fingerprints.items()
            },
        )
        for one in scores
        if one.dataset == "here"
    ]
    found = experiments([*old, *scores], Origins(store))
    assert {(one.data.dataset, one.name) for one in found if one.shown} == {("here", shown), ("there", shown)}
    assert [one.name for one in found if not one.shown] == [hidden]


def few_draws(path: Path) -> Any:
    """Return the panel of two methods with three draws and one with a single draw of each budget."""
    filled(path, models={"simclr": 0.6, "swav": 0.9}, seeds=3)
    return collect(filled(path, models={"dino": 1.4}, seeds=1))[0]


def test_labels_needed_are_read_on_shared_draws(tmp_path: Path) -> None:
    panel = few_draws(tmp_path / "s.sqlite")
    needed = labels_needed(panel, "dino", "swav")
    assert needed is not None
    other = labels_needed(panel, "simclr", "swav")
    assert other is not None
    assert (needed.draws, other.draws) == (1, 0)
    (alone,) = collect(filled(tmp_path / "alone.sqlite", seeds=1))
    lone = labels_needed(alone, "dino", "swav")
    assert lone is not None
    assert needed.labels == lone.labels
    assert str(needed).endswith("(1 draw)")


def test_a_row_that_cannot_be_compared_is_marked(tmp_path: Path) -> None:
    panel = few_draws(tmp_path / "s.sqlite")
    marks = {(cell.name, str(cell.budget)): cell.mark for cell in panel.headline}
    assert marks["dino", "1 %"] is None
    assert marks["swav", "1 %"] == "best"
    assert marks["dino", "100 %"] == "best"
    assert [panel.most_draws(cell) for cell in panel.curve("dino")] == [3, 3, 1]
    (figure,) = label_efficiency(panel, looks_of(panel.names)).figures
    drawn = {(row["method"], row["budget"]) for row in records(figure.tables["curves"]) if row["open"]}
    assert drawn == {("dino", "1 %"), ("dino", "10 %")}
    rows = {(row["method"], row["budget"]): row["mark"] for row in csv.DictReader(io.StringIO(as_csv([panel])))}
    assert (rows["dino", "1 %"], rows["swav", "1 %"]) == ("not compared", "best")
    assert r"$^{\dagger}$" in as_latex(panel, ShortNames())


def test_shots_and_fractions_are_no_one_line(tmp_path: Path) -> None:
    panel = few_draws(tmp_path / "s.sqlite")
    cells = [replace(cell, budget=Budget(shots=7)) if cell.budget == Budget(0.1) else cell for cell in panel.cells]
    mixed = replace(panel, cells=tuple(cells))
    (figure,) = label_efficiency(mixed, looks_of(mixed.names)).figures
    kinds = {(row["budget"], row["kind"]) for row in records(figure.tables["curves"])}
    assert kinds == {("1 %", "fractions"), ("7 shots", "shots"), ("100 %", "fractions")}
    assert '"detail": {"field": "kind"' in json.dumps(figure.spec)
    assert labels_needed(mixed, "simclr", "swav") == labels_needed(without(mixed, Budget(shots=7)), "simclr", "swav")


def without(panel: Panel, budget: Budget) -> Panel:
    return replace(panel, cells=tuple(cell for cell in panel.cells if cell.budget != budget))


def test_features_without_groups_never_replace_those_with(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The probe after them continues with the grouped ones, so that its budgets stand on one curve."""
    monkeypatch.chdir(work)
    monkeypatch.setenv("MT_CACHE_DIR", str(tmp_path / "cache"))
    for command in (*ASKED[:3], "mt probe --shots 10 --seeds 2"):
        run(command)
    (listed,) = map(json.loads, run("mt report --list --json").splitlines())
    assert listed["draws"] == {"2 shots": 2, "10 shots": 2}
