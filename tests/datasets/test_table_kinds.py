"""Tables as people have them: separators, encodings, Excel, parquet, missing labels."""

from __future__ import annotations

import codecs
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mt.cache.content import ContentIndex
from mt.datasets import Dataset, load_dataset
from mt.errors import DatasetError, InputError, MissingExtraError
from mt.types import MISSING
from tests.datasets.layouts import write_image

ROWS = [f"bild_{n}.png,{'böse' if n % 2 else 'gut'},{40 + n}.5" for n in range(10)]


def load(path: Path, **words: Any) -> Dataset:
    return load_dataset(f"table:{path}", **words)


def images(folder: Path, *names: str) -> None:
    for seed, name in enumerate(names or [f"bild_{n}.png" for n in range(10)]):
        write_image(folder / name, seed)


def labels_by_id(dataset: Dataset) -> dict[str, Any]:
    return {
        id_: label
        for split in dataset.splits.values()
        for id_, label in zip(split.ids, split.labels.tolist(), strict=True)
    }


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "latin-1"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_separators_encodings_and_line_ends(data: Path, separator: str, encoding: str, end: str) -> None:
    images(data)
    text = end.join(["image,label,age", *ROWS]).replace(",", separator)
    text = text if separator == "," else text.replace(".5", ",5")
    (data / "t.csv").write_bytes((text + end * 3).encode(encoding))
    dataset = load(data / "t.csv")
    assert dataset.class_names == ("böse", "gut")
    assert labels_by_id(dataset) == {f"bild_{n}.png": 1 - n % 2 for n in range(10)}
    for split in dataset.splits.values():
        assert split.columns["age"] == [f"{40 + int(id_[5:-4])}.5" for id_ in split.ids]
    assert any("Windows-1252" in warning for warning in dataset.warnings) == (encoding == "latin-1")


def test_a_marked_utf_16_file_that_is_cut_short(data: Path) -> None:
    (data / "t.csv").write_bytes(codecs.BOM_UTF16_LE + "image,label\na".encode("utf-16-le")[:-1])
    with pytest.raises(DatasetError, match="is not a CSV file in UTF-16"):
        load(data / "t.csv")


def test_a_file_that_is_no_text(data: Path) -> None:
    write_image(data / "t.csv.png", 1)
    (data / "t.csv.png").rename(data / "t.csv")
    with pytest.raises(DatasetError, match=r"t\.csv"):
        load(data / "t.csv")


def test_a_named_separator_and_excels_first_line(data: Path) -> None:
    images(data)
    lines = "\n".join(["image,label,age", *ROWS])
    (data / "pipe.csv").write_text(lines.replace(",", "|"))
    with pytest.raises(DatasetError, match="lacks the column 'image'"):
        load(data / "pipe.csv")
    assert len(load(data / "pipe.csv", separator="pipe").splits["train"]) == 8
    assert len(load(data / "pipe.csv", separator="|").splits["train"]) == 8
    (data / "sep.csv").write_text("sep=;\n" + lines.replace(",", ";"))
    assert len(load(data / "sep.csv").splits["train"]) == 8
    with pytest.raises(InputError, match="--separator two is not one"):
        load(data / "pipe.csv", separator="two")


def test_line_numbers_are_those_of_the_file(data: Path) -> None:
    images(data)
    quoted = ["image,note,label", 'bild_0.png,"two\nlines",0', "", ",,", ",x,1"]
    (data / "t.csv").write_text("\n".join(quoted))
    with pytest.raises(DatasetError, match=r"no image named in line 6"):
        load(data / "t.csv")


def test_windows_paths(data: Path, index: ContentIndex) -> None:
    images(data, *[f"scans/a/{n}.png" for n in range(10)])
    for name, mark in (("unix.csv", "/"), ("windows.csv", "\\")):
        lines = [f"scans{mark}a{mark}{n}.png,{n % 2}" for n in range(10)]
        (data / name).write_text("\n".join(["image,label", *lines]))
    unix, windows = load(data / "unix.csv"), load(data / "windows.csv")
    assert unix.fingerprint(index) == windows.fingerprint(index)
    write_image(data / "odd\\name.png", 1)
    (data / "odd.csv").write_text("image,label\nodd\\name.png,0\nscans\\a\\1.png,1")
    assert {id_ for split in load(data / "odd.csv").splits.values() for id_ in split.ids} == {
        "odd\\name.png",
        "scans/a/1.png",
    }


