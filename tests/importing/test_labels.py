"""Labels, splits and groups of imported embeddings: joined by id, or row by row; refused with counts and names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mt.errors import InputError
from mt.importing.request import LabelRules
from mt.types import MISSING
from tests.importing import elsewhere as sample


@pytest.fixture
def embeddings(tmp_path: Path) -> Path:
    np.savez(tmp_path / "x.npz", embeddings=sample.matrix(), ids=np.array(sample.ids()))
    return tmp_path / "x.npz"


def test_prism_benchs_input_is_one_command(tmp_path: Path) -> None:
    for split, n in (("train", 20), ("test", 10)):
        np.save(tmp_path / f"x{split}.npy", sample.matrix(n))
        np.save(tmp_path / f"y{split}.npy", np.arange(n) % 3)
    sample.imported(
        tmp_path / "cache",
        f"train={tmp_path}/xtrain.npy",
        f"test={tmp_path}/xtest.npy",
        labels=[f"train={tmp_path}/ytrain.npy", f"test={tmp_path}/ytest.npy"],
    )
    train, test = (sample.opened(tmp_path / "cache", split) for split in ("train", "test"))
    assert (train.task, train.class_names) == ("multiclass", ("0", "1", "2"))
    assert train.labels.tolist() == [row % 3 for row in range(20)]
    assert test.ids[:2] == ["test:0", "test:1"]
    assert train.fingerprints["backbone"] == test.fingerprints["backbone"]
    assert train.fingerprints["dataset"] == test.fingerprints["dataset"]


@pytest.mark.parametrize(
    ("array", "task"),
    [
        (np.arange(24) % 2.0, "binary"),
        (np.arange(24) % 2 == 0, "binary"),
        ((np.arange(24) % 2)[:, None], "binary"),
        (np.array(["a", "b"] * 12), "binary"),
        (np.random.default_rng(0).integers(0, 2, (24, 3)), "multilabel"),
    ],
)
def test_labels_may_be_an_array(tmp_path: Path, array: np.ndarray, task: str) -> None:
    np.save(tmp_path / "x.npy", sample.matrix())
    np.save(tmp_path / "y.npy", array)
    sample.imported(tmp_path / "cache", tmp_path / "x.npy", labels=[tmp_path / "y.npy"], split="train")
    assert sample.opened(tmp_path / "cache").task == task


def test_a_table_is_joined_by_id(tmp_path: Path, embeddings: Path) -> None:
    order = np.random.default_rng(1).permutation(sample.N)
    table = sample.write_table(
        tmp_path / "labels.csv",
        {
            "slide_id": [sample.ids()[row] for row in order],
            "diagnosis": [sample.labels()[row] for row in order],
            "split": [sample.splits()[row] for row in order],
            "case_id": [f"patient {row // 4}" for row in order],
            "sex": ["f" if row % 2 else "m" for row in order],
        },
    )
    sample.imported(tmp_path / "cache", embeddings, labels=[table])
    train = sample.opened(tmp_path / "cache")
    rows = [int(name.split()[1]) for name in train.ids]
    assert rows == [row for row in range(sample.N) if row % 4 != 3]
    assert [train.class_names[label] for label in train.labels] == [sample.labels()[row] for row in rows]
    assert train.groups == [f"patient {row // 4}" for row in rows]
    assert train.columns["sex"] == ["f" if row % 2 else "m" for row in rows]
    assert train.manifest["grouping"] == "patient"


def test_names_may_differ_by_folder_and_suffix(tmp_path: Path, embeddings: Path) -> None:
    table = sample.label_table(tmp_path / "labels.csv", id=[f"slides/{name}.svs" for name in sample.ids()])
    sample.imported(tmp_path / "cache", embeddings, labels=[table])
    assert sample.opened(tmp_path / "cache").ids[0] == "case 0"


def test_without_splits_a_test_split_is_drawn(tmp_path: Path, embeddings: Path) -> None:
    table = sample.write_table(
        tmp_path / "labels.csv",
        {
            "id": sample.ids(),
            "label": sample.labels(),
            "group": [f"g{row // 2}" for row in range(sample.N)],
        },
    )
    sample.imported(tmp_path / "cache", embeddings, labels=[table])
    train, test = (sample.opened(tmp_path / "cache", split) for split in ("train", "test"))
    assert len(train.ids) + len(test.ids) == sample.N
    assert not set(train.groups or ()) & set(test.groups or ())
    assert train.manifest["inputs"]["dataset"]["drawn"]["splits"]["fractions"] == {"train": 0.8, "test": 0.2}


def test_missing_labels_are_kept_and_masked(tmp_path: Path, embeddings: Path) -> None:
    table = sample.label_table(tmp_path / "one.csv", label=["", *sample.labels()[1:]])
    made = sample.imported(tmp_path / "cache", embeddings, labels=[table])
    assert "1 of 24 rows have no label: kept, outside every budget and score" in made[0].warnings
    train = sample.opened(tmp_path / "cache")
    assert (train.ids[0], train.labels[0], train.class_names) == ("case 0", MISSING, ("benign", "tumour"))
    assert np.array_equal(sample.by_id(tmp_path / "cache")["case 0"], sample.matrix()[0])
    sample.imported(tmp_path / "cache", embeddings, model="uni2", labels=[table])
    again = sample.opened(tmp_path / "cache", models=["uni2"])
    assert again.labels.tolist() == train.labels.tolist()
    assert again.fingerprints["dataset"] == train.fingerprints["dataset"]
    several = sample.write_table(
        tmp_path / "two.csv",
        {
            "id": sample.ids(),
            "split": sample.splits(),
            "oedema": [-1, *[0, 1] * 11, 0],
            "effusion": [1, 0] * 12,
        },
    )
    sample.imported(
        tmp_path / "cache", embeddings, labels=[several], dataset="two", rules=LabelRules(uncertain="ignore")
    )
    assert sample.opened(tmp_path / "cache", datasets=["two"]).labels[0].tolist() == [MISSING, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda names: names[:-2], r"2 ids have embeddings and no labels \(case 22, case 23\)"),
        (lambda names: [*names, "a", "b"], r"2 have labels and no embeddings \(a, b\)"),
        (lambda names: [*names[1:], "a"], r"1 id has embeddings and no labels \(case 0\) and 1 has labels and no"),
        (
            lambda names: [f"x{name}" for name in names],
            "No id of the embeddings .* Name its column of ids: --id-column",
        ),
    ],
)
def test_ids_that_differ_are_counted_and_named(tmp_path: Path, embeddings: Path, change, message: str) -> None:  # type: ignore[no-untyped-def]
    names = change(sample.ids())
    table = sample.write_table(
        tmp_path / "labels.csv",
        {
            "id": names,
            "label": (sample.labels() * 2)[: len(names)],
            "split": (sample.splits() * 2)[: len(names)],
        },
    )
    with pytest.raises(InputError, match=message) as error:
        sample.imported(tmp_path / "cache", embeddings, labels=[table])
    assert "\n" not in str(error.value)
    if "--shared" in str(error.value):
        sample.imported(tmp_path / "cache", embeddings, labels=[table], shared=True)
        assert set(sample.by_id(tmp_path / "cache")) == set(names) & set(sample.ids())


def test_ids_that_are_there_twice_are_counted_and_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", embeddings=sample.matrix(4), ids=["a", "b", "a", "b"])
    with pytest.raises(InputError, match=r"2 of 2 ids occur more than once: a, b. .* --bag COLUMN"):
        sample.imported(tmp_path, tmp_path / "x.npz")


def test_rows_without_ids_need_as_many_labels(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", sample.matrix())
    np.save(tmp_path / "y.npy", np.arange(23) % 2)
    with pytest.raises(InputError, match=r"24 rows and no ids; .*y.npy has 23 rows"):
        sample.imported(tmp_path, tmp_path / "x.npy", labels=[tmp_path / "y.npy"])
    with pytest.raises(InputError, match=r"has no ids, and no labels came with it.*--labels FILE"):
        sample.imported(tmp_path, tmp_path / "x.npy")


def test_embeddings_without_labels_need_a_dataset_that_the_cache_knows(tmp_path: Path, embeddings: Path) -> None:
    with pytest.raises(InputError, match=r"the cache holds no 'moles'. Give them: --labels FILE"):
        sample.imported(tmp_path / "cache", embeddings)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_counted_and_named(tmp_path: Path, value: float) -> None:
    X, labels = sample.matrix(), sample.label_table(tmp_path / "labels.csv")
    X[[1, 5], 2] = value
    np.save(tmp_path / "x.npy", X)
    with pytest.raises(InputError, match=r"2 of 24 embeddings hold NaN or infinite values .*: case 1, case 5"):
        sample.imported(tmp_path / "cache", tmp_path / "x.npy", labels=[labels])
    assert not list((tmp_path / "cache").rglob("*.h5")) + list((tmp_path / "cache").rglob("*.partial"))
    (train, _) = sample.imported(tmp_path / "cache", tmp_path / "x.npy", labels=[labels], skip_bad=True)
    assert train.skipped == 2
    assert set(sample.ids()) - set(sample.by_id(tmp_path / "cache")) == {"case 1", "case 5"}


def test_a_split_is_said_once(tmp_path: Path, embeddings: Path) -> None:
    table = sample.label_table(tmp_path / "labels.csv")
    with pytest.raises(InputError, match=r"6 cases have another split in the table than in --split"):
        sample.imported(tmp_path, embeddings, labels=[table], split="train")
    with pytest.raises(InputError, match=r"Unknown split 'holdout', expected train, val or test"):
        sample.imported(tmp_path, embeddings, labels=[table], split="holdout")


class TestKnownDataset:
    """An import joins a dataset in the cache if ids and labels are the same, and is refused if not."""

    @pytest.fixture
    def cache(self, tmp_path: Path, embeddings: Path) -> Path:
        sample.imported(tmp_path / "cache", embeddings, labels=[sample.label_table(tmp_path / "labels.csv")])
        return tmp_path / "cache"

    def test_labels_come_from_the_cache(self, tmp_path: Path, cache: Path) -> None:
        order = np.random.default_rng(2).permutation(sample.N)
        np.savez(tmp_path / "other.npz", x=sample.matrix(seed=5)[order], ids=np.array(sample.ids())[order])
        sample.imported(cache, tmp_path / "other.npz", model="virchow")
        one, two = (sample.opened(cache, models=[model]) for model in ("uni", "virchow"))
        assert two.fingerprints["dataset"] == one.fingerprints["dataset"]
        assert dict(zip(two.ids, two.labels, strict=True)) == dict(zip(one.ids, one.labels, strict=True))
        assert two.class_names == ("benign", "tumour")

    def test_groups_and_metadata_come_from_the_cache(self, tmp_path: Path) -> None:
        cache, groups = tmp_path / "grouped", [f"patient {row // 4}" for row in range(sample.N)]
        np.savez(tmp_path / "x.npz", x=sample.matrix(), ids=sample.ids())
        full = sample.label_table(tmp_path / "full.csv", patient=groups, sex=["f", "m"] * 12)
        sample.imported(cache, tmp_path / "x.npz", labels=[full])
        sample.imported(cache, tmp_path / "x.npz", model="virchow")
        plain = sample.label_table(tmp_path / "plain.csv")
        sample.imported(cache, tmp_path / "x.npz", model="phikon", labels=[plain])
        one, two, three = (sample.opened(cache, models=[model]) for model in ("uni", "virchow", "phikon"))
        assert one.groups == two.groups == three.groups
        assert one.columns == two.columns
        assert one.fingerprints["split"] == two.fingerprints["split"] == three.fingerprints["split"]
        assert three.manifest["warnings"] == []

    @pytest.mark.parametrize("labelled", [False, True])
    def test_rows_take_the_order_patients_and_columns_of_the_cache(
        self, tmp_path: Path, embeddings: Path, labelled: bool
    ) -> None:
        """Draws are rows by number: in another order one seed would draw other cases, and nothing could be paired."""
        table = sample.label_table(
            tmp_path / "labels.csv", group=[f"p{row // 2}" for row in range(sample.N)], sex=["f", "m"] * 12
        )
        plain = sample.label_table(tmp_path / "plain.csv")
        order = np.random.default_rng(2).permutation(sample.N)
        other = sample.matrix(seed=5)
        np.savez(tmp_path / "other.npz", x=other[order], ids=np.array(sample.ids())[order])
        sample.imported(tmp_path / "cache", embeddings, labels=[table])
        sample.imported(tmp_path / "cache", tmp_path / "other.npz", model="virchow", labels=[plain] * labelled)
        for split in ("train", "test"):
            one, two = (sample.opened(tmp_path / "cache", split, models=[model]) for model in ("uni", "virchow"))
            assert (two.ids, two.groups, two.columns) == (one.ids, one.groups, one.columns)
            assert two.groups is not None
            rows = [int(name.split()[1]) for name in two.ids]
            assert np.array_equal(two.embeddings, other[rows])

    @pytest.mark.parametrize(
        ("first", "message"),
        [
            (True, r"its cases have groups and these have none; .*--group-column"),
            (False, r"its cases have no groups and these have; .*--group-column none"),
        ],
    )
    def test_all_splits_have_groups_or_none_has(self, tmp_path: Path, first: bool, message: str) -> None:
        def part(split: str, grouped: bool) -> None:
            names = [f"{split} {row}" for row in range(8)]
            groups = {"group": [f"{split} {row // 2}" for row in range(8)]} if grouped else {}
            np.savez(tmp_path / f"{split}.npz", x=sample.matrix(8), ids=names)
            table = sample.write_table(tmp_path / f"{split}.csv", {"id": names, "label": list("abababab"), **groups})
            sample.imported(tmp_path / "cache", tmp_path / f"{split}.npz", labels=[table], split=split)

        part("train", first)
        with pytest.raises(InputError, match=message):
            part("test", not first)

    def test_numbers_stand_for_its_classes(self, tmp_path: Path, cache: Path) -> None:
        numbers = ["1" if label == "tumour" else "0" for label in sample.labels()]
        table = sample.label_table(tmp_path / "numbers.csv", label=numbers)
        sample.imported(cache, tmp_path / "x.npz", labels=[table], model="virchow")
        assert sample.opened(cache, models=["virchow"]).class_names == ("benign", "tumour")

    @pytest.mark.parametrize(
        ("column", "values", "message"),
        [
            ("label", ["tumour"] * 2 + sample.labels()[2:], "labels of 'train' differ in 1 case: case 1"),
            ("label", ["mole", *sample.labels()[1:]], "these labels are multiclass|classes .* are not among"),
            ("split", ["test", *sample.splits()[1:]], "1 case is in 'train' there and not here: case 0"),
        ],
    )
    def test_other_content_is_refused(
        self, tmp_path: Path, cache: Path, column: str, values: list[str], message: str
    ) -> None:
        table = sample.label_table(tmp_path / "other.csv", **{column: values})
        with pytest.raises(InputError, match=rf"{message}.* Choose another --dataset, or remove"):
            sample.imported(cache, tmp_path / "x.npz", labels=[table], model="virchow")

    def test_ids_beyond_it_are_refused(self, tmp_path: Path, cache: Path) -> None:
        np.savez(tmp_path / "other.npz", x=sample.matrix(), ids=["new", *sample.ids()[1:]])
        with pytest.raises(InputError, match=r"1 of 24 ids are not among the cached features .*: new"):
            sample.imported(cache, tmp_path / "other.npz", model="virchow")

    def test_splits_may_come_one_by_one(self, tmp_path: Path) -> None:
        cache = tmp_path / "cache2"
        for split, y in (("train", [0, 1, 2] * 4), ("test", [0, 1] * 3)):
            np.save(tmp_path / "x.npy", sample.matrix(len(y)))
            np.save(tmp_path / "y.npy", np.array(y))
            sample.imported(cache, tmp_path / "x.npy", labels=[tmp_path / "y.npy"], split=split)
        train, test = (sample.opened(cache, split) for split in ("train", "test"))
        assert test.class_names == train.class_names == ("0", "1", "2")
        assert test.fingerprints["dataset"] == train.fingerprints["dataset"]
