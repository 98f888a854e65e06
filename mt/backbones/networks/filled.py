"""From a backbone's entry in the registry to a network with its published weights, or random ones, in it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mt.backbones.checkpoints import read_checkpoint, select
from mt.backbones.entries.spec import BackboneSpec
from mt.backbones.layouts import split_pick
from mt.backbones.networks.build import build, random_state
from mt.backbones.networks.folding import fold_batch_norms
from mt.backbones.networks.frozen import FrozenNetwork, freeze, sha256_of
from mt.backbones.weights import RANDOM, obtain

if TYPE_CHECKING:
    from mt.cache.content import ContentIndex


def load_published(
    spec: BackboneSpec, weights: str | Path | None, image_size: int | None, index: ContentIndex | None
) -> FrozenNetwork:
    """Build the network of a registered backbone and fill it; see `mt.backbones.load.load_backbone`."""
    assert spec.weights is not None
    assert spec.preprocess is not None
    assert spec.dim is not None
    network = build(spec.network, spec.embedding)
    file = None
    if weights == RANDOM:
        state = random_state(network, spec.weights.url)
    else:
        file = obtain(spec.weights, weights, index=index)
        pick = None if weights is None else split_pick(weights)[1]
        state = select(read_checkpoint(file), spec.weights.layouts, network.state_dict(), file, pick)
    network.load_state_dict(state, assign=True)
    fold_batch_norms(network)
    return FrozenNetwork(freeze(network), spec.preprocess.at_size(image_size), spec.dim, sha256_of(state), file)
