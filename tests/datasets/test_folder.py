"""`folder:PATH`: the user's own images in class folders."""

from __future__ import annotations

import builtins
import os
from pathlib import Path

import numpy as np
import pytest

from mt.cache.content import ContentIndex
from mt.datasets import Dataset, ImageError, load_dataset
from mt.datasets.listing import natural
from mt.errors import DatasetError, InputError
from mt.types import TEST_BY_FOLDS, Task
from tests.datasets.layouts import write_folder, write_image


def load(path: Path, **options: object) -> Dataset:
    return load_dataset(f"folder:{path}", **options)  # type: ignore[arg-type]


def sizes(dataset: Dataset) -> dict[str, int]:
    return {name: len(split) for name, split in dataset.splits.items()}


def test_class_folders_are_split_80_20_by_class(data: Path, index: ContentIndex) -> None:
    dataset = load(write_folder(data / "pets"))
    assert (dataset.name, dataset.location) == ("folder:pets", str(data / "pets"))
    assert (dataset.task, dataset.metric, dataset.class_names) == ("binary", "roc_auc", ("cat", "dog"))
    assert sizes(dataset) == {"train": 16, "test": 4}
    assert dataset.splits["test"].labels.tolist() == [0, 0, 1, 1]
    for split in dataset.splits.values():
        assert split.labels.tolist() == [int(id_.startswith("dog/")) for id_ in split.ids]
    record = dataset.drawn["splits"]
    assert (record["fractions"], record["seed"], record["rows"]) == ({"train": 0.8, "test": 0.2}, 0, sizes(dataset))
    assert dataset.describe(index)["drawn"] == {"splits": record}


def test_warnings_of_an_ungrouped_small_folder(data: Path) -> None:
    warnings = " / ".join(load(write_folder(data / "pets")).warnings)
    assert "no patient grouping known" in warnings
    assert "only 4 test images" in warnings
    assert f"20 images without splits of their own: {TEST_BY_FOLDS} tests every one of them" in warnings


@pytest.mark.parametrize("why", ["laid out", "large"])
def test_test_folds_are_not_suggested_where_there_is_a_test_split_or_enough_images(why: str, data: Path) -> None:
    count = 250 if why == "large" else 10
    splits = ("train", "test") if why == "laid out" else ()
    warnings = " / ".join(load(write_folder(data / "pets", count=count, splits=splits)).warnings)
    assert TEST_BY_FOLDS not in warnings


def test_the_seed_draws_the_split(data: Path) -> None:
    write_folder(data / "pets", count=30)
    first, again, other = (load(data / "pets", seed=seed) for seed in (0, 0, 1))
    assert first.splits["test"].ids == again.splits["test"].ids != other.splits["test"].ids


def test_group_regex_keeps_patients_together(data: Path) -> None:
    dataset = load(write_folder(data / "pets", count=20), group_regex=r"(p\d+)_")
    assert dataset.grouping == "patient"
    train, test = (set(dataset.splits[name].groups or ()) for name in ("train", "test"))
    assert train
    assert test
    assert not train & test
    assert not any("no patient grouping" in warning for warning in dataset.warnings)


def test_bad_group_regex(data: Path) -> None:
    write_folder(data / "pets")
    with pytest.raises(InputError, match="is not a regular expression"):
        load(data / "pets", group_regex="(")
    with pytest.raises(InputError, match=r"does not match 20 of 20 images: cat/p0_0\.png"):
        load(data / "pets", group_regex="patient")
    with pytest.raises(InputError, match=r"matches 10 of 20 images without naming a patient: dog/p0_0\.png"):
        load(data / "pets", group_regex=r"cat/(p\d+)|dog")


@pytest.mark.parametrize(
    ("names", "kept"),
    [
        (("train", "test"), ["train", "test"]),
        (("train", "val", "test"), ["train", "val", "test"]),
        (("Training", "valid", "testing"), ["train", "val", "test"]),
    ],
)
def test_split_folders_are_kept(data: Path, names: tuple[str, ...], kept: list[str]) -> None:
    dataset = load(write_folder(data / "pets", splits=names))
    assert sizes(dataset) == dict.fromkeys(kept, 20)
    assert not dataset.drawn
    assert dataset.splits["train"].ids[0] == f"{names[0]}/cat/p0_0.png"


def test_only_a_train_folder_is_split(data: Path) -> None:
    assert sizes(load(write_folder(data / "pets", splits=["train"]))) == {"train": 16, "test": 4}


def test_train_and_val_without_test_says_so(data: Path) -> None:
    dataset = load(write_folder(data / "pets", splits=["train", "val"]))
    assert sizes(dataset) == {"train": 20, "val": 20}
    assert any("no test split" in warning for warning in dataset.warnings)


