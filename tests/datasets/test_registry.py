"""Rules that hold for every registered dataset."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mt.cache.content import ContentIndex
from mt.datasets import DATASETS, Dataset, load_dataset
from mt.datasets.base import METADATA
from mt.errors import DatasetError, InputError
from mt.types import HEADLINE
from tests.datasets import layouts

IMAGES = ("pcam", "aptos2019", "pneumonia", "nih-cxr14", "medmnist", "folder", "table", "digits", "synthetic")


def prepare(name: str, data: Path) -> str:
    """Write the small version of a registered dataset; return how its name is typed."""
    if name == "pcam":
        layouts.write_pcam(data / "pcam")
    elif name == "aptos2019":
        layouts.write_aptos(data / "aptos2019")
    elif name == "pneumonia":
        layouts.write_pneumonia(data / "pneumonia")
    elif name == "nih-cxr14":
        layouts.write_nih(data / "nih-cxr14")
    elif name == "medmnist":
        layouts.write_medmnist(data / "medmnist", "chestmnist", grey=True)
        return "medmnist:chestmnist"
    elif name == "folder":
        return f"folder:{layouts.write_folder(data / 'pets')}"
    elif name == "table":
        layouts.write_folder(data / "pets")
        lines = [f"pets/{kind}/p{n // 2}_{n}.png,{kind}" for kind in ("cat", "dog") for n in range(10)]
        (data / "mine.csv").write_text("\n".join(["image,label", *lines]))
        return f"table:{data / 'mine.csv'}"
    return {"synthetic": "synthetic@12"}.get(name, name)


def loaded(name: str, data: Path, index: ContentIndex) -> Dataset:
    return load_dataset(prepare(name, data), data, index=index)


def test_every_dataset_is_tested() -> None:
    assert set(IMAGES) == set(DATASETS)


@pytest.mark.parametrize("name", DATASETS)
def test_a_dataset_keeps_its_promises(name: str, data: Path, index: ContentIndex) -> None:
    dataset = loaded(name, data, index)
    assert dataset.metric == HEADLINE[dataset.task]
    assert dataset.licence
    assert len(dataset.class_names) >= 2
    for split_name, split in dataset.splits.items():
        assert split.name == split_name
        assert len(split) == len(split.ids) == len(split.labels) == len(split.images) == len(set(split.ids))
        multilabel = dataset.task == "multilabel"
        assert split.labels.dtype == (np.int8 if multilabel else np.int64)
        assert split.labels.shape[1:] == ((len(dataset.class_names),) if multilabel else ())
        assert split.labels.max() < (2 if multilabel else len(dataset.class_names))
        assert split.groups is None or len(split.groups) == len(split)
        assert set(split.columns) <= set(METADATA)
        for image in split.images.load(0, len(split)):
            pixels = np.asarray(image)
            assert pixels.dtype == np.uint8
            assert pixels.shape[2:] == (3,)
    assert "train" in dataset.splits
    assert "test" in dataset.splits


@pytest.mark.parametrize("name", DATASETS)
def test_fingerprints_are_of_content_never_of_places(name: str, tmp_path: Path, index: ContentIndex) -> None:
    one, two = (loaded(name, tmp_path / place, index) for place in ("one", "two"))
    assert one.fingerprint(index) == two.fingerprint(index)
    assert str(tmp_path) not in json.dumps(one.describe(index))
    prints = {one.split_fingerprint(split, index) for split in one.splits} | {one.fingerprint(index)}
    assert len(prints) == len(one.splits) + 1


@pytest.mark.parametrize("name", ["pcam", "aptos2019", "pneumonia", "nih-cxr14", "medmnist:pathmnist"])
def test_a_missing_folder_says_what_was_expected_where(name: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError) as error:
        load_dataset(name, tmp_path / "nowhere")
    message = str(error.value)
    spec = DATASETS[name.partition(":")[0]]
    assert message.startswith(f"{name}: no ")
    assert str(tmp_path / "nowhere") in message
    assert spec.layout in message
    assert "https://" in message or "kaggle.com" in message
    assert "\n" not in message


def test_names_that_are_no_dataset(tmp_path: Path) -> None:
    for name, message in (
        ("pcm", "No dataset 'pcm'. Did you mean 'pcam'"),
        ("pcam:x", "'pcam:x' is not a dataset: expected pcam"),
        ("folder", "'folder' is not a dataset: expected folder:PATH"),
        ("folder@x", "'folder@x' is not a dataset: expected folder:PATH"),
        ("synthetic:5", r"'synthetic:5' is not a dataset: expected synthetic\[@N\]"),
        ("digits@5", "'digits@5' is not a dataset: expected digits"),
    ):
        with pytest.raises(InputError, match=message):
            load_dataset(name, tmp_path)


def test_options_that_do_not_apply(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--task does not apply to 'digits' \(multiclass\)"):
        load_dataset("digits", task="binary")
    with pytest.raises(InputError, match="--group-regex does not apply to 'digits'"):
        load_dataset("digits", group_regex="x")
    with pytest.raises(InputError, match=r"'pcam' cannot be downloaded for you. Download the twelve files from https"):
        load_dataset("pcam", tmp_path, download=True)


def test_loading_is_light(data: Path) -> None:
    """A cached rerun imports neither torch nor scikit-learn; h5py only for HDF5."""
    names = [prepare(name, data) for name in DATASETS if name != "pcam"]
    code = f"""
import sys
from pathlib import Path
from mt.datasets import load_dataset
from mt.cache.content import ContentIndex
index = ContentIndex()
for name in {names!r}:
    load_dataset(name, Path({str(data)!r}), index=index).fingerprint(index)
print(*sorted({{"torch", "torchvision", "timm", "sklearn", "scipy", "pandas", "h5py", "pydicom"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("name", DATASETS)
def test_images_travel_to_another_process(name: str, data: Path, index: ContentIndex) -> None:
    split = next(iter(loaded(name, data, index).splits.values()))
    split.images.load(0, 2)
    there = copy.deepcopy(split.images)  # as pickle does
    for ours, theirs in zip(split.images.load(0, 3), there.load(0, 3), strict=True):
        np.testing.assert_array_equal(np.asarray(theirs), np.asarray(ours))
