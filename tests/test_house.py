"""The rules of the house: imports point down, help is light, public names are pinned."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import mt
from mt.cli import COMMANDS

PACKAGE = Path(mt.__file__).parent

# Floors from the ground up; a stage imports its own floor's package or lower ones.
FLOORS = {
    "errors": 0, "types": 0, "stratification": 0,
    "terminal": 1, "system": 2,
    "cache": 3, "results": 4,
    "datasets": 5, "backbones": 5,
    "featurize": 6, "probe": 6,
    "fuse": 7, "predict": 8,
    "report": 9, "study": 10,
    "doctor": 10, "demo": 11, "cli": 12,
}  # fmt: skip


def imported_stages(path: Path) -> set[str]:
    """Return the parts of `mt` that a file imports, at any depth of the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return {name.split(".")[1] for name in found if name.startswith("mt.") and name.split(".")[1] in FLOORS}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    stage = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if stage in ("__init__", "__main__"):
        return
    for other in imported_stages(path) - {stage}:
        assert FLOORS[other] < FLOORS[stage], f"{stage} imports {other}, which is not below it"


def test_the_floor_plan_is_complete() -> None:
    parts = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert parts - {"__init__", "__main__"} <= set(FLOORS)


HEAVY = ("torch", "torchvision", "timm", "h5py", "sklearn", "pandas", "scipy", "numpy")


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
