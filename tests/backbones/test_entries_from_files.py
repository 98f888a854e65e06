"""RETFound and RadImageNet: weights that come as files in their authors' forms, computed as their code computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from click.testing import CliRunner
from PIL import Image
from torch import nn

from mt.backbones.entries.foundation import FOUNDATION
from mt.backbones.load import load_backbone
from mt.backbones.networks.vit import VisionTransformer, VitConfig
from mt.cli import group
from mt.errors import WeightsError
from tests.backbones.entries import weights_of

TINY = VitConfig(patch=16, width=32, heads=2, side=14, depth=2, offset=0.0)


@pytest.mark.parametrize("side", [224, 272])
def test_retfounds_latent_feature(side: int) -> None:
    """MAE's pooling: the mean patch token without the class token, then a norm that was never trained."""
    torch.manual_seed(0)
    official: Any = timm.create_model(
        "vit_tiny_patch16_224", num_classes=0, embed_dim=32, depth=2, num_heads=2, img_size=side
    ).eval()
    ours = VisionTransformer(TINY, "normed mean").eval()
    state = timm.create_model("vit_tiny_patch16_224", num_classes=0, embed_dim=32, depth=2, num_heads=2).state_dict()
    state = {name: torch.randn(value.shape) * 0.1 for name, value in state.items()}
    ours.load_state_dict(state)
    grid = state["pos_embed"][:, 1:].reshape(1, 14, 14, 32).permute(0, 3, 1, 2)
    grid = nn.functional.interpolate(grid, size=(side // 16,) * 2, mode="bicubic", align_corners=False)
    positions = torch.cat((state["pos_embed"][:, :1], grid.flatten(2).transpose(1, 2)), 1)
    official.load_state_dict(state | {"pos_embed": positions})
    official.norm = nn.Identity()
    images = torch.randn(2, 3, side, side)
    with torch.inference_mode():
        pooled = official.forward_features(images)[:, 1:].mean(dim=1)
        expected = nn.LayerNorm(32, eps=1e-6)(pooled)
        assert torch.allclose(ours(images), expected, rtol=0, atol=1e-5)


def test_radimagenet_computes_what_its_example_does(tmp_path: Path) -> None:
    torch.manual_seed(0)
    official = nn.Module()
    official.backbone = nn.Sequential(*list(torchvision.models.resnet50().children())[:9])
    official.eval()
    torch.save(official.state_dict(), tmp_path / "ResNet50.pt")
    backbone = load_backbone("radimagenet-resnet50", tmp_path / "ResNet50.pt")
    pixels = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    given = torch.from_numpy((pixels - 127.5) * 2 / 255).permute(2, 0, 1).float()
    assert torch.allclose(backbone.preprocess(Image.fromarray(pixels)), given, rtol=0, atol=1e-5)
    with torch.inference_mode():
        expected = official.backbone(given[None]).flatten(1)
        assert torch.allclose(backbone.model(given[None]), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("name", [name for name, spec in FOUNDATION.items() if spec.weights is not None])
def test_what_is_given_out_by_hand_says_where(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MT_WEIGHTS_DIR", str(tmp_path))
    weights = weights_of(name)
    with pytest.raises(WeightsError, match="is given out at") as raised:
        load_backbone(name)
    for part in (weights.url, str(tmp_path / weights.file_name), "--weights FILE"):
        assert part in str(raised.value)
    ran = CliRunner().invoke(group, ["models", "check", name], catch_exceptions=False)
    assert weights.url in ran.stdout
    assert ran.exit_code == 1, "a file that somebody must ask for is not downloaded"
