"""Columns of tables by the names that people use, and by options; patients that are missing or not used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mt.cache import Catalog
from mt.datasets import Dataset, load_dataset
from mt.errors import DatasetError, InputError
from mt.probe.questions import find_pairs
from mt.probe.scores import metrics
from tests.datasets.layouts import write_image


def write(folder: Path, header: str, lines: list[str]) -> Path:
    """Write a table whose first column names images, and the images."""
    file = folder / "mine.csv"
    file.write_text("\n".join([header, *lines]) + "\n")
    for seed, line in enumerate(lines):
        write_image(folder / line.split(",")[0], seed)
    return file


def rows(*patients: str, label: str = "ab") -> list[str]:
    return [f"i{n}.png,{label[n % 2]},{patient}" for n, patient in enumerate(patients)]


def load(file: Path, **settings: Any) -> Dataset:
    return load_dataset(f"table:{file}", **settings)


def grouped(dataset: Dataset) -> set[str]:
    return {group for split in dataset.splits.values() for group in split.groups or ()}


SIX = ("p1", "p2", "p3", "p4", "p5", "p6")


@pytest.mark.parametrize(
    ("image", "label", "patient"),
    [
        ("image", "label", "patient"),
        ("Filename", "Diagnosis", "patient_id"),
        ("PATH", "class", "PatientID"),
        ("file name", "TARGET", "Patient ID"),
        ("image", "label", "subject"),
        ("image", "label", "case_id"),
        ("image", "label", "slide_id"),
        ("image", "label", "MRN"),
    ],
)
def test_columns_have_the_names_that_people_use(tmp_path: Path, image: str, label: str, patient: str) -> None:
    dataset = load(write(tmp_path, f"{image},{label},{patient}", rows(*SIX)))
    assert grouped(dataset) == set(SIX)
    assert dataset.class_names == ("a", "b")


def test_options_name_columns(tmp_path: Path) -> None:
    file = write(tmp_path, "where,finding,who", rows(*SIX))
    dataset = load(file, image_column="where", label_columns=("Finding",), group_column="who")
    assert grouped(dataset) == set(SIX)
    assert dataset.class_names == ("a", "b")
    with pytest.raises(InputError, match=r"--group-column whom: .* has no such column. Found: image, label, who"):
        load(file, image_column="where", label_columns=("finding",), group_column="whom")


@pytest.mark.parametrize(
    "name", ["Pat Nr", "pat_id", "PatNo", "PID", "Pt ID", "person-id", "subj_no", "participant", "patient name"]
)
def test_names_that_look_like_a_patient_stop_the_run(tmp_path: Path, name: str) -> None:
    file = write(tmp_path, f"image,label,{name}", rows(*SIX))
    with pytest.raises(DatasetError, match=r"looks like a patient and is not used\. Use it: --group-column"):
        load(file)
    assert load(file, group_column="none").grouping is None


@pytest.mark.parametrize("name", ["pT", "pattern", "path length", "pattern code", "personnel"])
def test_names_that_only_begin_like_a_patient_do_not(tmp_path: Path, name: str) -> None:
    assert load(write(tmp_path, f"image,label,{name}", rows(*SIX))).grouping is None


@pytest.mark.parametrize(
    ("written", "classes"),
    [
        (("0", "0.0", "1"), ("0", "1")),
        (("-1.0", "-1", "1", "+1"), ("-1", "1")),
        (("0.5", "0.50", "0,5", "0.25"), ("0.25", "0.5")),
        (("01", "1", "2"), ("01", "1", "2")),
        (("a", "a.0"), ("a", "a.0")),
    ],
)
def test_one_number_is_one_class_however_it_is_written(
    tmp_path: Path, written: tuple[str, ...], classes: tuple[str, ...]
) -> None:
    lines = [f'i{n}.png,"{written[n % len(written)]}"' for n in range(8 * len(written))]
    dataset = load(write(tmp_path, "image,label", lines), task="multiclass")
    assert sorted(dataset.class_names) == sorted(classes)


def test_several_label_columns_are_labels_of_their_own(tmp_path: Path) -> None:
    lines = [f"i{n}.png,{n % 2},{n % 3 % 2},x" for n in range(6)]
    dataset = load(write(tmp_path, "image,mass,edema,note", lines), label_columns=("mass", "edema"))
    assert (dataset.task, dataset.class_names) == ("multilabel", ("mass", "edema"))


def test_a_column_like_a_patient_is_used_or_said_to_be_none(tmp_path: Path) -> None:
    file = write(tmp_path, "image,label,patient_number", rows(*SIX))
    with pytest.raises(DatasetError, match="column 'patient_number' looks like a patient and is not used"):
        load(file)
    assert grouped(load(file, group_column="patient_number")) == set(SIX)
    assert grouped(load(file, group_column="none")) == set()


@pytest.mark.parametrize("missing", ["", "NA", "N/A", "nan", "None", "null", "<NA>", "."])
def test_a_missing_patient_is_refused_or_its_own(tmp_path: Path, missing: str) -> None:
    file = write(tmp_path, "image,label,patient", rows(missing, missing, "p3", "p4", "p5", "p6"))
    with pytest.raises(DatasetError, match="2 of 6 rows name no patient or group, line 2, 3"):
        load(file)
    own = grouped(load(file, missing_group="own"))
    assert own == {"row:i0.png", "row:i1.png", "p3", "p4", "p5", "p6"}


def test_columns_that_could_be_one_role_are_chosen(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="Choose: --image-column filename"):
        load(write(tmp_path, "filename,label,path", rows(*SIX)))
    with pytest.raises(DatasetError, match="Choose: --label-column diagnosis"):
        load(write(tmp_path, "image,diagnosis,target", rows(*SIX)))


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    lines = [f"{row},x" for row in rows(*SIX)]
    with pytest.raises(DatasetError, match="two columns named 'Label'"):
        load(write(tmp_path, "image,label,patient,Label", lines))


def test_a_column_of_measurements_is_no_hundred_classes(tmp_path: Path) -> None:
    lines = [f"i{n}.png,{n / 7:.3f}" for n in range(100)]
    with pytest.raises(DatasetError, match=r"100 numbers with decimals, such as .* a regression"):
        load(write(tmp_path, "image,label", lines))
    few = [f"i{n}.png,{n % 4 / 4}" for n in range(12)]
    assert load(write(tmp_path, "image,label", few)).class_names == ("0.0", "0.25", "0.5", "0.75")


def test_a_folder_of_the_name_is_proposed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "moles").mkdir()
    with pytest.raises(InputError, match="there is a folder of that name: use folder:moles"):
        load_dataset("moles")


@pytest.mark.parametrize("name", ["pcamm", "folder:nowhere", "folder:nowhere[seed=3]"])
def test_features_of_no_dataset_are_never_proposed(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError) as raised:
        find_pairs(Catalog(tmp_path), datasets=[name])
    assert "mt featurize" not in str(raised.value)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("auroc", "roc_auc"),
        ("AUC", "roc_auc"),
        ("acc", "accuracy"),
        ("qwk", "quadratic_kappa"),
        ("kappa", "quadratic_kappa"),
    ],
)
def test_metrics_are_known_by_their_other_names(typed: str, meant: str) -> None:
    with pytest.raises(InputError, match=f"Did you mean '{meant}'"):
        metrics.get(typed)
