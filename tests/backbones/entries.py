"""Parts of a registered backbone that most entries have, for tests of those that do."""

from __future__ import annotations

from mt.backbones.preprocess import Preprocess
from mt.backbones.registry import find_spec
from mt.backbones.weights import Published


def weights_of(name: str) -> Published:
    """Return the published weights of an entry that has them."""
    weights = find_spec(name).weights
    assert weights is not None
    return weights


def preprocess_of(name: str) -> Preprocess:
    """Return the preprocessing of an entry that states its own."""
    preprocess = find_spec(name).preprocess
    assert preprocess is not None
    return preprocess
