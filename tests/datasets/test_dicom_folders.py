"""Folders and tables of DICOM files: found by content, grouped by patient without names, columns on request."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mt.cache.content import ContentIndex
from mt.cache.salt import id_salt
from mt.datasets import Dataset, load_dataset
from mt.datasets.decoding.kinds import is_dicom
from mt.datasets.image_file import decode
from mt.datasets.patients import PATIENT
from mt.errors import DatasetError, InputError
from tests.datasets.layouts import write_image
from tests.datasets.test_dicom import STORED, write_dicom

SECRET = "Patient-4711"


def hospital(root: Path, *, patients: int = 10, **tags: Any) -> Path:
    """Two images per patient, one in each class, without suffixes, as archives export them."""
    for number in range(patients * 2):
        folder = root / ("well", "sick")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        who = {"PatientID": f"{SECRET}-{number // 2}", "PatientSex": "FM"[number // 2 % 2], "PatientAge": "040Y"}
        write_dicom(folder / f"IM{number:04d}", (STORED + number * 7) % 4096, **{**who, "Modality": "CR", **tags})
    return root


def load(root: Path, index: ContentIndex, **words: Any) -> Dataset:
    return load_dataset(f"folder:{root}", index=index, **words)


def every_id(dataset: Dataset) -> set[str]:
    return {id_ for split in dataset.splits.values() for id_ in split.ids}


def bare(path: Path) -> Path:
    """The same file without its preamble and without its group 2."""
    import pydicom

    header = pydicom.dcmread(path)
    del header.file_meta
    header.preamble = None
    target = path.with_name(f"bare{path.name}")
    header.save_as(target, implicit_vr=True, little_endian=True, enforce_file_format=False)
    return target


def report(path: Path) -> Path:
    """A structured report: a DICOM object that is not an image."""
    from pydicom.data import get_testdata_file

    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(str(get_testdata_file("test-SR.dcm")), path)
    return path


def test_found_by_content(data: Path, index: ContentIndex) -> None:
    root = hospital(data / "clinic")
    write_dicom(root / "well" / "UPPER.DCM", STORED)
    write_dicom(root / "well" / "1.2.840.113", STORED // 2)
    write_dicom(root / "well" / "x.IMA", STORED // 3)
    assert not bare(root / "well" / "IM0000").read_bytes().startswith(b"\0" * 128)
    (root / "well" / "notes.txt").write_text("no image")
    report(root / "well" / "report.dcm")
    report(root / "sick" / "SR000001")
    dataset = load(root, index)
    assert len(every_id(dataset)) == 24
    assert {"well/UPPER.DCM", "well/1.2.840.113", "well/x.IMA", "well/bareIM0000"} < every_id(dataset)
    assert "1 file that is not an image was ignored: well/notes.txt" in dataset.warnings
    left_out = "2 DICOM objects that are not images were omitted: sick/SR000001 (Comprehensive SR Storage), "
    assert any(warning.startswith(left_out) for warning in dataset.warnings)
    assert np.array_equal(
        np.asarray(decode(root / "well" / "bareIM0000")), np.asarray(decode(root / "well" / "IM0000"))
    )


def test_a_damaged_file_is_not_passed_over(data: Path, index: ContentIndex) -> None:
    root = hospital(data / "clinic")
    whole = (root / "well" / "IM0000").read_bytes()
    (root / "well" / "broken.dcm").write_bytes(whole[:200])
    dataset = load(root, index)
    assert "well/broken.dcm" in every_id(dataset)


@pytest.mark.parametrize(
    ("head", "found"),
    [
        (b"\0" * 128 + b"DICM", True),
        (b"\x08\0\x05\0CS\x0a\0ISO_IR 100", True),
        (b"\x08\0\x05\0\x0a\0\0\0ISO_IR 100", True),
        (b"\0\x08\0\x05CS\0\x0aISO_IR 100", True),
        (b"\x02\0\0\0UL\x04\0\0\0\0\0\0\0\0\0", True),
        (b"II*\0" + b"\0" * 300, False),
        (b"\x08\0\x05\0\xff\xff\xff\xffISO_IR 100", False),
        (b"P5\n8 8\n255\n" + b"\x08\0\x05\0" * 9, False),
        (b"\x08\0", False),
    ],
)
def test_what_begins_as_dicom(head: bytes, found: bool) -> None:
    assert is_dicom(head) == found


def test_patients_are_groups_by_number(data: Path, index: ContentIndex) -> None:
    dataset = load(hospital(data / "clinic"), index)
    assert dataset.grouping == "patient"
    train, test = (set(dataset.splits[name].groups or ()) for name in ("train", "test"))
    assert not train & test
    assert train | test == {str(number) for number in range(1, 11)}
    assert not any("no patient grouping" in warning for warning in dataset.warnings)
    assert SECRET not in repr(dataset)


def test_a_named_group_comes_first(data: Path, index: ContentIndex) -> None:
    dataset = load(hospital(data / "clinic"), index, group_regex=r"IM(\d+)")
    assert "0003" in {group for split in dataset.splits.values() for group in split.groups or ()}
    assert all(split.hidden is None for split in dataset.splits.values())


def test_files_that_name_nobody(data: Path, index: ContentIndex) -> None:
    assert load(hospital(data / "a", PatientID=""), index).grouping is None
    one = load(hospital(data / "b", PatientID="ANONYMOUS"), index)
    assert one.grouping is None
    assert any("all DICOM files name one PatientID" in warning for warning in one.warnings)
    mixed = hospital(data / "c")
    write_image(mixed / "well" / "photo.png", 1)
    write_dicom(mixed / "sick" / "nobody.dcm", STORED)
    dataset = load(mixed, index)
    assert "2 of 22 images name no PatientID: each is a group of its own" in dataset.warnings
    assert len({group for split in dataset.splits.values() for group in split.groups or ()}) == 12


def test_hashes_are_labels_only(data: Path, index: ContentIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = load(hospital(data / "clinic"), index)
    split = dataset.splits["train"]
    known = dataset.fingerprint(index)
    found = {}
    for salt in ("one", "two"):
        monkeypatch.setenv("MT_ID_SALT", salt)
        rows = split.stored_rows(lambda: id_salt(data / "cache"))
        found[salt] = list(rows.columns[PATIENT])
        assert rows.groups == split.groups
        assert load(data / "clinic", index).fingerprint(index) == known
    assert not set(found["one"]) & set(found["two"])
    for hashes in found.values():
        assert (
            len(set(zip(hashes, split.groups or (), strict=True))) == len(set(split.groups or ())) == len(set(hashes))
        )
    assert split.limited(4).stored_rows(lambda: b"one").columns[PATIENT] == [
        found["one"][split.ids.index(id_)] for id_ in split.limited(4).ids
    ]


def test_each_cache_has_a_secret_of_its_own(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MT_ID_SALT", raising=False)
    one, two = id_salt(data / "one"), id_salt(data / "two")
    assert one != two
    assert id_salt(data / "one") == one
    assert (data / "one" / ".id-salt").stat().st_mode & 0o077 == 0
    monkeypatch.setenv("MT_ID_SALT", "shared")
    assert id_salt(data / "one") == id_salt(data / "two") == b"shared"


def test_headers_are_read_once_and_remember_nobody(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mt.datasets.dicom import headers

    root = hospital(data / "clinic")
    index = ContentIndex(data / "index.sqlite")
    first = load(root, index, columns=["all"])
    first.fingerprint(index)
    del index
    assert SECRET.encode() not in (data / "index.sqlite").read_bytes()

    def no(*_: object) -> None:
        raise AssertionError("a header was read again")

    monkeypatch.setattr(headers, "read_header", no)
    monkeypatch.setattr(headers, "looks_like_dicom", no)
    index = ContentIndex(data / "index.sqlite")
    again = load(root, index, columns=["all"])
    assert again.fingerprint(index) == first.fingerprint(index)


def test_columns_on_request(data: Path, index: ContentIndex) -> None:
    root = hospital(data / "clinic", Manufacturer="ACME", StudyInstanceUID="1.2.3")
    assert all(not split.columns for split in load(root, index).splits.values())
    columns = load(root, index, columns=["all"]).splits["train"].columns
    assert set(columns) == {"sex", "age", "modality", "manufacturer", "study"}  # what no file names is not a column
    assert (set(columns["sex"]), set(columns["age"]), set(columns["manufacturer"])) == ({"F", "M"}, {40}, {"ACME"})
    assert set(load(root, index, columns=["modality"]).splits["train"].columns) == {"modality"}
    with pytest.raises(InputError, match="--column name is not one: expected sex, age, view"):
        load(root, index, columns=["name"])
    for number in range(4):
        write_image(data / "photos" / f"c{number % 2}" / f"{number}.png", number)
    with pytest.raises(DatasetError, match="--column sex is read from DICOM headers, and no image is DICOM"):
        load(data / "photos", index, columns=["sex"])


def test_tables_of_dicom_files(data: Path, index: ContentIndex) -> None:
    root = hospital(data / "clinic")
    lines = [f"{('well', 'sick')[n % 2]}/IM{n:04d},{n % 2},{n % 3}" for n in range(20)]
    (root / "t.csv").write_text("\n".join(["image,label,site", *lines]))
    dataset = load_dataset(f"table:{root / 't.csv'}", index=index, columns=("sex",))
    assert dataset.grouping == "patient"
    assert set(dataset.splits["train"].columns) == {"sex", "site"}
    assert len({group for split in dataset.splits.values() for group in split.groups or ()}) == 10
    (root / "t.csv").write_text("\n".join(["image,label,group", *lines]))
    assert load_dataset(f"table:{root / 't.csv'}", index=index).grouping == "group"


@pytest.mark.parametrize("column", ["patient", "group"])
def test_a_tables_patients_are_hashed_on_request(data: Path, index: ContentIndex, column: str) -> None:
    for number in range(12):
        write_image(data / f"{number}.png", number)
    lines = [f"{n}.png,{n % 2},{SECRET}-{n // 2}" for n in range(12)]
    (data / "t.csv").write_text("\n".join([f"image,label,{column}", *lines]))
    plain = load_dataset(f"table:{data / 't.csv'}", index=index)
    hidden = load_dataset(f"table:{data / 't.csv'}", index=index, hash_groups=True)
    assert plain.fingerprint(index) != hidden.fingerprint(index)
    split = hidden.splits["train"]
    rows = split.stored_rows(lambda: b"salt")
    assert SECRET not in repr((rows.groups, rows.columns, hidden))
    assert set(rows.groups or ()) <= {str(number) for number in range(1, 7)}
    assert len(set(rows.columns[PATIENT])) == len(set(rows.groups or ()))
    (data / "t.csv").write_text("\n".join(["image,label,site", *lines]))
    with pytest.raises(InputError, match="--hash-groups needs a column 'patient' or 'group'"):
        load_dataset(f"table:{data / 't.csv'}", index=index, hash_groups=True)


def test_a_row_for_every_frame(data: Path, index: ContentIndex) -> None:
    from tests.datasets import plain_files

    root = hospital(data / "clinic", patients=4)
    stack = np.tile(STORED, (3, 1))
    for name, label in (("a.dcm", "well"), ("b.dcm", "sick")):
        write_dicom(root / label / name, stack, Rows=8, NumberOfFrames=3, PatientID=f"{SECRET}-0")
    dataset = load(root, index, frame="all")
    ids = every_id(dataset)
    assert {"well/a.dcm#1", "well/a.dcm#3", "sick/IM0001"} < ids
    assert len(ids) == 14
    (group,) = {g for s in dataset.splits.values() for i, g in zip(s.ids, s.groups or (), strict=True) if "#" in i}
    assert group in {
        g for s in dataset.splits.values() for i, g in zip(s.ids, s.groups or (), strict=True) if "0001" in i
    }
    pages = [np.full((4, 4), 40 * page, np.uint8) for page in (1, 2, 3)]
    for number in range(10):
        folder = data / "pages" / f"c{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.tif").write_bytes(plain_files.tiff(*pages, bits=8))
    dataset = load(data / "pages", index, frame="all")
    assert dataset.grouping == "file"
    assert any("no patient grouping known" in warning for warning in dataset.warnings)
    for split in dataset.splits.values():
        assert split.groups == [id_.partition("#")[0] for id_ in split.ids]
        for id_, image in zip(split.ids, split.images.load(0, len(split)), strict=True):
            assert np.asarray(image)[0, 0, 0] == 40 * int(id_.partition("#")[2])
        few = split.limited(2)
        assert [np.asarray(image)[0, 0, 0] for image in few.images.load(0, 2)] == [40 * int(i[-1]) for i in few.ids]
    assert load(data / "pages", index, frame="all").fingerprint(index) == dataset.fingerprint(index)
    assert load(data / "pages", index, frame="first").fingerprint(index) != dataset.fingerprint(index)


def test_a_dataset_travels_to_another_process(data: Path, index: ContentIndex) -> None:
    import pickle

    dataset = load(hospital(data / "clinic"), index)
    again = pickle.loads(pickle.dumps(dataset))  # noqa: S301
    assert again.fingerprint(index) == dataset.fingerprint(index)
    first, second = (np.asarray(one.splits["train"].images.load(0, 1)[0]) for one in (dataset, again))
    assert np.array_equal(first, second)
    again.notes.add("seen")
    assert again.notes.lines() == ["seen: 1"]


def test_what_is_no_file_is_not_opened(data: Path, index: ContentIndex) -> None:
    import os

    root = hospital(data / "clinic")
    os.mkfifo(root / "well" / "pipe")
    os.mkfifo(root / "well" / "pipe.dcm")
    (root / "well" / "nowhere").symlink_to(root / "well" / "gone")
    (root / "well" / "nowhere.dcm").symlink_to(root / "well" / "gone.dcm")
    assert {"well/nowhere.dcm", "well/IM0000"} < every_id(load(root, index))
