"""The published datasets (MedMNIST has a file of its own), on small files in exactly their publishers' layouts."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mt.cache.content import ContentIndex
from mt.cache.feature_file.format import Status
from mt.datasets import Dataset, ImageError, load_dataset
from mt.datasets.readers.nih import FINDINGS
from mt.datasets.readers.pneumonia import _patient
from mt.errors import DatasetError
from tests.datasets import layouts


def images(dataset: Dataset, split: str) -> list[np.ndarray]:
    chosen = dataset.splits[split]
    return [np.asarray(image) for image in chosen.images.load(0, len(chosen))]


def groups_of(dataset: Dataset, split: str) -> set[str]:
    groups = dataset.splits[split].groups
    assert groups is not None
    return set(groups)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("storage", [{}, {"chunks": (4, 96, 96, 3), "compression": "gzip"}, {"compression": "gzip"}])
def test_pcam(data: Path, index: ContentIndex, packed: bool, storage: dict[str, Any]) -> None:
    layouts.write_pcam(data / "pcam", packed=packed, **storage)
    dataset = load_dataset("pcam", data, index=index)
    assert (dataset.task, dataset.metric) == ("binary", "roc_auc")
    assert (dataset.budget_unit, dataset.grouping) == ("row", "slide")
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 24, "val": 8, "test": 12}
    for name, published in (("train", "train"), ("val", "valid"), ("test", "test")):
        assert np.array_equal(images(dataset, name), layouts.pcam_images(published))
        assert np.array_equal(dataset.splits[name].labels, layouts.pcam_labels(published))
    assert dataset.splits["test"].groups == dataset.splits["test"].columns["slide"]
    assert dataset.splits["test"].groups[4] == "camelyon16_test_normal_001"
    assert not dataset.warnings


def test_pcam_has_one_fingerprint_packed_or_not(data: Path, index: ContentIndex) -> None:
    layouts.write_pcam(data / "pcam")
    plain = load_dataset("pcam", data, index=index).fingerprint(index)
    for file in (data / "pcam").glob("*.h5"):
        file.unlink()
    layouts.write_pcam(data / "pcam", packed=True)
    assert load_dataset("pcam", data, index=index).fingerprint(index) == plain


def test_pcam_gz_is_decompressed_once_and_whole(data: Path, index: ContentIndex) -> None:
    folder = layouts.write_pcam(data / "pcam", packed=True)
    packed = folder / "camelyonpatch_level_2_split_test_x.h5.gz"
    whole = packed.read_bytes()
    packed.write_bytes(whole[:-100])
    with pytest.raises(DatasetError, match=r"test_x\.h5\.gz is damaged or cut short .* Download it again"):
        load_dataset("pcam", data, index=index)
    assert not [file for file in folder.iterdir() if "test_x" in file.name and file.suffix != ".gz"]
    packed.write_bytes(whole)
    load_dataset("pcam", data, index=index)
    made = packed.with_suffix("")
    before = made.stat().st_mtime_ns
    load_dataset("pcam", data, index=index)
    assert made.stat().st_mtime_ns == before
    assert not [file for file in folder.iterdir() if file.name.startswith(".")]


def test_pcam_gz_in_a_folder_that_cannot_be_written(
    data: Path, index: ContentIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    layouts.write_pcam(data / "pcam", packed=True)
    before = sorted((data / "pcam").iterdir())
    monkeypatch.setattr("mt.datasets.location.os.access", lambda path, mode: False)
    assert np.array_equal(images(load_dataset("pcam", data, index=index), "val"), layouts.pcam_images("valid"))
    assert sorted((data / "pcam").iterdir()) == before


def test_pcam_without_slides(data: Path, index: ContentIndex) -> None:
    layouts.write_pcam(data, meta=False)  # the files may also lie directly in the data folder
    dataset = load_dataset("pcam", data, index=index)
    assert dataset.grouping is None
    assert dataset.splits["train"].groups is None
    assert "no slides known for train, val, test" in dataset.warnings[0]


def test_pcam_files_that_contradict_each_other(data: Path) -> None:
    import h5py

    folder = layouts.write_pcam(data / "pcam")
    labels = folder / "camelyonpatch_level_2_split_valid_y.h5"
    with h5py.File(labels, "r+") as file:
        file["y"][3] = 2
    with pytest.raises(DatasetError, match="unknown label 2, expected 0 or 1"):
        load_dataset("pcam", data)
    with h5py.File(labels, "w") as file:
        file["y"] = np.zeros((7, 1, 1, 1), dtype=np.uint8)
    with pytest.raises(DatasetError, match=r"valid_y\.h5 holds 7 labels, .*valid_x\.h5 8 images"):
        load_dataset("pcam", data)
    labels.unlink()
    with pytest.raises(DatasetError, match=r"no camelyonpatch_level_2_split_valid_y\.h5 or .*\.gz in .*/pcam\."):
        load_dataset("pcam", data)
    layouts.write_pcam(data / "pcam")
    (folder / "camelyonpatch_level_2_split_test_meta.csv").write_text("wsi\nslide\n")
    with pytest.raises(DatasetError, match=r"test_meta\.csv describes 1 patches, expected 12"):
        load_dataset("pcam", data)
    (folder / "camelyonpatch_level_2_split_train_x.h5").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"train_x\.h5 is not a readable HDF5 file with a dataset 'x'"):
        load_dataset("pcam", data)


def test_aptos(data: Path, index: ContentIndex) -> None:
    layouts.write_aptos(data / "aptos2019")
    dataset = load_dataset("aptos2019", data, index=index)
    assert (dataset.task, dataset.metric, len(dataset.class_names)) == ("ordinal", "quadratic_kappa", 5)
    assert sum(map(len, dataset.splits.values())) == 60
    assert 10 <= len(dataset.splits["test"]) <= 14
    for split in dataset.splits.values():
        assert np.ptp(np.bincount(split.labels, minlength=5)) <= 2
        assert split.labels.tolist() == [int(id_, 16) // 7919 % 5 for id_ in split.ids]
    assert not groups_of(dataset, "train") & groups_of(dataset, "test")
    copies = [f"{number * 7919:012x}" for number in (0, 7, 14)]
    together = [name for name, split in dataset.splits.items() if set(copies) & set(split.ids)]
    assert len(together) == 1
    split = dataset.splits[together[0]]
    assert split.groups is not None
    assert {split.groups[split.ids.index(id_)] for id_ in copies} == {copies[0]}
    assert sum(len(groups_of(dataset, name)) for name in dataset.splits) == 58
    file = data / "aptos2019" / "train_images" / f"{dataset.splits['train'].ids[1]}.png"
    assert np.array_equal(images(dataset, "train")[1], np.asarray(Image.open(file)))


def test_aptos_split_is_fixed(data: Path, index: ContentIndex) -> None:
    """Part of the dataset's definition: no seed moves it."""
    layouts.write_aptos(data / "aptos2019")
    one, two = (load_dataset("aptos2019", data, seed=seed, index=index) for seed in (0, 1))
    assert one.splits["test"].ids == two.splits["test"].ids


