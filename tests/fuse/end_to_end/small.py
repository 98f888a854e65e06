"""A small cache that is trained on end to end: generated patches at 32 pixels through tiny networks, random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from mt.backbones.recorded import described, load_described
from mt.cache.catalog import Catalog
from mt.featurize import FeaturizeRequest, extract
from mt.fuse.aligned import AlignedFeatures, join_pairs
from mt.fuse.dvme.recipes import BLEND
from mt.fuse.dvme.selection import Candidate, beside_blend
from mt.fuse.end_to_end.augment import AUGMENTATIONS
from mt.fuse.end_to_end.choice import shares
from mt.fuse.end_to_end.images import Images, dataset_of
from mt.fuse.end_to_end.request import Machine, Settings
from mt.fuse.end_to_end.trainable.families import CandidateRates
from mt.fuse.end_to_end.work import Work
from mt.probe.questions import Pair, find_pairs
from mt.system.ranks import Ranks
from mt.types import LabelledRows

RESNET, VIT = "timm:test_resnet", "timm:test_vit"
DATASET, SIZE = "synthetic@40", 32


def make_cache(folder: Path) -> Path:
    """Featurize 40 patches to train on and 20 to test with both networks."""
    extract(FeaturizeRequest([DATASET], [RESNET, VIT], cache_dir=folder, weights=["random"], image_size=SIZE))
    return folder


def always_trained() -> None:
    """Do not let the start win in this process: after so few steps it would, and nothing would train on all rows."""
    shares.SHARES = (0.5, 1.0)


def blend_first(*arguments: Any) -> list[Candidate]:
    """Do what `beside_blend` does, with blend as the better start."""
    return sorted(beside_blend(*arguments), key=lambda one: one.recipe != BLEND)


class Bench:
    """A dataset's parts as the Tuner puts them together, for tests of single parts."""

    def __init__(self, cache: Path, *models: str, settings: Settings | None = None, **machine: Any) -> None:
        pairs = find_pairs(Catalog(cache), models=models, everything=True)
        self.pair: Pair = pairs[0] if len(pairs) == 1 else join_pairs(pairs)[0]
        self.joined = AlignedFeatures.load(self.pair)
        self.backbones = [load_described(about, None) for about in described(self.pair.train)]
        self.networks = [backbone.model for backbone in self.backbones]
        first = self.joined.first
        self.budget = LabelledRows(self.joined.train, first.pool.y)
        self.settings = settings or Settings(batch=8, dropout=0.0)
        self.machine = Machine(**{"batch_size": 8, "workers": 1, **machine})
        self.dataset = dataset_of(self.pair.train[0])

    def candidate(self, rate: float) -> CandidateRates:
        return CandidateRates(rate, (rate,) * len(self.networks), (0.8,) * len(self.networks))

    def work(self, ids: Any = None, *, augment: str = "none", memory: int = 1 << 30) -> Work:
        recipes = [backbone.preprocess for backbone in self.backbones]
        images = Images(self.dataset, self.joined.first.pool.ids if ids is None else ids, recipes, memory=memory)
        return Work(
            images,
            AUGMENTATIONS[augment],
            self.settings,
            self.machine,
            torch.device("cpu"),
            Ranks(),
            1,
            self.joined.task,
            2,
            seed=0,
        )
