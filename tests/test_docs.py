"""The documentation is current: the reference matches the commands, the examples run, every page is in the menu."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import mt
from mt.backbones.registry import REGISTRY
from mt.datasets import DATASETS, load_dataset
from mt.probe.scores.metrics import METRICS, score

DOCS = Path(__file__).parent.parent / "docs"


def test_the_command_reference_is_current() -> None:
    # A fresh process: click keeps a command's help option from the first time that it was shown.
    code = f"import runpy; print(runpy.run_path({str(DOCS / 'generate_cli.py')!r})['page'](), end='')"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert (DOCS / "cli.md").read_text(encoding="utf-8") == shown, "run: python docs/generate_cli.py"


def test_every_page_is_in_the_navigation() -> None:
    named = set(re.findall(r": (\S+\.md)$", (DOCS.parent / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE))
    assert named == {page.name for page in DOCS.glob("*.md")}


@pytest.fixture
def example() -> Iterator[types.ModuleType]:
    """The examples of the page on extending, run as one module; the registries are left as they were."""
    backbones, datasets, metrics = dict(REGISTRY), dict(DATASETS), dict(METRICS)
    module = types.ModuleType("extend_example")
    sys.modules[module.__name__] = module
    for block in blocks():
        exec(compile(block, "docs/extend.md", "exec"), module.__dict__)
    yield module
    del sys.modules[module.__name__]
    for registry, before in ((REGISTRY, backbones), (DATASETS, datasets), (METRICS, metrics)):
        for name in set(registry) - set(before):
            del registry[name]


def blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", (DOCS / "extend.md").read_text(encoding="utf-8"), re.DOTALL)


def test_each_example_is_under_20_lines() -> None:
    lengths = [len([line for line in block.splitlines() if line.strip()]) for block in blocks()]
    assert len(lengths) == 3
    assert max(lengths) < 20


def test_the_examples_use_public_names_alone() -> None:
    imports = re.findall(r"^from (mt[\w.]*) import (.+)$", "\n".join(blocks()), re.MULTILINE)
    assert {module for module, _ in imports} == {"mt.backbones", "mt.datasets", "mt.probe"}
    for module, names in imports:
        assert set(names.split(", ")) <= set(importlib.import_module(module).__all__)


def test_the_example_backbone_loads(example: Any) -> None:
    from mt.backbones.load import load_backbone

    backbone = load_backbone("our-resnet50", weights="random")
    assert backbone.dim == 2048
    assert backbone.preprocess(Image.new("RGB", (300, 200))).shape == (3, 224, 224)


def test_the_example_dataset_loads(example: Any, tmp_path: Path) -> None:
    (tmp_path / "ours").mkdir()
    for name in (f"{kind}_{i:04d}" for kind in ("lesion", "normal") for i in range(10)):
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "ours" / f"{name}.png")
    dataset = load_dataset("ours", tmp_path)
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 14, "test": 6}
    assert dataset.splits["test"].labels.sum() == 3
    (image,) = dataset.splits["test"].images.load(0, 1)
    assert isinstance(image, Image.Image)
    assert image.size == (8, 8)


def test_the_example_metric_has_scores_and_intervals(example: Any) -> None:
    y, p = [0, 0, 1, 1, 1, 0], [0.1, 0.6, 0.8, 0.9, 0.3, 0.2]
    assert score("youden", y, p) == pytest.approx(2 / 3 - 1 / 3)
    low, high = mt.interval("youden", y, p)
    assert low < 1 / 3 < high


def test_the_page_of_the_api_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name, mean in (("lesion", 90), ("normal", 160)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(30):
            pixels = rng.normal(mean, 60, (8, 8, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{i}.png")
    page = (DOCS / "api.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(compile(block, "docs/api.md", "exec"), names)
    assert len(names["scores"]) == 2 * (3 + 1)  # two models: three draws of a half, one of all labels
    assert names["scores"]["value"].between(0, 1).all()
    assert names["low"] < mt.METRICS["roc_auc"].value(names["y"], names["p"]) <= names["high"]
    assert len(names["table"]) == 60
    assert (tmp_path / "report.html").exists()
    mentioned = set(re.findall(r"\bmt\.([A-Za-z_]+)", page)) - {"errors"}
    assert mentioned <= set(mt.__all__), "the page teaches public names alone"


def test_the_architecture_names_every_room_and_no_file_that_is_gone() -> None:
    text = (DOCS / "architecture.md").read_text()
    package = DOCS.parent / "mt"
    rooms = {path.parent.relative_to(package) for path in package.rglob("__init__.py")}
    assert [str(room) for room in rooms if room.name and f"{room.name}/" not in text] == []
    named = re.findall(r"`(mt/[\w/.]+)`", text)
    assert len(named) > 10
    assert [name for name in named if not (DOCS.parent / name).exists()] == []
