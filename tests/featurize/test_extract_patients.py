"""A feature file holds patients as numbered groups and hashes, never their names."""

from __future__ import annotations

from pathlib import Path

import pytest

from mt import ProbeRequest, run_probe
from mt.cache import open_features
from mt.cache.catalog import Catalog
from mt.datasets import DatasetSettings, load_dataset
from mt.fuse.end_to_end.images import dataset_of
from mt.types import MISSING
from tests.datasets.layouts import write_image
from tests.datasets.test_dicom_folders import SECRET, hospital
from tests.featurize.extracting import featurize


def test_patients_are_stored_as_numbers_and_hashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = hospital(tmp_path / "clinic")
    hashes, files = {}, {}
    for salt in ("one", "two"):
        monkeypatch.setenv("MT_ID_SALT", salt)
        results = featurize(load_dataset(f"folder:{root}"), tmp_path / salt)
        found = {result.split: open_features(result.path) for result in results}
        assert all(SECRET.encode() not in result.path.read_bytes() for result in results)
        hashes[salt] = set(found["train"].columns["patient"])
        files[salt] = found["train"].groups, [result.path.name for result in results]
        assert len(hashes[salt]) == len(set(found["train"].groups or ())) == 8
        assert not hashes[salt] & set(found["test"].columns["patient"])
    assert files["one"] == files["two"]
    assert not hashes["one"] & hashes["two"]


def test_settings_load_the_dataset_again(tmp_path: Path) -> None:
    root = hospital(tmp_path / "clinic", patients=4)
    (result, _) = featurize(load_dataset(f"folder:{root}", intensity="minmax", columns=("sex",)), tmp_path / "cache")
    found = open_features(result.path)
    assert found.manifest["settings"] == {"intensity": "minmax", "columns": ["sex"]}
    assert "--intensity minmax --column sex" in found.manifest["command"]
    assert load_dataset(f"folder:{root}", settings=DatasetSettings(**found.manifest["settings"])).settings.columns == (
        "sex",
    )
    (entry,) = [one for one in Catalog(tmp_path / "cache").entries(everything=True) if one.split == result.split]
    assert dataset_of(entry).settings == DatasetSettings(intensity="minmax", columns=("sex",))
    (plain, _) = featurize(load_dataset(f"folder:{root}"), tmp_path / "cache")
    assert "settings" not in open_features(plain.path).manifest


def test_missing_labels_are_stored_and_probed_where_they_are_known(tmp_path: Path) -> None:
    for number in range(20):
        write_image(tmp_path / f"{number}.png", number)
    lines = [f"{n}.png,{n % 2},{'' if n % 5 == 0 else n % 3 % 2}" for n in range(20)]
    (tmp_path / "t.csv").write_text("\n".join(["image,edema,mass", *lines]))
    results = featurize(load_dataset(f"table:{tmp_path / 't.csv'}", blank="ignore"), tmp_path / "cache")
    assert sum(int((open_features(result.path).labels == MISSING).sum()) for result in results) == 4
    asked = ProbeRequest(cache_dir=tmp_path / "cache", scores=tmp_path / "scores.sqlite", everything=True)
    assert {score.metric for score in run_probe(asked).scores} == {"mean_auc"}
