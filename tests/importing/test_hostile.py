"""Malicious files: no code in them runs, and no file outside them is read."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from mt.errors import InputError
from tests.importing import elsewhere as sample


class Harm:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.pt", "old.pt"])
def test_pickles_do_not_run(tmp_path: Path, name: str) -> None:
    harm, file = tmp_path / "harm", tmp_path / name
    objects = np.array([Harm(harm)], dtype=object)
    if name == "x.npy":
        np.save(file, objects, allow_pickle=True)
    elif name == "x.npz":
        np.savez(file, embeddings=objects)
    elif name == "x.pt":
        torch.save({"features": torch.zeros(2, 2), "more": Harm(harm)}, file)
    else:
        file.write_bytes(pickle.dumps(Harm(harm)))
    with pytest.raises(InputError, match=r"which mt (never loads|does not unpickle)|not a whole") as error:
        sample.imported(tmp_path / "cache", file, labels=[sample.label_table(tmp_path / "labels.csv")])
    assert not harm.exists()
    assert "\n" not in str(error.value)


def test_labels_are_not_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", sample.matrix(1))
    np.save(tmp_path / "y.npy", np.array([Harm(tmp_path / "harm")], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"y.npy holds pickled Python objects, which mt never loads"):
        sample.imported(tmp_path, tmp_path / "x.npy", labels=[tmp_path / "y.npy"])
    assert not (tmp_path / "harm").exists()


def outside(folder: Path) -> Path:
    with h5py.File(folder / "secret.h5", "w") as file:
        file["features"] = sample.matrix()
    sample.matrix().tofile(folder / "secret.bin")
    return folder / "secret.h5"


def link(folder: Path) -> None:
    with h5py.File(folder / "in" / "a.h5", "w") as file:
        file["features"] = h5py.ExternalLink(str(outside(folder)), "features")


def external(folder: Path) -> None:
    outside(folder)
    with h5py.File(folder / "in" / "a.h5", "w") as file:
        size = sample.N * sample.DIM * 4
        file.create_dataset("features", (sample.N, sample.DIM), "f4", external=[(str(folder / "secret.bin"), 0, size)])


def virtual(folder: Path) -> None:
    layout = h5py.VirtualLayout((sample.N, sample.DIM), "f4")
    layout[:] = h5py.VirtualSource(outside(folder), "features", (sample.N, sample.DIM))
    with h5py.File(folder / "in" / "a.h5", "w") as file:
        file.create_virtual_dataset("features", layout)


def symlink(folder: Path) -> None:
    (folder / "in" / "a.h5").symlink_to(outside(folder))


@pytest.mark.parametrize("make", [link, external, virtual, symlink])
def test_nothing_outside_is_read(tmp_path: Path, make: Any) -> None:
    (tmp_path / "in").mkdir()
    make(tmp_path)
    table = sample.write_table(tmp_path / "labels.csv", {"id": ["a"], "label": ["x"], "split": ["train"]})
    with pytest.raises(InputError, match=r"link to another file|lie in other files|link that leads out of"):
        sample.imported(tmp_path / "cache", tmp_path / "in", labels=[table], pool="mean")


def test_names_stay_inside_the_cache(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=sample.matrix(), ids=sample.ids())
    labels = [sample.label_table(tmp_path / "labels.csv")]
    made = sample.imported(
        tmp_path / "cache", tmp_path / "x.npz", labels=labels, dataset="../../out", model="/etc/passwd"
    )
    assert all((tmp_path / "cache") in one.path.resolve().parents for one in made)


def test_a_feature_file_of_our_own_is_not_imported(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=sample.matrix(), ids=sample.ids())
    (first, *_) = sample.imported(tmp_path, tmp_path / "x.npz", labels=[sample.label_table(tmp_path / "labels.csv")])
    with pytest.raises(InputError, match=r"is a feature file of mt already"):
        sample.imported(tmp_path, first.path, model="other")
