"""`table:CSV`: the user's own images, listed with labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mt.cache.content import ContentIndex
from mt.datasets import Dataset, ImageError, load_dataset
from mt.errors import DatasetError, InputError
from tests.datasets.layouts import write_image
from tests.datasets.test_dicom import STORED, write_dicom


def write(folder: Path, header: str, rows: list[str], *, images: bool = True, name: str = "mine.csv") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("\n".join([header, *rows]) + "\n", encoding="utf-8-sig")
    place = header.replace("\t", ",").split(",").index("image")
    for seed, row in enumerate(rows if images else ()):
        write_image(folder / row.replace("\t", ",").split(",")[place], seed)
    return folder / name


def load(path: Path, **options: object) -> Dataset:
    return load_dataset(f"table:{path}", **options)  # type: ignore[arg-type]


def rows(count: int = 20, *cells: str) -> list[str]:
    """Return lines with an image and a label that alternates, then `cells` with {n} and {half} filled in."""
    return [",".join((f"images/{n}.png", str(n % 2), *cells)).format(n=n, half=n // 2) for n in range(count)]


def test_image_and_label(data: Path) -> None:
    dataset = load(write(data, "image,label", rows()))
    assert (dataset.name, dataset.task, dataset.class_names) == ("table:mine", "binary", ("0", "1"))
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 16, "test": 4}
    for split in dataset.splits.values():
        assert split.labels.tolist() == [int(Path(id_).stem) % 2 for id_ in split.ids]
        assert not any(isinstance(image, ImageError) for image in split.images.load(0, len(split)))


def test_split_group_and_metadata(data: Path) -> None:
    header = "image,label,Split,Group,SEX,age,colour"
    lines = rows(20, "{n}", "s{half}", "F", "{n}", "blue")
    lines = [line.replace(f",{n},s", f",{('train', 'valid', 'TEST')[n % 3]},s", 1) for n, line in enumerate(lines)]
    dataset = load(write(data, header, lines))
    assert list(dataset.splits) == ["train", "val", "test"]
    assert dataset.grouping == "group"
    test = dataset.splits["test"]
    assert test.groups == [f"s{int(Path(id_).stem) // 2}" for id_ in test.ids]
    assert test.columns == {"sex": ["F"] * len(test), "age": [Path(id_).stem for id_ in test.ids]}
    assert "columns not used: colour" in dataset.warnings
    assert any("groups (group) are in more than one split" in warning for warning in dataset.warnings)


def test_patient_is_the_group_where_no_other_is_named(data: Path) -> None:
    dataset = load(write(data, "image,label,patient", rows(20, "p{half}")))
    assert dataset.grouping == "patient"
    train, test = (set(dataset.splits[name].groups or ()) for name in ("train", "test"))
    assert not train & test


def test_one_column_a_label(data: Path, index: ContentIndex) -> None:
    lines = [f"{n}.png,{n % 2},{int(n % 3 == 0)}.0,{int(n > 9)}" for n in range(20)]
    dataset = load(write(data, "image,edema,mass <b>,nodule", lines))
    assert (dataset.task, dataset.metric) == ("multilabel", "mean_auc")
    assert dataset.class_names == ("edema", "mass <b>", "nodule")
    for split in dataset.splits.values():
        number = np.array([int(Path(id_).stem) for id_ in split.ids])
        assert np.array_equal(split.labels, np.column_stack([number % 2, number % 3 == 0, number > 9]))
    assert dataset.fingerprint(index)


def test_one_label_column_is_binary_and_one_hot_is_multiclass(data: Path) -> None:
    single = load(write(data, "image,melanoma", rows()))
    assert (single.task, single.class_names) == ("binary", ("not melanoma", "melanoma"))
    lines = [f"{n}.png," + ",".join(str(int(n % 3 == c)) for c in range(3)) for n in range(18)]
    path = write(data / "hot", "image,a,b,c", lines)
    dataset = load(path, task="multiclass")
    assert dataset.splits["train"].labels.tolist() == [int(Path(id_).stem) % 3 for id_ in dataset.splits["train"].ids]
    with pytest.raises(InputError, match=r"does not fit the 2 label columns .*: expected one 1 per row; line 3 has 2"):
        load(write(data / "two", "image,a,b", ["1.png,0,1", "2.png,1,1"]), task="multiclass")


def test_tasks_by_option(data: Path) -> None:
    path = write(data, "image,label", [f"{n}.png,{(0, 1, 3)[n % 3]}" for n in range(18)])
    ordinal = load(path, task="ordinal")
    assert (ordinal.task, ordinal.class_names) == ("ordinal", ("0", "1", "2", "3"))  # 2 is declared, though absent
    assert load(path).class_names == ("0", "1", "3")
    with pytest.raises(InputError, match="--task binary needs two classes"):
        load(path, task="binary")
    lines = [f"{n}.png,{('', 'a', 'a|b')[n % 3]}" for n in range(18)]
    joined = load(write(data / "m", "image,label", lines), task="multilabel")
    assert joined.class_names == ("a", "b")
    assert joined.splits["train"].labels.sum() > 0
    with pytest.raises(DatasetError, match=r"line 2: unknown label 'mild', expected a whole number \(ordinal\)"):
        load(write(data / "o", "image,label", ["1.png,mild", "2.png,bad"]), task="ordinal")


def test_tab_separated_and_other_formats(data: Path) -> None:
    kinds = ("png", "jpg", "tif", "dcm")
    lines = [f"{n}.{kinds[n % 4]}\t{'ab'[n % 2]}" for n in range(16)]
    path = write(data, "image\tlabel", lines, images=False, name="mine.tsv")
    for n in range(16):
        file = data / f"{n}.{kinds[n % 4]}"
        if file.suffix == ".dcm":
            write_dicom(file, STORED)
        else:
            Image.fromarray(np.full((5, 5, 3), n, dtype=np.uint8)).save(file)
    for split in load(path).splits.values():
        assert all(isinstance(image, Image.Image | np.ndarray) for image in split.images.load(0, len(split)))


def test_bad_tables(data: Path) -> None:
    for header, lines, message in (
        ("picture,label", ["a.png,1"], r"lacks the column 'image'. Found: picture, label"),
        ("image,split", ["a.png,train"], r"lacks the column 'label' \(or one column .*\). Found: image, split"),
        ("image,label", ["a.png,0", "b.png,"], "are of one class, '0'"),
        ("image,label", ["a.png,0", ",1"], "no image named in line 3"),
        ("image,label", ["a.png,0", "b.png,1,2"], "line 3: 3 values, expected 2"),
        ("image,label", [], "has no rows below its header"),
        ("image,label", ["a.png,0", "b.png,0"], "all images .* are of one class, '0'"),
        ("image,label", ["a.png,0", "a.png,1"], r"1 duplicated ids, first 'a\.png'"),
        ("image,label", ["a.png,0", "./a.png,1"], r"1 duplicated ids, first 'a\.png'"),
        ("image,a,b", ["a.png,0,1", "b.png,0,yes"], "line 3: unknown label 'yes' in column 'b', expected 0 or 1"),
        ("image,label,split", ["a.png,0,train", "b.png,1,dev"], "line 3: unknown split 'dev', expected train, val"),
        ("image,label,split", ["a.png,0,train", "b.png,1,test"], "unknown label '1': no train row has it"),
        ("image,label,group", ["a.png,0,x", "b.png,1,"], "1 of 2 rows name no patient or group, line 3"),
    ):
        (data / "t.csv").write_text("\n".join([header, *lines]) + "\n")
        for name in "ab":
            write_image(data / f"{name}.png", ord(name))
        with pytest.raises(DatasetError, match=message):
            load(data / "t.csv")
    with pytest.raises(DatasetError, match=r"No file .*nowhere\.csv\. Expected a table\."):
        load(data / "nowhere.csv")


def test_images_that_do_not_exist(data: Path, index: ContentIndex) -> None:
    path = write(data, "image,label", rows())
    (data / "images" / "3.png").unlink()
    with pytest.raises(
        DatasetError, match=r"1 of 20 listed images do not exist in .*: images/3\.png\. Correct the paths, .*skip"
    ):
        load(path)
    assert load(path, on_error="skip").fingerprint(index)
    (data / "t.csv").write_text("image,label\nno/a.png,0\nno/b.png,1\n")
    with pytest.raises(DatasetError, match="2 of 2 listed images do not exist"):
        load(data / "t.csv", on_error="skip")


def test_relative_paths_stay_in_the_folder_of_the_csv(data: Path) -> None:
    outside = write_image(data / "outside" / "a.png", 0)
    folder = data / "inside"
    with pytest.raises(DatasetError, match=r"'\.\./outside/a\.png' leads out of .*inside\. Write an absolute path"):
        load(write(folder, "image,label", ["../outside/a.png,0", "b.png,1"]))
    (folder / "link.png").symlink_to(outside)
    with pytest.raises(DatasetError, match=r"'link\.png' is a link that leads out of"):
        load(write(folder, "image,label", ["link.png,0", "b.png,1"], images=False))
    (folder / "linked").symlink_to(data / "outside")
    with pytest.raises(DatasetError, match="leads out of"):
        load(write(folder, "image,label", ["linked/a.png,0", "b.png,1"], images=False))


def test_absolute_paths_are_meant_and_leave_no_trace_in_the_fingerprint(data: Path, index: ContentIndex) -> None:
    found = []
    for place in ("one", "two"):
        lines = [f"{data / place / 'images' / str(n)}.png,{n % 2}" for n in range(10)]
        found.append(load(write(data / place, "image,label", lines)))
    assert found[0].splits["train"].ids[0].endswith(".png")
    assert not found[0].splits["train"].ids[0].startswith("/")
    assert found[0].fingerprint(index) == found[1].fingerprint(index)
