"""What a feature file says of patients: numbers as groups, hashes as a column, never who they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from mt.cache import open_features
from mt.datasets import load_dataset
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