@pytest.mark.parametrize("kind", ["parquet", "xlsx"])
def test_parquet_and_excel(data: Path, index: ContentIndex, kind: str) -> None:
    import openpyxl
    import pyarrow
    from pyarrow import parquet

    images(data)
    columns = {
        "image": [f"bild_{n}.png" for n in range(10)],
        "label": [float(n % 2) for n in range(10)],
        "patient": [n // 2 for n in range(10)],
        "age": [None, *map(float, range(41, 50))],
    }
    path = data / f"t.{kind}"
    if kind == "parquet":
        parquet.write_table(pyarrow.table(columns), path)
    else:
        book = openpyxl.Workbook()
        for row in (list(columns), *zip(*columns.values(), strict=True)):
            book.active.append(row)
        book.save(path)
    dataset = load(path)
    assert (dataset.class_names, dataset.grouping) == (("0", "1"), "patient")
    ages = {
        id_: age for split in dataset.splits.values() for id_, age in zip(split.ids, split.columns["age"], strict=True)
    }
    assert (ages["bild_0.png"], ages["bild_3.png"]) == ("", "43")
    lines = [f"bild_{n}.png,{n % 2},{n // 2},{'' if n == 0 else 40 + n}" for n in range(10)]
    (data / "t.csv").write_text("\n".join(["image,label,patient,age", *lines]))
    assert load(data / "t.csv").fingerprint(index) == dataset.fingerprint(index)


def test_sheets_that_cannot_be_read(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (data / "old.xls").write_bytes(b"\xd0\xcf\x11\xe0" + b"\0" * 99)
    (data / "bad.xlsx").write_bytes(b"PK\x03\x04" + b"\0" * 99)
    (data / "bad.parquet").write_bytes(b"PAR1" + b"\0" * 99)
    for name, message in (
        ("old.xls", "Excel's old format"),
        ("bad.xlsx", "not a sound Excel"),
        ("bad.parquet", "not a sound parquet"),
    ):
        with pytest.raises(DatasetError, match=message):
            load(data / name)
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'medical-transfer\[tables\]'"):
        load(data / "bad.xlsx")


def test_the_first_of_several_sheets_is_said(data: Path) -> None:
    import openpyxl

    images(data)
    book = openpyxl.Workbook()
    for row in (["image", "label"], *[[f"bild_{n}.png", n % 2] for n in range(10)]):
        book.active.append(row)
    book.create_sheet("more")
    book.save(data / "t.xlsx")
    assert "t.xlsx holds 2 sheets: 'Sheet' was read" in load(data / "t.xlsx").warnings


CHEXPERT = [
    "1.0,-1.0,,0.0",
    "0.0,,1.0,0.0",
    "-1.0,1.0,0.0,",
    "1,0,1,1",
    "nan,nan,,NaN",
    "0,1,0,1",
    "1,1,0,0",
    "0,0,1,1",
    "1,0,0,1",
    "0,1,1,0",
]


def chexpert(folder: Path) -> Path:
    images(folder)
    lines = [f"bild_{n}.png,{cells}" for n, cells in enumerate(CHEXPERT)]
    (folder / "t.csv").write_text("\n".join(["image,edema,mass,nodule,fracture", *lines]))
    return folder / "t.csv"


def test_missing_labels_are_asked_for_in_one_line(data: Path) -> None:
    with pytest.raises(DatasetError) as caught:
        load(chexpert(data))
    uncertain = (
        "2 cells of -1 (uncertain), first in line 2, column 'mass'. Choose what they mean: --uncertain ignore, 0 or 1."
    )
    blank = "7 empty label cells, first in line 2, column 'nodule'. Choose what they mean: --blank ignore or 0."
    assert str(caught.value) == f"{data / 't.csv'}: {uncertain} {blank}"
    with pytest.raises(DatasetError, match="--blank ignore or 0") as caught:
        load(chexpert(data), uncertain="0")
    assert "--uncertain" not in str(caught.value)


@pytest.mark.parametrize(("uncertain", "value"), [("ignore", MISSING), ("0", 0), ("1", 1)])
def test_uncertain_and_blank_as_asked(data: Path, uncertain: str, value: int) -> None:
    dataset = load(chexpert(data), uncertain=uncertain, blank="0")
    found = labels_by_id(dataset)
    assert found["bild_0.png"] == [1, value, 0, 0]
    assert found["bild_2.png"] == [value, 1, 0, 0]
    assert found["bild_4.png"] == [0, 0, 0, 0]


def test_ignored_labels_are_missing_and_rows_without_any_are_kept(data: Path, index: ContentIndex) -> None:
    dataset = load(chexpert(data), uncertain="ignore", blank="ignore")
    found = labels_by_id(dataset)
    assert found["bild_0.png"] == [1, MISSING, MISSING, 0]
    assert found["bild_4.png"] == [MISSING] * 4
    assert "1 of 10 rows have no label: kept, outside every budget and score" in dataset.warnings
    assert "5 of 36 labels are missing: ignored where they are" in dataset.warnings
    assert {split.labels.dtype for split in dataset.splits.values()} == {np.dtype(np.int8)}
    others = {
        load(chexpert(data), uncertain=u, blank=b).fingerprint(index) for u in ("0", "1") for b in ("0", "ignore")
    }
    assert len(others | {dataset.fingerprint(index)}) == 5


def test_a_cell_that_is_none_of_these_is_named(data: Path) -> None:
    path = chexpert(data)
    path.write_text(path.read_text().replace("1.0,-1.0", "1.0,-2"))
    with pytest.raises(DatasetError, match="line 2: unknown label '-2' in column 'mass', expected 0 or 1"):
        load(path, uncertain="0", blank="0")


@pytest.mark.parametrize("missing", ["", "NA", "N/A", "nan", "NaN", "None", "null", "<NA>", "."])
def test_a_row_without_a_label_stays_unlabelled_and_is_counted(data: Path, missing: str) -> None:
    images(data)
    lines = [f"bild_{n}.png,{missing if n == 7 else float(n % 2)}" for n in range(10)]
    (data / "t.csv").write_text("\n".join(["image,label", *lines]))
    dataset = load(data / "t.csv")
    assert dataset.class_names == ("0.0", "1.0")
    assert labels_by_id(dataset) == {f"bild_{n}.png": MISSING if n == 7 else n % 2 for n in range(10)}
    assert "1 of 10 rows have no label: kept, outside every budget and score" in dataset.warnings
    assert labels_by_id(load(data / "t.csv", blank="ignore")) == labels_by_id(dataset)
    assert labels_by_id(load(data / "t.csv", blank="0"))["bild_7.png"] == 0


@pytest.mark.parametrize(
    ("header", "cells", "words", "task", "last"),
    [
        ("label", ["a", "b", "c"], {}, "multiclass", MISSING),
        ("label", ["0", "3", "1"], {"task": "ordinal"}, "ordinal", MISSING),
        ("oedema", ["0", "1", "0"], {}, "binary", MISSING),
        ("oedema", ["0", "1", "1"], {"blank": "0"}, "binary", 0),
        ("a,b,c", ["1,0,0", "0,1,0", "0,0,1"], {"task": "multiclass", "blank": "ignore"}, "multiclass", MISSING),
    ],
)
def test_every_task_of_one_label_has_unlabelled_rows(
    data: Path, header: str, cells: list[str], words: dict[str, Any], task: str, last: int
) -> None:
    images(data)
    lines = [f"bild_{n}.png,train,{cells[n % 3]}" for n in range(9)]
    empty = "," * header.count(",")
    (data / "t.csv").write_text("\n".join([f"image,split,{header}", *lines, f"bild_9.png,test,{empty}"]))
    dataset = load(data / "t.csv", **words)
    assert (dataset.task, dataset.splits["test"].labels.tolist()) == (task, [last])


def test_a_table_without_any_label_is_refused(data: Path) -> None:
    images(data)
    (data / "t.csv").write_text("\n".join(["image,label", *[f"bild_{n}.png," for n in range(10)]]))
    with pytest.raises(DatasetError, match="none of its 10 rows has a label"):
        load(data / "t.csv")


def test_minus_one_beside_0_and_1_in_a_label_column(data: Path) -> None:
    images(data)
    (data / "t.csv").write_text("\n".join(["image,label", *[f"bild_{n}.png,{n % 3 - 1}" for n in range(10)]]))
    with pytest.raises(DatasetError, match=r"column 'label' holds -1 \(line 2\) beside 0 and 1.*--uncertain ignore"):
        load(data / "t.csv")
    assert load(data / "t.csv", task="multiclass").class_names == ("-1", "0", "1")
    assert load(data / "t.csv", uncertain="1").class_names == ("0", "1")
    assert list(labels_by_id(load(data / "t.csv", uncertain="ignore")).values()).count(MISSING) == 4


def test_minus_one_and_one_are_classes_in_the_order_of_numbers(data: Path) -> None:
    images(data)
    (data / "t.csv").write_text("\n".join(["image,label", *[f"bild_{n}.png,{n % 2 * 2 - 1}" for n in range(10)]]))
    assert load(data / "t.csv").class_names == ("-1", "1")


def test_decimal_commas_in_label_columns(data: Path) -> None:
    images(data)
    (data / "t.csv").write_text("\n".join(["image;edema", *[f"bild_{n}.png;{n % 2},0" for n in range(10)]]))
    assert labels_by_id(load(data / "t.csv")) == {f"bild_{n}.png": n % 2 for n in range(10)}


def test_options_of_tables_say_where_they_apply(data: Path) -> None:
    for words in ({"uncertain": "0"}, {"blank": "0"}, {"separator": "tab"}, {"hash_groups": True}):
        with pytest.raises(InputError, match=r"does not apply to 'folder' .* It applies to table:"):
            load_dataset(f"folder:{data}", **words)
    with pytest.raises(InputError, match=r"--intensity does not apply to 'digits' .* folder: and table:"):
        load_dataset("digits", intensity="minmax")
    with pytest.raises(InputError, match="--uncertain 2 is not a choice: expected ignore, 0, 1"):
        load_dataset("digits", uncertain="2")  # type: ignore[arg-type]
