"""The two datasets that need no files: scikit-learn's digits and generated patches."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from mt.cache.content import ContentIndex
from mt.datasets import load_dataset
from mt.datasets.readers.synthetic import _places_outside, _stamps, _tumour_nuclei, patch
from mt.datasets.splitting import ids_sha256
from mt.errors import DatasetError, InputError

# The sha256 of the first four training patches of `synthetic@4`.
PINNED = "11c119187d86229a8d7f76af100f434966af5946498256b6bd2375db5ad89084"


def test_digits_are_those_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits

    dataset, reference = load_dataset("digits"), load_digits()
    assert (dataset.task, dataset.metric, dataset.class_names) == ("multiclass", "accuracy", tuple("0123456789"))
    for split in dataset.splits.values():
        rows = [int(id_) for id_ in split.ids]
        assert np.array_equal(split.labels, reference.target[rows])
        found = np.stack([np.asarray(image) for image in split.images.load(0, len(split))])
        assert found.shape == (len(split), 8, 8, 3)
        assert np.array_equal(found[..., 1], np.rint(reference.images[rows] * 255 / 16))
    assert sum(map(len, dataset.splits.values())) == 1797


def test_digits_split_is_pinned() -> None:
    """The drawn split is part of the dataset's definition: a change here invalidates everyone's scores."""
    dataset = load_dataset("digits", seed=5)
    assert dataset.drawn["splits"] == {
        "algorithm": "mt.cache.stratify.stratified_parts, revision 1",
        "fractions": {"train": 0.7, "test": 0.3},
        "seed": 0,
        "rows": {"train": 1258, "test": 539},
        "ids_sha256": {
            "train": "d5b1b782b6129f4901130bbfe21439727f22f5121bf02fa52d625f9ce99513f6",
            "test": "5a9305bdc4d674465facc89e89b956f0a7b8e7354e070a1ec3267cc09e6ab51a",
        },
    }
    for name, split in dataset.splits.items():
        assert ids_sha256(split.ids) == dataset.drawn["splits"]["ids_sha256"][name]


def test_digits_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mt.datasets.readers.digits.find_spec", lambda name: None)
    with pytest.raises(DatasetError, match="pip install scikit-learn"):
        load_dataset("digits")


def test_synthetic_sizes() -> None:
    assert [len(split) for split in load_dataset("synthetic").splits.values()] == [2000, 1000]
    large = load_dataset("synthetic@100000")
    assert (large.name, [len(split) for split in large.splits.values()]) == ("synthetic@100000", [100000, 50000])
    for wrong in ("synthetic@2", "synthetic@many", "synthetic@-5"):
        with pytest.raises(InputError, match=f"'{re.escape(wrong)}': expected synthetic@N"):
            load_dataset(wrong)


def test_synthetic_is_drawn_row_by_row_from_its_seed(index: ContentIndex) -> None:
    images = load_dataset("synthetic@20").splits["train"].images
    together = np.stack([np.asarray(image) for image in images.load(0, 20)])
    assert together.shape == (20, 96, 96, 3)
    assert together.dtype == np.uint8
    assert np.array_equal(together[7], np.asarray(images.load(7, 8)[0]))
    assert len({image.tobytes() for image in together}) == 20
    assert len(images.load(18, 40)) == 2
    fingerprints = {
        load_dataset(name, seed=seed).fingerprint(index) for name in ("synthetic@20", "synthetic@22") for seed in (0, 1)
    }
    assert len(fingerprints) == 4


def test_synthetic_pixels_are_pinned() -> None:
    """GENERATOR must rise with any change: otherwise old and new features would have the same fingerprint."""
    import hashlib

    images = load_dataset("synthetic@4").splits["train"].images.load(0, 4)
    pixels = b"".join(np.asarray(image).tobytes() for image in images)
    assert hashlib.sha256(pixels).hexdigest() == PINNED


def test_synthetic_label_is_about_the_centre() -> None:
    """The same random numbers with and without tumour differ; tumour around the centre never touches it."""
    rng = np.random.default_rng(0)
    nuclei = _tumour_nuclei(rng, _places_outside(rng, 4000))
    _, reach = _stamps(nuclei)
    distance = np.abs(nuclei[:, :2].astype(int) - 47.5).max(axis=1)
    assert (distance - reach >= 16).all()
    with_tumour, without = (patch(np.random.default_rng(1), tumour=tumour) for tumour in (True, False))
    assert not np.array_equal(with_tumour, without)


def test_synthetic_classes_are_balanced() -> None:
    for split in load_dataset("synthetic@10").splits.values():
        assert abs(split.labels.mean() - 0.5) <= 0.1


def test_data_folder_does_not_matter(tmp_path: Path, index: ContentIndex) -> None:
    assert load_dataset("digits", tmp_path).fingerprint(index) == load_dataset("digits").fingerprint(index)
