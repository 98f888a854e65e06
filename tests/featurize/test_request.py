"""The frozen request refuses wrong values; a command loads each backbone once for all datasets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mt import FeaturizeRequest, extract
from mt.backbones import load
from mt.cache.content import ContentIndex
from mt.errors import InputError
from mt.featurize import loaded
from mt.featurize.request import Compute
from tests.featurize.conftest import TINY
from tests.featurize.extracting import CPU


def test_two_datasets_load_each_backbone_once(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = []

    def counted(name: str, *args: Any, **options: Any) -> load.Backbone:
        names.append(name)
        return load.load_backbone(name, *args, **options)

    monkeypatch.setattr(loaded, "load_backbone", counted)
    request = FeaturizeRequest(
        [f"folder:{photos / split}" for split in ("train", "test")],
        [TINY],
        cache_dir=tmp_path / "cache",
        weights=["random"],
        image_size=32,
        limit=4,
        compute=CPU,
    )
    results = extract(request, index=ContentIndex(tmp_path / "index.sqlite"))
    assert {result.dataset for result in results} == {"folder:train", "folder:test"}
    assert all(result.computed for result in results)
    assert names == [TINY]


@pytest.mark.parametrize("field", ["datasets", "models", "splits", "weights"])
def test_a_text_is_no_list(field: str) -> None:
    given: dict[str, Any] = {"datasets": [], "models": []}
    with pytest.raises(InputError, match=rf"{field} takes a list.*Write {field}=\['dino'\]"):
        FeaturizeRequest(**given | {field: "dino"})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"precision": "float8"}, "--precision takes one of float32, tf32"),
        ({"dtype": "bfloat16"}, "--dtype takes one of float32, float16"),
        ({"batch_size": 0}, "--batch-size takes a number of at least 1, got 0"),
        ({"workers": -1}, "--workers takes a number of at least 1"),
    ],
)
def test_settings_that_no_device_has_are_refused_before_anything_is_read(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        extract(FeaturizeRequest(["digits"], ["dino"], compute=Compute(**settings)))