def test_aptos_bad_tables(data: Path, index: ContentIndex) -> None:
    folder = layouts.write_aptos(data / "aptos2019")
    table, whole = folder / "train.csv", (folder / "train.csv").read_text()
    for text, message in (
        (whole.replace("diagnosis", "grade"), r"train\.csv lacks the column 'diagnosis'. Found: id_code, grade"),
        (whole.replace(",4\n", ",5\n", 1), r"unknown label '5' for 000000007bbc, expected one of 0, 1, 2, 3, 4"),
        (whole.replace(",4\n", ",\n", 1), "unknown label ''"),
        (whole + "000000000000,0\n", "lists an image twice: 000000000000"),
        (whole + "00000000abcd\n", "line 62: 1 values, expected 2"),
        ("id_code,diagnosis\n", "has no rows below its header"),
    ):
        table.write_text(text)
        with pytest.raises(DatasetError, match=message):
            load_dataset("aptos2019", data, index=index)


def test_labels_without_images_and_images_without_labels(data: Path, index: ContentIndex) -> None:
    folder = layouts.write_aptos(data / "aptos2019")
    layouts.write_image(folder / "train_images" / "ffffffffffff.png", 1)
    (folder / "train_images" / "000000001eef.png").unlink()
    with pytest.raises(DatasetError, match=r"1 of 60 listed images do not exist .*: 000000001eef\.png.*skip"):
        load_dataset("aptos2019", data, index=index)
    dataset = load_dataset("aptos2019", data, index=index, on_error="skip")
    assert any("1 image in" in text and "listed nowhere" in text and "ffff" in text for text in dataset.warnings)
    assert sum(map(len, dataset.splits.values())) == 60
    assert dataset.fingerprint(index)
    (found,) = [
        image
        for split in dataset.splits.values()
        for image in split.images.load(0, len(split))
        if isinstance(image, ImageError)
    ]
    assert found.status == Status.ABSENT
    assert "000000001eef" in str(found)
    shutil.rmtree(folder / "train_images")
    with pytest.raises(DatasetError, match="no folder train_images in"):
        load_dataset("aptos2019", data, index=index)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("outer", ["", "pneumonia", "pneumonia/chest_xray"])
