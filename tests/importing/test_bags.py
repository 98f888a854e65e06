"""Bags of imported rows: one file per case or a column that names it; pooled, or kept as instances."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch

from mt.errors import InputError
from tests.importing import elsewhere as sample

SLIDES = 8


@pytest.fixture
def slides(tmp_path: Path) -> dict[str, np.ndarray]:
    """Write slides of different sizes as TRIDENT does, and a table of their labels; return their tiles."""
    tiles = {f"S{number}": sample.matrix(3 + number, seed=number, dtype="float16") for number in range(SLIDES)}
    for name, rows in tiles.items():
        sample.slide(tmp_path / "features_uni" / f"{name}.h5", rows)
    sample.write_table(
        tmp_path / "slides.csv",
        {
            "wsi": [f"{name}.svs" for name in tiles],
            "case_id": [f"P{number // 2}" for number in range(SLIDES)],
            "label": ["a", "b"] * 4,
            "split": ["train"] * 6 + ["test"] * 2,
        },
    )
    return tiles


@pytest.mark.parametrize(
    ("rule", "of"),
    [
        ("mean", lambda X: X.mean(axis=0)),
        ("max", lambda X: X.max(axis=0)),
        ("mean+std", lambda X: np.r_[X.mean(axis=0), X.std(axis=0)]),
        ("mean+max", lambda X: np.r_[X.mean(axis=0), X.max(axis=0)]),
    ],
)
def test_tridents_slides_become_rows(tmp_path: Path, slides, rule, of) -> None:  # type: ignore[no-untyped-def]
    sample.imported(tmp_path / "c", tmp_path / "features_uni", labels=[tmp_path / "slides.csv"], pool=rule)
    train = sample.opened(tmp_path / "c")
    assert train.ids == [f"S{number}" for number in range(6)]
    assert train.groups == ["P0", "P0", "P1", "P1", "P2", "P2"]
    assert train.backbone == f"uni (imported, {rule})"
    for name, row in zip(train.ids, train.embeddings, strict=True):
        np.testing.assert_allclose(row, of(slides[name].astype("f8")), rtol=1e-6)


def test_clams_folders_are_known(tmp_path: Path, slides: dict[str, np.ndarray]) -> None:
    (tmp_path / "clam" / "pt_files").mkdir(parents=True)
    for name, rows in slides.items():
        torch.save(torch.from_numpy(rows), tmp_path / "clam" / "pt_files" / f"{name}.pt")
    sample.imported(tmp_path / "pt", tmp_path / "clam", labels=[tmp_path / "slides.csv"], pool="mean")
    (tmp_path / "features_uni").rename(tmp_path / "clam" / "h5_files")
    sample.imported(tmp_path / "h5", tmp_path / "clam", labels=[tmp_path / "slides.csv"], pool="mean")
    one, two = (sample.opened(tmp_path / cache) for cache in ("pt", "h5"))
    assert np.array_equal(one.embeddings, two.embeddings)
    assert two.manifest["inputs"]["backbone"]["files"][0]["name"] == "S0.h5"


def test_slide_embeddings_need_no_pooling(tmp_path: Path, slides: dict[str, np.ndarray]) -> None:
    for name, rows in slides.items():
        sample.slide(tmp_path / "titan" / f"{name}.h5", rows[0])
    sample.imported(tmp_path / "c", tmp_path / "titan", labels=[tmp_path / "slides.csv"])
    assert np.array_equal(sample.by_id(tmp_path / "c")["S3"], slides["S3"][0])
    assert sample.opened(tmp_path / "c").backbone == "uni (imported)"


def test_instances_stay_with_their_case(tmp_path: Path, slides: dict[str, np.ndarray]) -> None:
    sample.imported(tmp_path / "c", tmp_path / "features_uni", labels=[tmp_path / "slides.csv"])
    train = sample.opened(tmp_path / "c")
    assert train.manifest["bag"] == "bag"
    assert train.ids[:4] == ["S0/0", "S0/1", "S0/2", "S1/0"]
    assert train.columns["bag"][2:4] == ["S0", "S1"]
    assert (train.groups or [])[2:4] == ["P0", "P0"]
    assert train.embeddings.dtype == np.float16
    assert np.array_equal(train.embeddings, np.concatenate([slides[f"S{number}"] for number in range(6)]))
    assert train.labels[:7].tolist() == [0, 0, 0, 1, 1, 1, 1]


def bag_rows(folder: Path, **columns: list[str]) -> Path:
    """Write one row per view, the rows of a study scattered, with the study and its label beside."""
    studies = [f"study {row % 8}" for row in range(sample.N)]
    given = {"study": studies, "label": [f"{row % 2}" for row in range(sample.N)], "split": ["train"] * sample.N}
    X = sample.matrix()
    given |= {f"f{place}": X[:, place].astype(str).tolist() for place in range(sample.DIM)}
    return sample.write_table(folder / "views.csv", {**given, **columns})


def test_a_column_names_the_case(tmp_path: Path) -> None:
    sample.imported(tmp_path / "c", bag_rows(tmp_path), bag="study", pool="mean")
    train = sample.opened(tmp_path / "c")
    assert train.ids == [f"study {number}" for number in range(8)]
    np.testing.assert_allclose(train.embeddings[3], sample.matrix()[3::8].mean(axis=0), rtol=1e-6)


def test_scattered_instances_keep_the_order_of_the_file(tmp_path: Path) -> None:
    sample.imported(tmp_path / "c", bag_rows(tmp_path), bag="study")
    train = sample.opened(tmp_path / "c")
    assert train.ids[:9:8] == ["study 0/0", "study 0/1"]
    assert train.groups == train.columns["bag"]
    assert np.array_equal(train.embeddings, sample.matrix())


def test_a_case_is_of_one_label_group_and_split(tmp_path: Path) -> None:
    for column, values in (("label", ["1"]), ("split", ["test"]), ("patient", ["other"])):
        rest = {"label": [f"{row % 2}" for row in range(sample.N)], "split": ["train"] * sample.N}.get(column)
        views = bag_rows(tmp_path, **{column: values + (rest or ["p"] * sample.N)[1:]})
        with pytest.raises(InputError, match=rf"1 case has rows that disagree in '{column}': study 0. Expected one"):
            sample.imported(tmp_path / "c", views, bag="study", pool="mean")


def test_the_table_of_labels_may_name_the_case_of_each_row(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", sample.matrix())
    table = sample.write_table(
        tmp_path / "rows.csv",
        {
            "study": [f"study {row // 6}" for row in range(sample.N)],
            "label": [row // 6 % 2 for row in range(sample.N)],
            "split": ["train"] * sample.N,
        },
    )
    sample.imported(tmp_path / "c", tmp_path / "x.npy", labels=[table], bag="study", pool="max")
    assert np.array_equal(sample.opened(tmp_path / "c").embeddings, sample.matrix().reshape(4, 6, -1).max(axis=1))


def test_named_files_can_be_cases(tmp_path: Path) -> None:
    for name in "ab":
        np.save(tmp_path / f"{name}.npy", sample.matrix(5))
    table = sample.write_table(tmp_path / "labels.csv", {"id": list("ab"), "label": [0, 1], "split": ["train"] * 2})
    sample.imported(tmp_path / "c", tmp_path / "a.npy", tmp_path / "b.npy", labels=[table], pool="mean")
    assert sample.opened(tmp_path / "c").ids == ["a", "b"]


def test_what_is_no_bag_is_not_pooled(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", sample.matrix())
    labels = [sample.label_table(tmp_path / "labels.csv")]
    with pytest.raises(InputError, match=r"--pool mean needs several rows per case.* --bag COLUMN"):
        sample.imported(tmp_path, tmp_path / "x.npy", labels=labels, pool="mean")
    with pytest.raises(InputError, match=r"--bag study: neither .*x.npy nor .*labels.csv has such a column"):
        sample.imported(tmp_path, tmp_path / "x.npy", labels=labels, pool="mean", bag="study")


def test_a_case_with_a_bad_row_is_named(tmp_path: Path, slides: dict[str, np.ndarray]) -> None:
    slides["S2"][1, 1] = np.nan
    sample.slide(tmp_path / "features_uni" / "S2.h5", slides["S2"])
    with pytest.raises(InputError, match=r"1 of 8 embeddings hold NaN or infinite values \(in float32\): S2"):
        sample.imported(tmp_path / "c", tmp_path / "features_uni", labels=[tmp_path / "slides.csv"], pool="mean+max")


def test_two_files_of_one_case_are_refused(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        np.save(tmp_path / folder / "a.npy", sample.matrix(5))
    with pytest.raises(InputError, match=r"1 case has more than one file: a"):
        sample.imported(tmp_path, tmp_path / "one", tmp_path / "two", pool="mean")


def test_pooling_holds_a_part_of_one_slide(tmp_path: Path) -> None:
    """Eight slides of 4 MB each pool in the memory that one of them takes, several times over in float64."""
    rows = sample.matrix(8192, 256, dtype="float16")
    (tmp_path / "x").mkdir()
    for number in range(8):
        np.save(tmp_path / "x" / f"{number}.npy", rows)
    table = sample.write_table(
        tmp_path / "labels.csv",
        {
            "id": range(8),
            "label": [0, 1] * 4,
            "split": ["train"] * 8,
        },
    )
    sample.imported(tmp_path / "warm", tmp_path / "x", labels=[table], pool="mean")
    tracemalloc.start()
    sample.imported(tmp_path / "c", tmp_path / "x", labels=[table], pool="mean+std")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * rows.nbytes < 8 * rows.nbytes
