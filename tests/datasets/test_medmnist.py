"""MedMNIST, on small `.npz` files of each dataset's task."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from mt.cache.content import ContentIndex
from mt.datasets import Dataset, load_dataset
from mt.datasets.readers.medmnist_table import PUBLISHED, SIZES
from mt.errors import DatasetError, InputError
from tests.datasets import layouts


def images(dataset: Dataset, split: str) -> list[np.ndarray]:
    chosen = dataset.splits[split]
    return [np.asarray(image) for image in chosen.images.load(0, len(chosen))]


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("grey", [False, True])
def test_medmnist(data: Path, index: ContentIndex, name: str, grey: bool) -> None:
    path = layouts.write_medmnist(data / "medmnist", name, grey=grey)
    dataset = load_dataset(f"medmnist:{name}", data, index=index)
    published = PUBLISHED[name]
    assert (dataset.task, dataset.class_names) == (published.task, published.class_names)
    with np.load(path) as arrays:
        for split in ("train", "val", "test"):
            expected = arrays[f"{split}_images"]
            found = np.stack(images(dataset, split))
            assert np.array_equal(found, np.repeat(expected[..., None], 3, axis=3) if grey else expected)
            labels = arrays[f"{split}_labels"]
            expected = labels if published.task == "multilabel" else labels[:, 0]
            assert np.array_equal(dataset.splits[split].labels, expected)


def test_medmnist_knows_all_2d_datasets_and_sizes() -> None:
    assert len(PUBLISHED) == 12
    assert {entry.task for entry in PUBLISHED.values()} == {"binary", "multiclass", "ordinal", "multilabel"}
    assert all(len(md5) == 32 for entry in PUBLISHED.values() for md5 in entry.md5)
    assert len({md5 for entry in PUBLISHED.values() for md5 in entry.md5}) == 12 * len(SIZES)
    assert all(len(set(entry.class_names)) == len(entry.class_names) for entry in PUBLISHED.values())


@pytest.mark.parametrize("size", [64, 128, 224])
def test_medmnist_larger_sizes(data: Path, index: ContentIndex, size: int) -> None:
    layouts.write_medmnist(data, "breastmnist", size=size, grey=True, rows=(4, 2, 2))
    dataset = load_dataset(f"medmnist:breastmnist@{size}", data, index=index)
    assert images(dataset, "test")[0].shape == (size, size, 3)
    assert dataset.name == f"medmnist:breastmnist@{size}"


def test_medmnist_larger_than_memory_is_unpacked_once(
    data: Path, home: Path, index: ContentIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = layouts.write_medmnist(data, "bloodmnist")
    monkeypatch.setattr("mt.datasets.packed.npz.IN_MEMORY_BYTES", 1)
    with np.load(path) as arrays:
        for _ in range(2):
            found = images(load_dataset("medmnist:bloodmnist", data, index=index), "val")
            assert np.array_equal(found, arrays["val_images"])
    assert len(list(home.rglob("val_images.npy"))) == 1


def test_medmnist_bad_files(data: Path) -> None:
    path = layouts.write_medmnist(data, "breastmnist")
    with np.load(path) as archive:
        good = dict(archive)
    zero = np.zeros(1, dtype=np.uint8)
    for change, message in (
        ({"val_images": None}, r"not a readable \.npz archive with an array 'val_images'"),
        ({"test_labels": None}, r"not a readable \.npz archive with an array 'test_labels'"),
        ({"test_labels": good["test_labels"][:-1]}, r"'test_labels' is \(7, 1\), expected \(8, 1\)"),
        ({"test_labels": good["test_labels"] + 1}, "'test_labels' holds an unknown label, expected 0 to 1"),
        ({"train_images": good["train_images"][:, :14]}, r"expected uint8 \(N, 28, 28\)"),
        ({"train_images": np.array([[1], ["a"]], dtype=object)}, "'train_images' is not a plain array"),
        ({"train_labels": np.array([[object()]] * 20)}, "array 'train_labels' .*allow_pickle"),
        ({"train_images": zero}, r"expected uint8"),
    ):
        arrays = {key: value for key, value in {**good, **change}.items() if value is not None}
        np.savez_compressed(path, **arrays)
        with pytest.raises(DatasetError, match=message):
            load_dataset("medmnist:breastmnist", data)
    path.write_bytes(b"PK no archive")
    with pytest.raises(DatasetError, match=r"breastmnist\.npz is not a readable"):
        load_dataset("medmnist:breastmnist", data)


def test_medmnist_array_that_says_it_is_larger_than_it_is(data: Path) -> None:
    """A file that promises more rows than it holds: otherwise a run would find that out after hours."""
    path = layouts.write_medmnist(data, "breastmnist", grey=True)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["train_images.npy"] = members["train_images.npy"].replace(b"(20, 28, 28)", b"(90, 28, 28)")
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(DatasetError, match=r"'train_images' is not a plain array of \(90, 28, 28\) uint8"):
        load_dataset("medmnist:breastmnist", data)


def test_medmnist_names(data: Path) -> None:
    with pytest.raises(InputError, match=r"No MedMNIST dataset 'pathmnst'. Did you mean 'pathmnist'"):
        load_dataset("medmnist:pathmnst", data)
    with pytest.raises(InputError, match=r"no size '32'. Expected 28, 64, 128, 224"):
        load_dataset("medmnist:pathmnist@32", data)
    with pytest.raises(DatasetError, match=r"no pathmnist_64\.npz in .*zenodo"):
        load_dataset("medmnist:pathmnist@64", data)


def test_medmnist_download_asks_for_the_published_hash(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(url: str, path: Path, *, known_hash: str) -> None:
        asked.append((url, path.name, known_hash))
        layouts.write_medmnist(path.parent, "retinamnist")

    monkeypatch.setattr("mt.system.download.download", download)
    assert load_dataset("medmnist:retinamnist", data, download=True).task == "ordinal"
    assert asked == [
        (
            "https://zenodo.org/records/10519652/files/retinamnist.npz?download=1",
            "retinamnist.npz",
            "md5:bd4c0672f1bba3e3a89f0e4e876791e4",
        )
    ]
