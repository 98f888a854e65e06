"""Features of one dataset with different settings stay side by side in the cache; commands take one variant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mt.cache import Catalog
from mt.cache.catalog import settled
from mt.errors import InputError
from tests.cache.test_catalog import flags, put

GROUPED: dict[str, Any] = {"settings": {"group_regex": "pt([0-9]+)"}}
SEED_3: dict[str, Any] = {"settings": {"seed": 3}, "grouping": None}


def taken(cache: Path, *asked: str) -> list[str]:
    return [entry.dataset for entry in settled(Catalog(cache).entries(datasets=asked), asked)]


def test_other_settings_supersede_nothing(tmp_path: Path) -> None:
    put(tmp_path, fingerprint="a" * 64, age=100, **GROUPED)
    put(tmp_path, fingerprint="b" * 64, age=50, **SEED_3)
    put(tmp_path, fingerprint="c" * 64, grouping=None)
    assert flags(tmp_path) == {"a": (), "b": (), "c": ()}
    put(tmp_path, fingerprint="d" * 64, **GROUPED)
    assert flags(tmp_path)["a"] == ("superseded",)


def test_features_without_groups_never_replace_those_with(tmp_path: Path) -> None:
    put(tmp_path, fingerprint="a" * 64, age=100)
    put(tmp_path, fingerprint="b" * 64, grouping=None)
    assert flags(tmp_path) == {"a": (), "b": ()}
    (entry,) = settled(Catalog(tmp_path).entries())
    assert entry.manifest["grouping"] == "patient"


def test_the_newest_with_groups_is_taken_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path, fingerprint="a" * 64, age=100, **GROUPED)
    put(tmp_path, fingerprint="b" * 64, age=50, settings={"group_regex": "p"})
    put(tmp_path, fingerprint="c" * 64, **SEED_3)
    assert taken(tmp_path) == ["folder:moles[group_regex=p]"]
    said = capsys.readouterr().err
    assert "Features of folder:moles[group_regex=p]: the newest with groups." in said
    assert "folder:moles[seed=3]" in said
    assert taken(tmp_path, "folder:moles[seed=3]") == ["folder:moles[seed=3]"]
    assert capsys.readouterr().err == ""


def test_settings_without_groups_are_chosen_by_name_alone(tmp_path: Path) -> None:
    put(tmp_path, fingerprint="a" * 64, age=100, grouping=None)
    put(tmp_path, fingerprint="b" * 64, **SEED_3)
    with pytest.raises(InputError, match=r"several settings: folder:moles\[\] and folder:moles\[seed=3\]"):
        taken(tmp_path)
    assert taken(tmp_path, "folder:moles[]") == ["folder:moles"]
    assert taken(tmp_path, "folder:moles[]", "folder:moles[seed=3]") == ["folder:moles", "folder:moles[seed=3]"]


def test_equally_new_features_with_groups_stop_the_run(tmp_path: Path) -> None:
    put(tmp_path, fingerprint="a" * 64, **GROUPED)
    put(tmp_path, fingerprint="b" * 64, settings={"group_regex": "p"})
    with pytest.raises(InputError, match="several settings"):
        taken(tmp_path)
