"""Settings in a dataset's name do the same as options, for loading it and for choosing among its features."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mt.cache.names import is_named
from mt.cli import COMMANDS, group
from mt.datasets import DatasetSettings, load_dataset
from mt.datasets.settings import SettingWords, narrowed, option_of
from mt.errors import InputError
from tests.cache.test_catalog import put


def images(root: Path) -> Path:
    """Write twelve images of six patients, in two classes."""
    for number in range(12):
        path = root / f"c{number % 2}" / f"pt{number // 2}, {number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), 20 * number, dtype=np.uint8)).save(path)
    return root


def test_a_name_with_settings_loads_what_options_load(tmp_path: Path) -> None:
    root = images(tmp_path / "ihc")
    words: SettingWords = {"group_regex": r"(pt\d), ", "seed": 3, "task": "binary"}
    loaded = load_dataset(f"folder:{root}", **words)
    named = load_dataset(f"folder:{root}[" + ", ".join(f"{k}={v}" for k, v in words.items()) + "]")
    assert (named.shown, named.settings) == (loaded.shown, loaded.settings)
    assert named.splits["test"].ids == loaded.splits["test"].ids
    assert named.shown == r"folder:ihc[task=binary, group_regex=(pt\d), , seed=3]"
    assert named.splits["train"].groups == loaded.splits["train"].groups
    assert load_dataset(f"folder:{root}[]").settings == DatasetSettings()
    assert load_dataset(f"folder:{root}[seed=3]", seed=3).settings.seed == 3


@pytest.mark.parametrize(
    ("brackets", "says"),
    [
        ("sed=3", "No setting 'sed'. Did you mean 'seed'"),
        ("seed=three", "seed=three in .*: expected a whole number"),
        ("hash_groups=maybe", "expected hash_groups=yes"),
        ("uncertain=2", "--uncertain 2 is not a choice"),
        ("seed=4", "says seed=4, which contradicts --seed 3. Give one of them"),
    ],
)
def test_settings_that_are_none_are_refused(tmp_path: Path, brackets: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        load_dataset(f"folder:{images(tmp_path / 'ihc')}[{brackets}]", seed=3)


def test_a_folder_may_have_brackets_of_its_own(tmp_path: Path) -> None:
    assert load_dataset(f"folder:{images(tmp_path / 'ihc[v=2]')}").splits


@pytest.mark.parametrize("command", ["probe", "fuse", "report"])
def test_what_reads_features_has_every_option_of_a_dataset(command: str) -> None:
    assert command in COMMANDS
    found = group.get_command(None, command)  # type: ignore[arg-type]  # it needs no context
    assert found is not None
    options = {option for parameter in found.params for option in parameter.opts}
    assert {option_of(field.name) for field in fields(DatasetSettings)} <= options


def test_options_go_into_the_brackets_of_names(tmp_path: Path) -> None:
    asked = {"seed": 3, "label_columns": ("a", "b")}
    assert narrowed(["folder:x", "pcam[]"], asked, None) == (
        "folder:x[seed=3, label_columns=a+b]",
        "pcam[seed=3, label_columns=a+b]",
    )
    with pytest.raises(InputError, match="says seed=4, which contradicts --seed 3"):
        narrowed(["folder:x[seed=4]"], asked, None)
    put(tmp_path, settings={"seed": 3})
    assert narrowed([], {"seed": 3}, str(tmp_path)) == ("folder:moles[seed=3]",)
    with pytest.raises(InputError, match="No features were made with --seed 4"):
        narrowed([], {"seed": 4}, str(tmp_path))


def test_a_default_that_is_said_is_the_default() -> None:
    said = {field.name: field.default for field in fields(DatasetSettings) if field.default not in (None, (), False)}
    for name, value in {**said, "seed": 0}.items():
        assert is_named("folder:x[task=binary]", None, f"folder:x[{name}={value}]")
    assert not is_named("folder:x[seed=3]", None, "folder:x[seed=0]")
    assert not is_named("folder:x", None, "folder:x[seed=3]")