def test_pneumonia(data: Path, index: ContentIndex, version: int, outer: str) -> None:
    folder = layouts.write_pneumonia(data / outer, version)
    (folder / "chest_xray" / "train" / "NORMAL" / ".DS_Store").touch()
    dataset = load_dataset("pneumonia", data, index=index)
    names = layouts.pneumonia_names(version)
    published = {place: len(found) for place, found in names.items()}
    learning = sum(count for place, count in published.items() if not place.startswith("test"))
    assert len(dataset.splits["train"]) + len(dataset.splits["val"]) == learning
    assert len(dataset.splits["test"]) == published["test/NORMAL"] + published["test/PNEUMONIA"]
    assert 1 <= len(dataset.splits["val"]) <= learning // 3
    assert not groups_of(dataset, "train") & groups_of(dataset, "val")
    assert not groups_of(dataset, "train") & groups_of(dataset, "test")
    for split in dataset.splits.values():
        assert split.labels.tolist() == [int("PNEUMONIA" in id_) for id_ in split.ids]
        assert split.columns["patient"] == split.groups
    assert dataset.drawn["val"]["rows"] == {name: len(dataset.splits[name]) for name in ("train", "val")}


def test_patients_of_pneumonia_are_namespaced() -> None:
    """Numbering restarts in the test folder and with each prefix; bacteria and virus of one person are one patient."""
    for id_, patient in {
        "train/NORMAL/IM-0115-0001.jpeg": "train/IM-0115",
        "val/NORMAL/IM-0187-0001-0002.jpeg": "train/IM-0187",
        "test/NORMAL/IM-0115-0001.jpeg": "test/IM-0115",
        "train/NORMAL/NORMAL2-IM-0115-0001.jpeg": "train/NORMAL2-IM-0115",
        "train/PNEUMONIA/person1_bacteria_1.jpeg": "train/person1",
        "train/PNEUMONIA/person1_virus_7.jpeg": "train/person1",
        "test/PNEUMONIA/person1_virus_11.jpeg": "test/person1",
        "train/NORMAL/NORMAL-1003233-0001.jpeg": "train/NORMAL-1003233",
        "train/PNEUMONIA/BACTERIA-1008087-0001.jpeg": "train/BACTERIA-1008087",
        "train/PNEUMONIA/VIRUS-1008087-0002.jpeg": "train/VIRUS-1008087",
    }.items():
        assert _patient(id_) == patient
    with pytest.raises(DatasetError, match=r"no patient in the file name train/NORMAL/scan1\.jpeg"):
        _patient("train/NORMAL/scan1.jpeg")


def test_pneumonia_without_a_folder(data: Path) -> None:
    layouts.write_pneumonia(data)
    shutil.rmtree(data / "chest_xray" / "test" / "PNEUMONIA")
    with pytest.raises(DatasetError, match="no folder test/PNEUMONIA in"):
        load_dataset("pneumonia", data)


