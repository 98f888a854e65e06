"""Fingerprints, and file names made from names that people choose."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mt.cache import digest, feature_path, slug

FP = "0123456789abcdef" * 4


def test_a_digest_is_of_the_value_and_not_of_its_spelling() -> None:
    assert digest({"b": [1, "é"], "a": None}) == digest({"a": None, "b": [1, "é"]})
    assert digest({"a": 1}) != digest({"a": "1"})
    assert digest([]) == "4f53cda18c2baa0c0354bb5f9a3ecbe5ed12ab4d8e11ba873c2f11161202b945"


def test_a_digest_has_no_place_for_nan() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        digest([float("nan")])


@pytest.mark.parametrize("name", ["pcam", "dino", "efficientnet-lite0", "dinov2-vits14", "train"])
def test_plain_names_stay(name: str) -> None:
    assert slug(name) == name


def test_chosen_names_stay_readable_and_differ_by_their_hash() -> None:
    assert slug("folder:My Moles") == "folder-my-moles-ec5430c8"
    assert slug("folder:my moles") != slug("folder:My Moles")
    assert slug(slug("folder:My Moles")) != slug("folder:My Moles")
    assert len({slug(name) for name in ("PCAM", "pcam", "Pcam")}) == 3


@given(st.text(), st.text(), st.text())
def test_no_name_leaves_the_cache_folder(dataset: str, split: str, backbone: str) -> None:
    path = feature_path(Path("/cache"), dataset, split, backbone, FP)
    assert path.parent.parent.parent == Path("/cache")
    assert path.resolve() == path
    assert path.name.endswith("-0123456789ab.h5")
    assert all(len(part) <= 64 and part.isascii() and part == part.lower() for part in path.parts)


@pytest.mark.parametrize("name", ["", ".", "..", "../../etc", "a/b", "/etc/passwd", "a\0b", "~", "x" * 500, "a..b"])
def test_hostile_names_are_one_plain_folder(name: str) -> None:
    folder = slug(name)
    assert folder.replace("-", "").isalnum()
    assert len(folder) <= 49


@given(st.text(max_size=60), st.text(max_size=60))
def test_two_names_share_no_slug(one: str, other: str) -> None:
    assert (slug(one) == slug(other)) == (one == other)
