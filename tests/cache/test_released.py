"""Files that released versions wrote are read forever: `tests/data/features-v<version>.h5`, one per format version."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from mt.cache import Status, open_features, verify_file
from tests.cache import samples

DATA = Path(__file__).parents[1] / "data"
SHA256 = {
    "features-v1.h5": "a8f755bbbfc67e9cb9787b1d9d209a06c3c82ec6fe11f8cabf2333db92c22dc1",
    "features-v2.h5": "9ddcad78450d50b0c70f109ae239dfb4e243e63cdd8df67ec104081cf17ca7d6",
}


@pytest.mark.parametrize("name", SHA256)
def test_a_file_of_every_released_format_is_read(name: str) -> None:
    path = DATA / name
    assert hashlib.sha256(path.read_bytes()).hexdigest() == SHA256[name]
    report = verify_file(path)
    assert (report.problem, report.blocks, report.checked) == ("", 3, 3)
    features = open_features(path, verify=True)
    kept = [row for row in range(samples.N) if row != samples.SKIPPED]
    assert (features.n_rows, features.dim) == (samples.N, 8)
    assert np.array_equal(features.embeddings, np.arange(88, dtype="f4").reshape(11, 8)[kept] / 7)
    assert features.ids == [f"bild-é{row}.png" for row in kept]
    assert features.labels.tolist() == [row % 2 for row in kept]
    assert features.groups == [f"patient{row // 2}" for row in kept]
    assert features.columns["age"] == [20.5 + row for row in kept]
    assert features.columns["site/view"] == [("PA", "AP")[row % 2] for row in kept]
    assert features.skipped() == [("bild-é5.png", Status.TRUNCATED)]
    assert features.manifest["dataset"] == "folder:moles"
    known = [hashlib.sha256(b"image %d" % row).digest()[:16] for row in kept]
    assert (features.content is None) == (name == "features-v1.h5")
    assert features.content is None or [one.tobytes() for one in features.content] == known


def test_every_format_version_has_a_file() -> None:
    assert sorted(path.name for path in DATA.glob("features-v*.h5")) == sorted(SHA256)
