"""The commands of the provenance reproduce what is stored: recipes, methods, metrics and training settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mt.cache.catalog import Catalog
from mt.report import collect
from mt.report.provenance import provenance
from mt.results.store import ScoreStore
from tests.probe.features import probed, write_pair
from tests.report.stores import filled, tuned
from tests.test_readme import check_parses

TWO = "simclr + swav"
QUICK: dict[str, Any] = {"seeds": 1, "budgets": (0.1,)}


def commands(path: Path) -> list[str]:
    (block, *_) = provenance(collect(filled(path, models={}, **QUICK)))
    for line in block.commands:
        check_parses(line)
    return [line for line in block.commands if not line.startswith("mt featurize")]


@pytest.mark.parametrize(
    ("outcome", "ends"),
    [
        ({}, ""),
        ({"solver": "sklearn"}, " --solver sklearn"),
        ({"select": "val"}, " --select val"),
        ({"protocol": "knn-dino", "solver": "knn-dino"}, " --protocol knn-dino"),
        ({"protocol": "default, platt"}, " --calibrate platt"),
        ({"protocol": "clip, temperature"}, " --protocol clip --calibrate temperature"),
    ],
)
def test_a_probes_recipe_is_asked_for(tmp_path: Path, outcome: dict[str, str], ends: str) -> None:
    filled(tmp_path / "s.sqlite", models={"simclr": 1.0}, outcome=outcome, **QUICK)
    asked = f"mt probe --model simclr --dataset pcam --fraction 0.1 --seeds 1{ends}"
    assert commands(tmp_path / "s.sqlite") == [asked, "mt report --dataset pcam"]


def test_each_recipe_has_its_command(tmp_path: Path) -> None:
    filled(tmp_path / "s.sqlite", models={"simclr": 1.0, "swav": 0.5}, **QUICK)
    filled(tmp_path / "s.sqlite", models={"simclr": 1.0}, outcome={"solver": "sklearn"}, code=2, **QUICK)
    found = commands(tmp_path / "s.sqlite")
    assert "mt probe --model simclr --model swav --dataset pcam --fraction 0.1 --seeds 1" in found
    assert "mt probe --model simclr --dataset pcam --fraction 0.1 --seeds 1 --solver sklearn" in found


def test_each_method_gets_its_own_budgets_and_draws(tmp_path: Path) -> None:
    """A command for all would fit what is not shown."""
    filled(tmp_path / "s.sqlite", models={"simclr": 1.0, "swav": 0.5}, budgets=(0.1, 1.0), seeds=3)
    filled(tmp_path / "s.sqlite", models={"dino": 1.0}, budgets=(0.01, 0.1, 1.0), seeds=1)
    assert set(commands(tmp_path / "s.sqlite")) == {
        "mt probe --model dino --dataset pcam --fraction 0.01 --fraction 0.1 --seeds 1",
        "mt probe --model simclr --model swav --dataset pcam --fraction 0.1 --seeds 3",
        "mt probe --model dino --model simclr --model swav --dataset pcam --fraction 1 --seeds 1",
        "mt report --dataset pcam",
    }


def test_metrics_beside_the_headline_are_asked_for(tmp_path: Path) -> None:
    filled(tmp_path / "s.sqlite", models={"simclr": 1.0}, metrics=("roc_auc", "brier"), **QUICK)
    assert commands(tmp_path / "s.sqlite")[0].endswith("--seeds 1 --metric brier --metric roc_auc")


@pytest.mark.parametrize(
    ("methods", "ends"),
    [
        (["concat"], " --method concat"),
        (["best-single", "concat", "dvme"], " --method dvme"),
        (["best-single", "average", "concat", "dvme"], " --method average --method dvme"),
        (["best-single", "average", "concat", "blend", "dvme"], ""),
        (["concat", "average", "blend", "dvme", "dvme-plain"], " --ablations"),
    ],
)
def test_fusing_asks_for_its_methods(tmp_path: Path, methods: list[str], ends: str) -> None:
    for method in methods:
        filled(tmp_path / "s.sqlite", models={TWO: 1.0}, method=method, **QUICK)
    start = "mt fuse --model simclr --model swav --dataset pcam --fraction 0.1 --seeds 1"
    assert commands(tmp_path / "s.sqlite") == [start + ends, "mt report --dataset pcam"]


def test_end_to_end_training_asks_for_its_settings(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    filled(path, models={TWO: 1.0}, method="dvme, unfrozen", outcome=tuned(), **QUICK)
    adapted = tuned(lora=8, label_smoothing=0.0)
    filled(path, models={"dino": 1.0}, method="fine-tune, LoRA 8", outcome=adapted, **QUICK)
    few = tuned(last=2, learning_rates=(0.001,), epochs=3, fixed=True, batch=8, augment="mild", precision="bfloat16")
    filled(path, models={"swav": 1.0}, method="fine-tune, last 2", outcome=few, **QUICK)
    found = commands(path)
    asked = "--dataset pcam --fraction 0.1 --seeds 1"
    assert f"mt fuse --model simclr --model swav {asked} --unfreeze --precision float32" in found
    assert f"mt fuse --model dino {asked} --unfreeze --lora 8 --label-smoothing 0.0 --precision float32" in found
    options = "--unfreeze-last 2 --lr 0.001 --epochs 3 --batch-size 8 --augment mild --fixed --precision bfloat16"
    assert f"mt fuse --model swav {asked} {options}" in found


def test_every_setting_is_on_the_page(tmp_path: Path) -> None:
    """Protocols in full; of features that are at hand, what their fingerprints were made from."""
    inputs = {"backbone": {"preprocessing": {"crop": 32, "std": [0.5, 0.5]}, "precision": "float32"}, "dataset": {}}
    write_pair(tmp_path / "cache", inputs=inputs)
    ran = probed(tmp_path / "cache", fractions=[0.5], seeds=1)
    with ScoreStore(ran.store) as store:
        blocks = {block.title: block for block in provenance(collect(store), Catalog(tmp_path / "cache"))}
    features = blocks["Settings of the features"].rows
    assert features == [
        ("backbone", "m1", "precision float32, preprocessing (crop 32, std [0.5, 0.5])"),
        ("machine", "m1 on toy", "device cpu"),
    ]
    stated = {what: value for name, what, value in blocks["Protocols"].rows if name == "default"}
    assert stated["method"].startswith("Logistic: Cs 0.001, 0.00316228, ")
    assert {"source", "validation source", "scaling", "selection metric", "hash"} <= set(stated)
