"""`mt datasets list` and `mt datasets check`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from mt.datasets import DATASETS
from mt.datasets.cli import datasets
from mt.errors import DatasetError
from tests.datasets import layouts
from tests.datasets import plain_files as plain
from tests.probe.features import write_features


def run(*args: str) -> Result:
    return CliRunner().invoke(datasets, args)


def facts(*args: str) -> tuple[int, list[dict[str, Any]]]:
    result = run("check", *args, "--json")
    return result.exit_code, [json.loads(line) for line in result.stdout.splitlines()]


def problems(*args: str) -> set[tuple[str, str]]:
    return {(line["problem"], line["id"]) for line in facts(*args)[1] if "problem" in line}


def test_list() -> None:
    alone, named = run(), run("list")
    assert alone.output == named.output
    for spec in DATASETS.values():
        assert f"\n{spec.usage} " in f"\n{named.output}"
        assert spec.licence in named.output
    assert [json.loads(line)["name"] for line in run("list", "--json").output.splitlines()] == list(DATASETS)


def test_a_sound_dataset(data: Path) -> None:
    layouts.write_pcam(data / "pcam")
    result = run("check", "pcam", "--data-dir", str(data))
    assert result.exit_code == 0, result.output
    assert "train: 24 images, 6 groups (slide)" in result.output
    assert "16   66.7%  normal" in result.output
    assert "Nothing wrong found" in result.output
    assert "the test split has 3 groups, fewer than 10: intervals will cover the true score less often" in result.output
    assert "the rarest class of the test split has 3 groups, fewer than 20" in result.output
    status, lines = facts("pcam", "--data-dir", str(data))
    assert status == 0
    assert lines[2] == {
        "dataset": "pcam",
        "split": "test",
        "rows": 12,
        "groups": 3,
        "classes": {"normal": 8, "tumour": 4},
        "unlabelled": 0,
    }


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["", "0", "1"], "1   33.3%  (no label)"),
        (["", "", ""], "no image of the test split has a label: mt can predict them"),
    ],
)
def test_rows_without_a_label_are_counted_and_conflict_with_none(data: Path, labels: list[str], said: str) -> None:
    for number, name in enumerate(("a", "b", "0", "1", "2")):
        layouts.write_image(data / f"{name}.png", 1 if name == "0" else number)
    rows = ["a.png,train,0", "b.png,train,1", *[f"{n}.png,test,{label}" for n, label in enumerate(labels)]]
    (data / "t.csv").write_text("\n".join(["image,split,label", *rows]))
    result = run("check", f"table:{data / 't.csv'}")
    assert said in result.output
    assert "have no label: kept, outside every budget and score" in result.output
    assert "image in several splits" in result.output
    assert "conflicting labels" not in result.output


def test_conflicting_duplicates_of_aptos(data: Path) -> None:
    layouts.write_aptos(data / "aptos2019")
    result = run("check", "aptos2019", "--data-dir", str(data))
    assert result.exit_code == 1
    assert "conflicting labels: 2" in result.output
    assert f"{7 * 7919:012x}: has the same pixels as 000000000000 (" in result.output
    assert "is labelled moderate, not no retinopathy" in result.output
    assert "image in several splits" not in result.output


def test_groups_and_images_that_cross_splits(data: Path) -> None:
    folder = layouts.write_folder(data / "pets", splits=["train", "test"])
    first = (folder / "train" / "cat" / "p0_0.png").read_bytes()
    (folder / "test" / "cat" / "p1_2.png").write_bytes(first)
    name = f"folder:{folder}"
    assert problems(name) == {("image in several splits", "test/cat/p1_2.png")}
    crossing = {("group in several splits", f"p{n}") for n in range(5)}
    assert problems(name, "--group-regex", r"(p\d+)_") == {("image in several splits", "test/cat/p1_2.png"), *crossing}


def test_unreadable_and_absent_images(data: Path) -> None:
    folder = layouts.write_folder(data / "pets")
    (folder / "cat" / "p0_0.png").write_bytes(b"")
    (folder / "dog" / "p0_0.png").write_bytes((folder / "dog" / "p0_1.png").read_bytes()[:200])
    result = run("check", f"folder:{folder}")
    assert result.exit_code == 1
    assert "unreadable image: 2" in result.output
    assert "the file is empty (0 bytes)" in result.output
    assert "cut short" in result.output
    (data / "mine.csv").write_text("image,label\npets/cat/p0_1.png,0\npets/dog/p0_1.png,1\npets/no.png,1\n")
    assert problems(f"table:{data / 'mine.csv'}") == {("unreadable image", "pets/no.png")}


def test_conflicting_labels_of_a_multilabel_dataset(data: Path) -> None:
    layouts.write_folder(data / "pets")
    (data / "pets" / "cat" / "p0_1.png").write_bytes((data / "pets" / "cat" / "p0_0.png").read_bytes())
    lines = ["cat/p0_0.png,1,0", "cat/p0_1.png,0,0", "dog/p0_0.png,0,1", "dog/p0_1.png,1,1"]
    (data / "pets" / "m.csv").write_text("\n".join(["image,a,b", *lines]))
    printed = facts(f"table:{data / 'pets' / 'm.csv'}")[1]
    (found,) = [line["detail"] for line in printed if line.get("problem") == "conflicting labels"]
    assert found.endswith(("is labelled none, not a", "is labelled a, not none"))


def test_missing_labels_are_not_counted(data: Path) -> None:
    layouts.write_folder(data / "pets")
    twin = data / "pets" / "cat" / "p0_1.png"
    twin.write_bytes((data / "pets" / "cat" / "p0_0.png").read_bytes())
    lines = ["cat/p0_0.png,1,-1", "cat/p0_1.png,0,1", "dog/p0_0.png,0,-1", "dog/p0_1.png,1,1"]
    (data / "pets" / "m.csv").write_text("\n".join(["image,a,b", *lines]))
    printed = facts(f"table:{data / 'pets' / 'm.csv'}", "--uncertain", "ignore")[1]
    counted = [line["classes"] for line in printed if "classes" in line]
    assert {name: sum(one[name] for one in counted) for name in "ab"} == {"a": 2, "b": 2}
    (found,) = [line["detail"] for line in printed if line.get("problem") == "conflicting labels"]
    assert found.endswith(("is labelled b, not a", "is labelled a, not b"))


def test_many_problems_are_cut_in_print_not_in_json(data: Path) -> None:
    folder = layouts.write_folder(data / "pets", count=15)
    for file in folder.rglob("*.png"):
        if file.name != "p0_0.png":
            file.write_bytes(b"")
    result = run("check", f"folder:{folder}")
    assert "unreadable image: 28" in result.output
    assert "... and 8 more" in result.output
    assert len(problems(f"folder:{folder}")) == 28


def test_bad_input_is_one_line(data: Path) -> None:
    result = run("check", "pcam", "--data-dir", str(data))
    assert isinstance(result.exception, DatasetError)
    assert "\n" not in str(result.exception)
    with pytest.raises(DatasetError):
        raise result.exception


def test_deep_images_that_use_a_small_part_of_their_range_are_noted(data: Path) -> None:
    for number in range(12):
        folder = data / "dark" / f"c{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        values = np.roll(np.linspace(0, 4095, 64), 5 * number).astype(np.uint16).reshape(8, 8)
        (folder / f"{number}.tif").write_bytes(plain.tiff(values, bits=16))
    result = run("check", f"folder:{data / 'dark'}")
    assert result.exit_code == 0, result.output
    words = " ".join(result.output.split())
    assert "12 of 12 images of more than 8 bits use less than 25% of their range, half of them at most 6.2%" in words
    assert not [line for line in facts(f"folder:{data / 'dark'}", "--intensity", "minmax")[1] if "range" in str(line)]


def test_the_list_names_what_the_cache_has_with_its_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MT_CACHE_DIR", str(tmp_path))
    assert "In the cache" not in CliRunner().invoke(datasets).stdout
    for name in ("folder:ihc", "folder:ihc[seed=3]"):
        write_features(tmp_path, dataset=name)
    assert "In the cache, with their settings: folder:ihc, folder:ihc[seed=3]" in CliRunner().invoke(datasets).stdout
    lines = CliRunner().invoke(datasets, ["list", "--json"]).stdout.splitlines()
    cached = {row["name"]: row["cached"] for row in map(json.loads, lines)}
    assert cached.pop("folder") == ["folder:ihc", "folder:ihc[seed=3]"]
    assert not any(cached.values())


def test_copies_under_one_label_and_classes_that_are_spelled_alike_are_noted(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(12):
        path = tmp_path / "photos" / ("normal", "Normal", "sick")[number % 3] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(path)
    (path.parent / "copy.png").write_bytes(path.read_bytes())
    shown = " ".join(run("check", f"folder:{tmp_path / 'photos'}").output.split())
    assert "the names of 'Normal' and 'normal' differ in case or punctuation only: one class?" in shown
    assert "1 image has the pixels and label of another in " in shown
    assert "Nothing wrong found." in shown