@pytest.mark.parametrize("csv_name", ["Data_Entry_2017.csv", "Data_Entry_2017_v2020.csv"])
def test_nih(data: Path, index: ContentIndex, csv_name: str) -> None:
    layouts.write_nih(data / "nih-cxr14", csv_name=csv_name)
    dataset = load_dataset("nih-cxr14", data, index=index)
    assert (dataset.task, dataset.metric, dataset.class_names) == ("multilabel", "mean_auc", FINDINGS)
    rows = {name: (findings, patient) for name, findings, patient, _ in layouts.nih_rows()}
    assert sorted(id_ for split in dataset.splits.values() for id_ in split.ids) == sorted(rows)
    assert {rows[id_][1] for id_ in dataset.splits["test"].ids} == set(range(31, 37))
    assert not groups_of(dataset, "train") & groups_of(dataset, "val")
    for split in dataset.splits.values():
        assert split.labels.shape == (len(split), 14)
        for id_, label, group in zip(split.ids, split.labels, split.groups or (), strict=True):
            present = {FINDINGS[number] for number in np.flatnonzero(label)}
            assert present == set(rows[id_][0].split("|")) - {"No Finding"}
            assert group == str(rows[id_][1])
        assert split.columns["age"] == [20 + int(group) for group in split.groups or ()]
        assert set(split.columns["sex"]) <= {"M", "F"}
        assert set(split.columns["view"]) <= {"PA", "AP"}
        assert all(isinstance(image, Image.Image) for image in split.images.load(0, len(split)))


@pytest.mark.parametrize(
    ("published", "years"), [("58", 58), ("058Y", 58), ("011M", 0), ("030M", 2), ("012D", 0), ("", None)]
)
def test_nih_ages_of_both_releases(published: str, years: int | None) -> None:
    from mt.datasets.dicom.headers import whole_years

    assert whole_years(published) == years


def test_nih_bad_files(data: Path, index: ContentIndex) -> None:
    folder = layouts.write_nih(data / "nih-cxr14")
    table = folder / "Data_Entry_2017_v2020.csv"
    whole, tests = table.read_text(), (folder / "test_list.txt").read_text()
    (folder / "test_list.txt").write_text(tests + "\n99999999_000.png\n")
    with pytest.raises(DatasetError, match=r"has no row for 1 listed images: 99999999_000\.png"):
        load_dataset("nih-cxr14", data, index=index)
    (folder / "test_list.txt").write_text(tests + "\n00000001_000.png\n")
    with pytest.raises(DatasetError, match=r"1 duplicated ids, first '00000001_000\.png'"):
        load_dataset("nih-cxr14", data, index=index)
    (folder / "test_list.txt").write_text(tests)
    table.write_text(whole.replace("|", "|Zebra|", 1))
    with pytest.raises(DatasetError, match="unknown label 'Zebra' for"):
        load_dataset("nih-cxr14", data, index=index)
    table.write_text(whole.replace("View Position", "View"))
    with pytest.raises(DatasetError, match="lacks the column 'View Position'"):
        load_dataset("nih-cxr14", data, index=index)
    table.write_text(whole)
    absent = next((folder / "images_003" / "images").iterdir())
    absent.unlink()
    with pytest.raises(DatasetError, match=rf"1 of \d+ listed images do not exist in .*: {absent.name}"):
        load_dataset("nih-cxr14", data, index=index)
    assert load_dataset("nih-cxr14", data, index=index, on_error="skip").warnings
    layouts.write_image(folder / "images_003" / "images" / absent.name, 1)
    layouts.write_image(folder / "images_004" / "images" / absent.name, 1)
    with pytest.raises(DatasetError, match=f"{absent.name} is there twice"):
        load_dataset("nih-cxr14", data, index=index)
    (folder / "train_val_list.txt").unlink()
    with pytest.raises(DatasetError, match=r"no train_val_list\.txt in"):
        load_dataset("nih-cxr14", data, index=index)
