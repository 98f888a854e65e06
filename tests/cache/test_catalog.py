"""The catalog lists the files of a cache folder, those it omits, and the damaged ones."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from mt.cache import Catalog, Entry, feature_path
from tests.cache import samples


def put(cache: Path, *, fingerprint: str = "a" * 64, age: float = 0.0, partial: bool = False, **changes: Any) -> Path:
    """Write a sample file into a cache, `age` seconds old."""
    manifest = samples.manifest(**changes)
    manifest["fingerprints"] = manifest["fingerprints"] | {"file": fingerprint}
    path = feature_path(cache, manifest["dataset"], manifest["split"], manifest["backbone"], fingerprint)
    with samples.open_writer(path, manifest=manifest) as writer:
        samples.fill(writer, [0] if partial else None)
        written = path.with_suffix(".partial") if partial else writer.finish()
    os.utime(written, (1e9 - age, 1e9 - age))
    return written


def names(entries: list[Entry]) -> list[tuple[str, str, str]]:
    return [(entry.dataset, entry.split, entry.backbone) for entry in entries]


def flags(cache: Path) -> dict[str, tuple[str, ...]]:
    return {entry.fingerprints["file"][0]: entry.flags for entry in Catalog(cache).entries(everything=True)}


def test_entries_know_what_their_files_are(tmp_path: Path) -> None:
    path = put(tmp_path)
    (entry,) = Catalog(tmp_path).entries()
    assert entry.path == path
    assert (entry.dataset, entry.split, entry.backbone) == ("folder:moles", "train", "dino")
    assert (entry.n_rows, entry.n_skipped, entry.dim, entry.bytes) == (11, 1, samples.DIM, path.stat().st_size)
    assert entry.complete
    assert entry.flags == ()
    assert entry.fingerprints["backbone"] == "b" * 64
    assert entry.open().n_ok == 10


def test_a_folder_that_is_not_there_or_empty_has_no_entries(tmp_path: Path) -> None:
    assert Catalog(tmp_path / "none").entries() == []
    (tmp_path / "stray.h5").write_bytes(b"x")
    (tmp_path / ".hidden" / "train").mkdir(parents=True)
    assert Catalog(tmp_path).entries(everything=True) == []


def test_entries_are_chosen_by_name(tmp_path: Path) -> None:
    put(tmp_path)
    put(tmp_path, split="test")
    put(tmp_path, backbone="swav")
    put(tmp_path, dataset="pcam", location=None)
    catalog = Catalog(tmp_path)
    assert len(catalog.entries()) == 4
    assert names(catalog.entries(datasets=["pcam"])) == [("pcam", "train", "dino")]
    assert names(catalog.entries(models=["swav"])) == [("folder:moles", "train", "swav")]
    assert names(catalog.entries(splits=["test"], models=["dino", "swav"])) == [("folder:moles", "test", "dino")]
    assert len(catalog.entries(datasets=["folder:/data/moles"])) == 3  # as it was asked for
    assert catalog.entries(datasets=["folder:/other/moles"]) == []


def test_a_newer_file_supersedes_one_with_the_same_names(tmp_path: Path) -> None:
    put(tmp_path, fingerprint="a" * 64, age=100)
    put(tmp_path, fingerprint="b" * 64)
    assert flags(tmp_path) == {"a": ("superseded",), "b": ()}
    assert [entry.fingerprints["file"][0] for entry in Catalog(tmp_path).entries()] == ["b"]


@pytest.mark.parametrize(
    "other",
    [
        {"backbone": "swav"},
        {"split": "test"},
        {"dataset": "pcam"},
        {"location": "/elsewhere/moles"},
        {"limit": 10},
        {"random_weights": True},
    ],
)
def test_a_newer_file_of_something_else_supersedes_nothing(tmp_path: Path, other: dict[str, Any]) -> None:
    put(tmp_path, fingerprint="a" * 64, age=100)
    put(tmp_path, fingerprint="b" * 64, **other)
    assert flags(tmp_path)["a"] == ()


def test_an_incomplete_file_supersedes_nothing(tmp_path: Path) -> None:
    put(tmp_path, fingerprint="a" * 64, age=100)
    put(tmp_path, fingerprint="b" * 64, partial=True)
    assert flags(tmp_path) == {"a": (), "b": ("incomplete",)}


def test_limited_and_random_files_are_left_out_unless_asked_for(tmp_path: Path) -> None:
    put(tmp_path, fingerprint="a" * 64)
    put(tmp_path, fingerprint="b" * 64, limit=10)
    put(tmp_path, fingerprint="c" * 64, random_weights=True)
    put(tmp_path, fingerprint="d" * 64, random_weights=True, limit=10)
    assert [entry.fingerprints["file"][0] for entry in Catalog(tmp_path).entries()] == ["a"]
    assert flags(tmp_path) == {"a": (), "b": ("limited",), "c": ("random",), "d": ("limited", "random")}


def test_broken_files_are_flagged_and_stop_nothing(tmp_path: Path) -> None:
    path = put(tmp_path)
    folder = path.parent
    (folder / "empty-0.h5").write_bytes(b"")
    (folder / "other-0.h5").write_bytes(b"not HDF5" * 1000)
    (folder / "folder-0.h5").mkdir()
    (folder / "gone-0.h5").symlink_to(folder / "nowhere")
    cut = path.read_bytes()[:-1]
    (folder / "cut-0.h5").write_bytes(cut)
    entries = Catalog(tmp_path).entries()
    assert {entry.path.name: entry.flags for entry in entries if entry.path != path} == {
        f"{name}-0.h5": ("damaged",) for name in ("empty", "other", "folder", "gone", "cut")
    }
    assert all(entry.problem for entry in entries if entry.path != path)
    assert [entry.complete for entry in entries if entry.path == path] == [True]


def test_a_catalog_needs_neither_hdf5_nor_numpy(tmp_path: Path) -> None:
    import subprocess
    import sys

    put(tmp_path)
    code = (
        "import sys; from mt.cache import Catalog, is_complete; "
        f"(entry,) = Catalog({str(tmp_path)!r}).entries(); assert is_complete(entry.path); "
        "print([name for name in ('h5py', 'numpy', 'torch', 'pandas', 'filelock') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"