def test_a_class_called_test_is_a_class_where_there_is_no_train(data: Path) -> None:
    assert load(write_folder(data / "trial", classes=("control", "test"))).class_names == ("control", "test")


def test_groups_that_cross_given_splits_are_noted(data: Path) -> None:
    dataset = load(write_folder(data / "pets", splits=["train", "test"]), group_regex=r"(p\d+)_")
    assert any("5 groups (patient) are in more than one split: p0, p1, p2" in warning for warning in dataset.warnings)


@pytest.mark.parametrize(
    "names", [("<script>", "plain"), ("Ünïcode ✓", "with space"), ("%2e%2e", "'; DROP"), ("a,b", '"q"')]
)
def test_any_class_name(data: Path, names: tuple[str, str], index: ContentIndex) -> None:
    dataset = load(write_folder(data / "odd", classes=names))
    assert set(dataset.class_names) == set(names)
    assert dataset.fingerprint(index)
    assert not any(isinstance(image, ImageError) for image in dataset.splits["train"].images.load(0, 16))


def test_names_that_are_no_utf8(data: Path) -> None:
    write_folder(data / "pets")
    os.rename(data / "pets" / "cat" / "p0_0.png", os.fsencode(data / "pets" / "cat") + b"/caf\xe9.png")
    with pytest.raises(DatasetError, match=r"caf\\udce9\.png: the file name is not UTF-8\. Rename it"):
        load(data / "pets")


def test_classes_in_natural_order(data: Path) -> None:
    assert load(write_folder(data / "grades", classes=("10", "2", "1"), count=3)).class_names == ("1", "2", "10")
    assert sorted(["b10", "B2", "a", "10", "9"], key=natural) == ["9", "10", "a", "B2", "b10"]


@pytest.mark.parametrize(
    ("classes", "asked", "task"),
    [
        (2, None, "binary"),
        (3, None, "multiclass"),
        (3, "ordinal", "ordinal"),
        (2, "multiclass", "multiclass"),
    ],
)
def test_task(data: Path, classes: int, asked: Task | None, task: str) -> None:
    assert load(write_folder(data / "x", classes=[str(n) for n in range(classes)]), task=asked).task == task


def test_tasks_that_do_not_fit(data: Path) -> None:
    write_folder(data / "x", classes=("a", "b", "c"))
    with pytest.raises(InputError, match="--task binary needs two classes, found 3: a, b, c"):
        load(data / "x", task="binary")
    with pytest.raises(InputError, match="--task multilabel does not fit"):
        load(data / "x", task="multilabel")


def test_what_is_no_image_is_passed_over_and_counted(data: Path) -> None:
    folder = write_folder(data / "pets")
    for name in ("Thumbs.db", ".DS_Store", ".hidden.png", "._p0_0.png", "notes.txt", "scan.nii"):
        (folder / "cat" / name).touch()
    (folder / "__MACOSX").mkdir()
    (folder / "empty").mkdir()
    dataset = load(folder)
    assert sum(sizes(dataset).values()) == 20
    assert "2 files that are not images were ignored: cat/notes.txt, cat/scan.nii" in dataset.warnings
    assert "folders without images were ignored: empty" in dataset.warnings


def test_nested_folders_belong_to_their_class(data: Path) -> None:
    folder = write_folder(data / "pets")
    write_image(folder / "cat" / "2020" / "may" / "a.PNG", 99)
    ids = [id_ for split in load(folder).splits.values() for id_ in split.ids]
    assert "cat/2020/may/a.PNG" in ids


def test_bad_folders(data: Path) -> None:
    with pytest.raises(DatasetError, match=r"no folder .*/nowhere\. Expected one that holds"):
        load(data / "nowhere")
    with pytest.raises(DatasetError, match=r"No images found in .*Expected class/image"):
        load(data)
    write_image(data / "loose" / "a.png", 1)
    with pytest.raises(DatasetError, match="1 file lies directly in it"):
        load(data / "loose")
    with pytest.raises(DatasetError, match=r"all images in .* are of one class, 'cat'"):
        load(write_folder(data / "one", classes=["cat"]))
    mixed = write_folder(data / "mixed", splits=["train", "test"])
    write_image(mixed / "masks" / "a.png", 1)
    with pytest.raises(DatasetError, match=r"mixes split folders \(test, train\) with others .* \(masks\)"):
        load(mixed)
    strange = write_folder(data / "strange", splits=["train", "test"])
    write_image(strange / "test" / "bird" / "a.png", 1)
    with pytest.raises(DatasetError, match=r"Unknown class 'bird' \(test/bird/a\.png\): the train split"):
        load(strange)


