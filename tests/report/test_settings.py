"""Of a dataset's features with several settings, probe, fuse and report take the same ones, and name them."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mt.cache.catalog import Catalog
from mt.cli import group
from mt.errors import InputError
from tests.probe.features import write_pair

QUICK = "--protocol clip --fraction 0.5 --seeds 1"
GROUPED: dict[str, Any] = {"settings": {"group_regex": "pt"}, "content": "grouped", "grouped": True}
SEED_3: dict[str, Any] = {"settings": {"seed": 3}, "content": "seed 3"}


def run(command: str) -> Result:
    return CliRunner().invoke(group, shlex.split(command)[1:], catch_exceptions=False)


def made(cache: Path, number: int, **options: Any) -> None:
    """Write features of two models; a higher number is newer."""
    before = {entry.path for entry in Catalog(cache).entries(everything=True)}
    for model in ("m1", "m2"):
        write_pair(cache, model=model, **options)
    for path in {entry.path for entry in Catalog(cache).entries(everything=True)} - before:
        os.utime(path, (1_700_000_000 + number, 1_700_000_000 + number))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with plain features, then grouped ones, then those of another seed."""
    monkeypatch.setenv("MT_CACHE_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for number, options in enumerate(({}, GROUPED, SEED_3)):
        made(tmp_path, number, **options)
    return tmp_path


def datasets_of(output: str) -> set[str]:
    return {row["dataset"] for row in map(json.loads, output.splitlines()) if "dataset" in row}


@pytest.mark.parametrize("command", [f"mt probe --json {QUICK}", "mt fuse --json --method average --fraction 0.5"])
@pytest.mark.parametrize(
    ("options", "taken"),
    [
        ("", "toy[group_regex=pt]"),
        ("--dataset toy", "toy[group_regex=pt]"),
        ("--seed 3", "toy[seed=3]"),
        ("--dataset toy --seed 3", "toy[seed=3]"),
        ("--dataset 'toy[seed=3]'", "toy[seed=3]"),
        ("--group-regex pt", "toy[group_regex=pt]"),
        ("--dataset 'toy[]'", "toy"),
        ("--seed 0", "toy[group_regex=pt]"),
    ],
)
def test_probe_and_fuse_take_the_newest_grouped_or_what_options_say(
    cache: Path, command: str, options: str, taken: str
) -> None:
    ran = run(f"{command} {options}")
    assert datasets_of(ran.stdout) == {taken}
    left_open = options in ("", "--dataset toy", "--seed 0")
    assert ("Features of toy[group_regex=pt]: the newest with groups. Others: --dataset" in ran.stderr) == left_open


def shown(options: str) -> tuple[set[str], str]:
    """Return the datasets of the scores that a report shows, and what it says."""
    ran = run(f"mt report --json --map-points 0 --out r.html {options}")
    return {line.split(",")[0] for line in Path("r/scores.csv").read_text().splitlines()[1:]}, ran.stderr


def test_the_report_takes_what_probes_take_whatever_was_probed_last(cache: Path) -> None:
    made(cache, 9, settings={"group_regex": "p"}, content="newer groups", grouped=True)
    for name in ("toy[group_regex=p]", "toy[group_regex=pt]", "toy[seed=3]"):
        run(f"mt probe {QUICK} --dataset '{name}'")
    _, said = shown("")
    assert "Scores of toy[group_regex=p]: the newest with groups. Others: " in said
    assert "--dataset 'toy[seed=3]'" in said
    for options in ("--seed 3", "--dataset toy --seed 3", "--dataset 'toy[seed=3]'"):
        _, said = shown(options)
        assert "newest" not in said
        assert Path("r/scores.csv").read_text().count("toy[seed=3],") == 4  # two models, trained and tested on it
        assert "<h2>toy[seed=3] <small>" in Path("r.html").read_text()


def test_settings_without_groups_stop_the_report_as_they_stop_the_probe(cache: Path) -> None:
    for name in ("toy[]", "toy[seed=3]"):
        run(f"mt probe {QUICK} --dataset '{name}'")
    with pytest.raises(InputError, match=r"made with several settings: toy\[\] and toy\[seed=3\]. Choose: --dataset"):
        shown("")
    assert run("mt report --list --json").stdout.count('"shown": false') == 4
    assert "newest" not in shown("--dataset 'toy[]'")[1]
    assert "newest" not in shown("--experiment m1")[1]


def test_a_default_can_be_asked_for(cache: Path) -> None:
    made(cache, 9, settings={"seed": 5}, content="seed 5", grouped=True)
    assert datasets_of(run(f"mt probe --json {QUICK}").stdout) == {"toy[seed=5]"}
    assert datasets_of(run(f"mt probe --json {QUICK} --seed 0").stdout) == {"toy[group_regex=pt]"}


def test_the_report_knows_a_dataset_by_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MT_CACHE_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for name in ("folder:ihc", "table:cases"):
        write_pair(tmp_path, name)
    run(f"mt probe {QUICK}")
    assert shown("--dataset folder:/some/ihc")[0] == {"folder:ihc"}
    assert shown("--dataset table:./cases.csv")[0] == {"table:cases"}


def test_settings_that_no_features_have_are_said_with_those_there_are(cache: Path) -> None:
    with pytest.raises(InputError, match=r"No features were made with --seed 4"):
        run(f"mt probe {QUICK} --seed 4")


def test_every_table_shows_the_settings(cache: Path) -> None:
    """In brackets, which the library of tables would take for markup and drop."""
    name = "toy[group_regex=pt]"
    assert f"{name}: ROC AUC on 80 test cases\n" in run(f"mt probe {QUICK}").stdout
    pairs = run(f"mt probe {QUICK} --compare").stdout
    assert pairs.count(name) == 3  # the scores, the differences, and that the test groups are few
    assert pairs.count("m1 - m2") == 1
    assert f"{name}: ROC AUC on" in run("mt fuse --fraction 0.5 --method average --seeds 1").stdout
    assert name in run("mt cache list").stdout
    assert name in run("mt report --list").stdout
