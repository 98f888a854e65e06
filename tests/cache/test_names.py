"""Names of datasets: as they are typed, as they are shown, and where their files are."""

from __future__ import annotations

from pathlib import Path

import pytest

from mt.cache.names import (
    bare_name,
    data_dir_of,
    is_exactly,
    is_named,
    loadable_name,
    mapped_place,
    with_settings,
)


@pytest.mark.parametrize(
    ("shown", "location", "expected"),
    [
        ("folder:ihc", "/data/ihc", "folder:/data/ihc"),
        ("table:cases.csv", "/data/cases.csv", "table:/data/cases.csv"),
        ("folder:ihc", None, "folder:ihc"),
        ("medmnist:pathmnist@64", "/data", "medmnist:pathmnist@64"),
        ("pcam", "/data/pcam", "pcam"),
        ("synthetic@40", None, "synthetic@40"),
    ],
)
def test_a_dataset_is_loaded_again_by_its_name_or_its_place(shown: str, location: str | None, expected: str) -> None:
    assert loadable_name(shown, location) == expected


def test_the_data_folder_is_told_where_the_name_holds_no_place(tmp_path: Path) -> None:
    packed = tmp_path / "pathmnist_64.npz"
    packed.touch()
    assert data_dir_of("pcam", str(tmp_path)) == str(tmp_path)
    assert data_dir_of("medmnist:pathmnist@64", str(packed)) == str(tmp_path)
    assert data_dir_of("folder:ihc", str(tmp_path)) is None
    assert data_dir_of("synthetic", None) is None


def test_a_folder_is_named_as_shown_or_by_any_path_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("folder:ihc", "folder:./ihc", f"folder:{tmp_path}/ihc", "folder:~/ihc", "folder:x/../ihc"):
        assert is_named("folder:ihc", f"{tmp_path}/ihc", name), name
    for name in ("folder:other", "table:ihc", "ihc"):
        assert not is_named("folder:ihc", f"{tmp_path}/ihc", name), name
    assert is_named("pcam", "/data/pcam", "pcam")
    assert not is_named("pcam", "/data/pcam", "/data/pcam")


def test_only_the_place_in_a_name_is_mapped() -> None:
    assert mapped_place("folder:a:b", str.upper) == "folder:A:B"
    assert mapped_place("medmnist:path", str.upper) == "medmnist:path"
    assert mapped_place("pcam", str.upper) == "pcam"


def test_settings_follow_a_name_in_brackets() -> None:
    assert with_settings("folder:ihc", {}) == "folder:ihc"
    named = with_settings("folder:ihc", {"group_regex": r"pt([0-9]+)", "seed": 3, "columns": ["sex", "age"]})
    assert named == r"folder:ihc[group_regex=pt([0-9]+), seed=3, columns=sex+age]"
    assert bare_name(named) == "folder:ihc"
    assert loadable_name(named, "/data/ihc") == "folder:/data/ihc"
    assert bare_name("folder:ihc [1]") == "folder:ihc [1]"
    assert data_dir_of("pcam[intensity=full]", "/data") == "/"


@pytest.mark.parametrize(
    ("name", "fits", "exactly"),
    [
        ("folder:ihc", True, False),
        ("folder:/data/ihc", True, False),
        ("folder:ihc[seed=3]", True, False),
        ("folder:/data/ihc[seed=3, task=ordinal]", True, True),
        ("folder:ihc[task=ordinal, seed=3]", True, True),
        ("folder:ihc[seed=4]", False, False),
        ("folder:ihc[]", False, False),
        ("folder:other[seed=3]", False, False),
    ],
)
def test_a_name_chooses_datasets_by_their_settings(name: str, fits: bool, exactly: bool) -> None:
    shown = "folder:ihc[task=ordinal, seed=3]"
    assert is_named(shown, "/data/ihc", name) == fits
    assert is_exactly(shown, "/data/ihc", name) == exactly


def test_empty_brackets_choose_the_default() -> None:
    assert is_exactly("folder:ihc", "/data/ihc", "folder:ihc[]")
    assert is_named("folder:ihc", "/data/ihc", "folder:ihc[]")
