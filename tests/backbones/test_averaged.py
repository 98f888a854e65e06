"""`MODEL:VIEWS`: the embedding is the mean over views, exact on the preprocessed image, and part of the fingerprint."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torchvision.transforms.v2 import functional as official

from mt.backbones.embeddings import VIEWS, split_views, with_views
from mt.backbones.load import Backbone, load_backbone, resolve_backbone
from mt.backbones.preprocess import Preprocess
from mt.backbones.registry import find_spec
from mt.cache.content import ContentIndex
from mt.cli import group
from mt.errors import InputError
from mt.fuse.end_to_end.trainable.blocks import blocks
from tests.featurize.conftest import TINY

COUNTS = {"flips": 4, "fivecrop": 5, "d4": 8}
PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 256, (57, 90, 3), dtype=np.uint8))


def embedded(backbone: Backbone, image: Image.Image) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = backbone.model(backbone.preprocess(image)[None])
    return found


def views_of(alone: Backbone, views: str) -> list[torch.Tensor]:
    """Return the views of PHOTO that the network alone embeds, made by torchvision."""
    if views == "fivecrop":
        square = alone.preprocess.for_five_crops()
        return list(official.five_crop(square(PHOTO), [alone.preprocess.crop] * 2))
    image = alone.preprocess(PHOTO)
    if views == "flips":
        mirrored = official.horizontal_flip(image)
        return [image, mirrored, official.vertical_flip(image), official.vertical_flip(mirrored)]
    turned = [official.rotate(image, 90.0 * turns) for turns in range(4)]
    return [*turned, *map(official.horizontal_flip, turned)]


@pytest.mark.parametrize("views", VIEWS)
def test_the_embedding_is_the_mean_over_the_views(views: str) -> None:
    alone, averaged = load_backbone(TINY, "random"), load_backbone(f"{TINY}:{views}", "random")
    expected = views_of(alone, views)
    assert len(expected) == COUNTS[views]
    with torch.inference_mode():
        mean = alone.model(torch.stack(expected)).mean(0)
    assert torch.allclose(embedded(averaged, PHOTO)[0], mean, rtol=0, atol=1e-5)
    assert averaged.dim == alone.dim


@pytest.mark.parametrize("views", VIEWS)
def test_views_are_part_of_the_fingerprint(views: str) -> None:
    alone, averaged = load_backbone(TINY, "random"), load_backbone(f"{TINY}:{views}", "random")
    assert averaged.fingerprint != alone.fingerprint
    assert averaged.description == alone.description | {"views": views}


def test_what_turns_or_mirrors_an_image_leaves_its_embedding() -> None:
    square = PHOTO.crop((0, 0, 57, 57))
    backbone = load_backbone(f"{TINY}:d4", "random", image_size=32)
    for turn in (Image.Transpose.ROTATE_90, Image.Transpose.FLIP_TOP_BOTTOM, Image.Transpose.TRANSPOSE):
        assert torch.allclose(embedded(backbone, square), embedded(backbone, square.transpose(turn)), atol=1e-2)


def test_five_crops_need_something_to_crop() -> None:
    assert Preprocess(256, 224).for_five_crops() == Preprocess(256, 256)
    assert Preprocess(224, 224).for_five_crops() == Preprocess(256, 256)
    assert Preprocess(None, 112).for_five_crops() == Preprocess(128, 128)


def test_names_say_rule_and_views(tmp_path: Path) -> None:
    assert with_views("dino:cls", "d4") == with_views("dino:cls:d4", "d4") == "dino:cls:d4"
    spec = find_spec("dino:cls:d4")
    assert (spec.embedding, spec.views, spec.dim) == ("cls1", "d4", 384)
    assert split_views("module:ours.py:flips") == ("module:ours.py:flips", None)
    assert split_views("module:ours.py:flips:d4") == ("module:ours.py:flips", "d4")
    with pytest.raises(InputError, match=r"--views takes one of flips, fivecrop, d4; got 'many'"):
        with_views("dino", "many")
    with pytest.raises(InputError, match=r"averages d4 already\. Write --model dino --views flips"):
        with_views("dino:d4", "flips")
    with pytest.raises(InputError, match="'swav'; rule that fits: pooled"):
        find_spec("swav:cls:flips")


@pytest.mark.parametrize("name", [TINY, "timm:test_vit", "timm:test_vit:cls"])
def test_training_end_to_end_finds_the_same_blocks(name: str) -> None:
    alone, averaged = (blocks(load_backbone(one, "random").model) for one in (name, f"{name}:d4"))
    shapes = [[[parameter.shape for parameter in one.parameters] for one in found] for found in (averaged, alone)]
    assert len(alone) > 1
    assert shapes[0] == shapes[1]


def test_mt_models_shows_the_views() -> None:
    ran = CliRunner().invoke(group, ["models", "dino:d4", "--json"], catch_exceptions=False)
    assert json.loads(ran.stdout)["views"] == "d4"


def test_an_averaged_backbone_is_known_without_loading_it(tmp_path: Path) -> None:
    index = ContentIndex(tmp_path / "index.sqlite")
    averaged = load_backbone(f"{TINY}:flips", "random", index=index)
    known = resolve_backbone(f"{TINY}:flips", "random", index=index)
    assert known is not None
    assert known.fingerprint == averaged.fingerprint
    assert resolve_backbone(TINY, "random", index=index) is None