def test_links_do_not_lead_out(data: Path) -> None:
    secret = write_image(data / "elsewhere" / "secret.png", 1)
    folder = write_folder(data / "pets")
    (folder / "cat" / "inside.png").symlink_to(write_image(folder / ".store" / "a.png", 1))
    assert sum(sizes(load(folder)).values()) == 21
    (folder / "cat" / "outside.png").symlink_to(secret)
    with pytest.raises(DatasetError, match=r"outside\.png is a link that leads out of the dataset's folder"):
        load(folder)
    (folder / "cat" / "outside.png").unlink()
    (folder / "cat" / "more").symlink_to(data / "elsewhere")
    with pytest.raises(DatasetError, match="cat/more is a link that leads out"):
        load(folder)


def test_a_class_folder_may_itself_be_a_link(data: Path) -> None:
    write_folder(data / "real")
    (data / "linked").mkdir()
    for name in ("cat", "dog"):
        (data / "linked" / name).symlink_to(data / "real" / name)
    assert sizes(load(data / "linked")) == {"train": 16, "test": 4}


def test_a_link_to_its_own_folder_ends(data: Path) -> None:
    folder = write_folder(data / "pets")
    (folder / "cat" / "again").symlink_to(folder / "cat")
    assert sum(sizes(load(folder)).values()) == 20


def test_a_link_to_a_folder_above_shows_nothing_twice(data: Path) -> None:
    folder = write_folder(data / "pets")
    for target in ("..", "../..", "."):
        (folder / "cat" / f"back{len(target)}").symlink_to(target)
        if target == "../..":
            (folder / "cat" / f"back{len(target)}").unlink()
    assert sum(sizes(load(folder)).values()) == 20


def test_one_image_in_one_place(data: Path) -> None:
    folder = write_folder(data / "pets")
    (folder / "cat" / "again.png").symlink_to(folder / "cat" / "p0_0.png")
    assert sum(sizes(load(folder)).values()) == 20
    (folder / "cat" / "other.png").symlink_to(folder / "dog" / "p0_0.png")
    with pytest.raises(DatasetError, match=r"cat/other\.png and dog/p0_0\.png are one file, by a link"):
        load(folder)


def test_fingerprint_is_of_content(data: Path, index: ContentIndex) -> None:
    one, two = load(write_folder(data / "pets")), load(write_folder(data / "moved" / "animals"))
    assert one.fingerprint(index) == two.fingerprint(index)
    assert one.split_fingerprint("train", index) != one.split_fingerprint("test", index)
    write_image(data / "pets" / "cat" / "p0_0.png", 12345)
    assert load(data / "pets").fingerprint(index) != one.fingerprint(index)
    assert load(data / "moved" / "animals", seed=1).fingerprint(index) != one.fingerprint(index)


def test_a_rerun_opens_no_image(data: Path, index: ContentIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(data / "pets")
    known = load(data / "pets").fingerprint(index)
    opened: list[str] = []
    original = builtins.open

    def watched(path: object, *rest: object, **more: object) -> object:
        opened.append(str(path))
        return original(path, *rest, **more)  # type: ignore[call-overload]

    monkeypatch.setattr(builtins, "open", watched)
    assert load(data / "pets").fingerprint(index) == known
    assert not [path for path in opened if path.endswith(".png")]


def test_some_rows_of_a_split(data: Path, index: ContentIndex) -> None:
    split = load(write_folder(data / "pets")).splits["train"]
    few = split.limited(4)
    assert (len(few), len(few.images), len(few.images.load(0, 9))) == (4, 4, 4)
    rows = [split.ids.index(id_) for id_ in few.ids]
    assert rows == sorted(rows)
    assert few.labels.tolist() == split.labels[rows].tolist() == [0, 0, 1, 1]
    for image, row in zip(few.images.load(0, 4), rows, strict=True):
        assert np.array_equal(np.asarray(image), np.asarray(split.images.load(row, row + 1)[0]))
    assert few.describe(index) != split.describe(index)
    assert split.limited(99) is split


def test_a_limit_hashes_the_chosen_files(data: Path, index: ContentIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    split = load(write_folder(data / "pets")).splits["train"]
    hashed: list[str] = []
    every = ContentIndex.hashes

    def noted(self: ContentIndex, paths: list[str], **more: object) -> np.ndarray:
        hashed.extend(Path(path).name for path in paths)
        return every(self, paths, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(ContentIndex, "hashes", noted)
    few = split.limited(4)
    before = few.describe(index)
    assert hashed == [id_.rpartition("/")[2] for id_ in few.ids]
    left_out = next(id_ for id_ in split.ids if id_ not in few.ids)
    write_image(data / "pets" / left_out, seed=99)
    assert load(data / "pets").splits["train"].limited(4).describe(index) == before
