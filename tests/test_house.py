"""The rules of the house: imports point down, help is light, public names are pinned."""

from __future__ import annotations

import configparser
import re
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import packages_distributions

import pytest

import mt
from mt.cli import COMMANDS
from tests import house

# Floors from the ground up: a room imports itself and lower floors; rooms on one floor do not know each other.
FLOORS = {
    "errors": 0,
    "types": 0,
    "stratification": 1,
    "terminal": 1,
    "system": 2,
    "cache": 3,
    "results": 4,
    "datasets": 5,
    "backbones": 5,
    "featurize": 6,
    "importing": 6,
    "probe": 6,
    "fuse": 7,
    "upkeep": 7,
    "predict": 8,
    "report": 9,
    "study": 10,
    "doctor": 11,
    "demo": 11,
    "completion": 11,
    "cli": 12,
}
MOST_MODULES = 14  # in one folder
MOST_LINES = 450  # of one module; past 350 a module asks to be two, and stays one only where it is one thing
MOST_PARAMETERS = 8
# File names that occur in several rooms, with the same role in each.
ROLES = {
    "cli",
    "run",
    "request",
    "registry",
    "base",
    "load",
    "fit",
    "saved",
    "tables",
    "check",
    "progress",
    "selection",
    "images",
}
# What does not hold yet, by rule: each entry goes when its fault does, and a test says when it may.
OPEN: dict[str, set[str]] = {}


def held(rule: str, faults: Iterable[str]) -> None:
    """Check that the faults of a rule are those that are known, no more and no fewer."""
    found, known = set(faults), OPEN.get(rule, set())
    assert not found - known, f"{rule}: {', '.join(sorted(found - known))}"
    assert not known - found, f"{rule}: no longer open, strike off: {', '.join(sorted(known - found))}"


def room(module: str) -> str:
    """Return the part of `mt` that a module is in: `mt.cache.catalog` is in `cache`; `mt` itself is in ``."""
    return [*module.split("."), ""][1]


def test_every_room_has_a_floor() -> None:
    assert {room(module) for module in house.modules()} - {"", "__main__"} == set(FLOORS)


def test_imports_point_down() -> None:
    arrows = [(one, other) for one in house.modules() for other in house.imports(one)]
    held(
        "imports point down",
        {
            f"{one} -> {other}"
            for one, other in arrows
            if room(one) in FLOORS and room(one) != room(other) and FLOORS.get(room(other), 99) >= FLOORS[room(one)]
        },
    )


def test_no_module_imports_in_a_circle() -> None:
    circles = house.circles({module: house.imports(module) for module in house.modules()})
    held("no circle", {" ".join(sorted(circle)) for circle in circles})


def test_a_folder_is_one_room() -> None:
    held("folder size", {folder for folder, n in house.folder_sizes().items() if n > MOST_MODULES})


def test_a_file_fits_in_the_head() -> None:
    lengths = {name: len(path.read_text().splitlines()) for name, path in house.modules().items()}
    held("lines of a module", (f"{name}: {n}" for name, n in lengths.items() if n > MOST_LINES))


def test_a_class_name_means_one_class() -> None:
    held("class names", {name for name, places in house.classes().items() if len(places) > 1})


def test_groups_are_patients() -> None:
    held("Groups", house.classes().get("Groups", []))


def test_a_file_name_means_one_module_or_one_role() -> None:
    held("file names", {name for name, places in house.basenames().items() if len(places) > 1} - ROLES)


def test_roles_are_those_that_several_rooms_have() -> None:
    assert {role for role in ROLES if not house.basenames()[role]} == set()


def test_no_function_takes_many_parameters() -> None:
    held(
        "parameters",
        {
            name
            for name, function in house.functions()
            if house.n_parameters(function) > MOST_PARAMETERS
            and not house.is_command(function)
            and not house.is_estimators_init(name)
            and name.rpartition(".")[2] != "fit_logistic"
        },
    )


def test_no_option_travels_untyped() -> None:
    held("untyped options", {name for name, function in house.functions() if house.has_untyped_options(function)})


def test_what_is_required_is_imported() -> None:
    metadata = configparser.ConfigParser()
    metadata.read(house.PACKAGE.parent / "setup.cfg")
    required = {
        re.split(r"[<>=!~; ]", line)[0].lower().replace("_", "-")
        for line in metadata["options"]["install_requires"].split("\n")
        if line
    }
    owners = packages_distributions()
    imported = {owner.lower().replace("_", "-") for name in house.imported_packages() for owner in owners.get(name, [])}
    assert required - imported == set()


def test_the_rules_see_what_they_look_for() -> None:
    assert house.circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [{"a", "b", "c"}]
    assert {"mt.cache.catalog", "mt.cache.feature_file.read"} <= house.imports("mt.cache")
    named = dict(house.functions())
    assert house.is_command(named["mt.featurize.cli.featurize"])
    assert house.is_estimators_init("mt.fuse.estimators.ConcatProbe.__init__")
    assert house.n_parameters(named["mt.probe.solver.api.fit_logistic"]) == 12


HEAVY = ("torch", "torchvision", "timm", "h5py", "sklearn", "pandas", "scipy", "pydantic", "numpy")


def modules_after(code: str) -> set[str]:
    """Return the heavy top-level modules that a fresh interpreter holds after running the code."""
    check = f"{code}\nimport sys; print(*(m for m in {HEAVY!r} if m in sys.modules))"
    out = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    return set(out.stdout.splitlines()[-1].split()) if out.stdout.strip() else set()


def test_help_is_light() -> None:
    code = "import mt.cli\ntry: mt.cli.main(['--help'])\nexcept SystemExit: pass\nprint()"
    assert modules_after(code) == set()


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_commands_help_is_light(command: str) -> None:
    code = f"import mt.cli\ntry: mt.cli.main(['{command}', '--help'])\nexcept SystemExit: pass\nprint()"
    assert modules_after(code) <= {"numpy"}


@pytest.mark.parametrize("stage", ["mt", "mt.cache", "mt.featurize", "mt.probe", "mt.fuse", "mt.report"])
def test_importing_a_stage_is_light(stage: str) -> None:
    assert modules_after(f"import {stage}") == set()


def test_public_names_resolve() -> None:
    for name in mt.__all__:
        assert getattr(mt, name) is not None


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        _ = mt.nonsense
