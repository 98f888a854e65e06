"""`open_clip:`: image towers from a folder, the hub's cache and a file compute what the library computes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from mt.backbones.load import load_backbone
from mt.errors import InputError, WeightsError

open_clip = pytest.importorskip("open_clip")

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TEXT = {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1}
VIT = {"image_size": 32, "layers": 4, "width": 16, "head_width": 8, "patch_size": 8}
TRUNK = {"timm_model_name": "test_vit", "timm_pool": "", "timm_proj": "linear", "image_size": 32}
CONVOLUTIONS = {"timm_model_name": "test_convnext", "timm_pool": "", "timm_proj": "linear", "image_size": 32}
TOWERS: dict[str, dict[str, Any]] = {
    "vit": VIT,
    "timm": {**TRUNK, "timm_pool": "token"},
    "convolutions": {**CONVOLUTIONS, "timm_pool": "avg"},
}
RECIPE = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.25], "interpolation": "bicubic", "resize_mode": "shortest"}


def images(side: int = 32) -> torch.Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def written(folder: Path, tower: dict[str, Any], **recipe: Any) -> Path:
    """Write configuration and weights as open_clip's publishers put them on the hub."""
    folder.mkdir(parents=True)
    config = {
        "model_cfg": {"embed_dim": 12, "vision_cfg": tower, "text_cfg": TEXT},
        "preprocess_cfg": {**RECIPE, **recipe},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    network = open_clip.create_model(f"local-dir:{folder}")
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, folder / "model.safetensors")
    return folder


def official(folder: Path) -> Any:
    return open_clip.create_model(f"local-dir:{folder}").eval()


@pytest.mark.parametrize("tower", TOWERS)
def test_a_folder_gives_the_image_embedding_before_the_norm(tmp_path: Path, tower: str) -> None:
    folder = written(tmp_path / "model", TOWERS[tower])
    backbone = load_backbone(f"open_clip:local-dir:{folder}")
    with torch.inference_mode():
        expected = official(folder).encode_image(images())
        assert torch.allclose(backbone.model(images()), expected, rtol=0, atol=1e-5)
    assert backbone.dim == 12
    assert str(tmp_path) not in json.dumps(backbone.description)


def test_a_file_of_both_towers_fills_the_image_tower(tmp_path: Path) -> None:
    folder = written(tmp_path / "model", VIT)
    torch.save({"state_dict": official(folder).state_dict()}, tmp_path / "trained.pt")
    name = f"open_clip:local-dir:{folder}"
    given = load_backbone(name, tmp_path / "trained.pt")
    assert given.description["weights"] == load_backbone(name).description["weights"]
    assert load_backbone(name, "random").description["weights"] != given.description["weights"]


@pytest.mark.parametrize("tower", ["vit", "timm"])
def test_tokens_become_embeddings_by_each_rule(tmp_path: Path, tower: str) -> None:
    folder = written(tmp_path / "model", TOWERS[tower])
    visual = official(folder).visual
    blocks: list[torch.Tensor] = []
    layers = visual.trunk.blocks if tower == "timm" else visual.transformer.resblocks
    for layer in layers:
        layer.register_forward_hook(lambda _m, _i, out: blocks.append(out))
    norm = visual.trunk.norm if tower == "timm" else visual.ln_post
    with torch.inference_mode():
        visual(images())
        tokens = [norm(block) for block in blocks]
        cls, mean = tokens[-1][:, 0], tokens[-1][:, 1:].mean(1)
        expected = {"cls": cls, "mean": mean, "cls+mean": torch.cat((cls, mean), 1)}
        if len(blocks) >= 4:
            expected["cls4"] = torch.cat([one[:, 0] for one in tokens[-4:]], 1)
        for rule, embedding in expected.items():
            found = load_backbone(f"open_clip:local-dir:{folder}:{rule}").model(images())
            assert torch.allclose(found, embedding, rtol=0, atol=1e-5), rule


def test_convolutions_take_the_pooled_rule_alone(tmp_path: Path) -> None:
    folder = written(tmp_path / "model", TOWERS["convolutions"])
    with pytest.raises(InputError, match="rule that fits: pooled"):
        load_backbone(f"open_clip:local-dir:{folder}:cls")


def test_the_hubs_cache_serves_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    folder = written(tmp_path / "model", VIT)
    shutil.copytree(folder, tmp_path / "models--org--clip" / "snapshots" / COMMIT)
    (tmp_path / "models--org--clip" / "refs").mkdir()
    (tmp_path / "models--org--clip" / "refs" / "main").write_text(COMMIT)
    backbone = load_backbone("open_clip:hf-hub:org/clip")
    with torch.inference_mode():
        assert torch.allclose(backbone.model(images()), official(folder).encode_image(images()), rtol=0, atol=1e-5)
    assert backbone.description["origin"]["revision"] == COMMIT


@pytest.mark.parametrize("tower", ["vit", "timm"])
def test_another_image_size_is_open_clips(tmp_path: Path, tower: str) -> None:
    folder = written(tmp_path / "model", TOWERS[tower])
    network = open_clip.create_model(f"local-dir:{folder}", force_image_size=64).eval()
    if tower == "timm":
        network = open_clip.create_model(f"local-dir:{folder}").eval()
        network.visual.set_input_size(64)
    backbone = load_backbone(f"open_clip:local-dir:{folder}", image_size=64)
    with torch.inference_mode():
        assert torch.allclose(backbone.model(images(64)), network.encode_image(images(64)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("recipe", [{}, {"resize_mode": "squash"}, {"interpolation": "bilinear"}], ids=str)
@pytest.mark.parametrize("size", [(64, 64), (61, 40), (37, 90)])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_preprocessing_equals_open_clips(
    tmp_path: Path, recipe: dict[str, str], size: tuple[int, int], mode: str
) -> None:
    folder = written(tmp_path / "model", VIT, **recipe)
    transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")[2]
    channels = () if mode == "L" else (3,)
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], *channels), dtype=np.uint8)
    image = Image.fromarray(pixels)
    ours = load_backbone(f"open_clip:local-dir:{folder}", "random").preprocess(image)
    assert torch.allclose(ours, transform(image.convert("RGB")), rtol=0, atol=1e-5)


def test_a_resize_that_preprocess_cannot_do_is_refused(tmp_path: Path) -> None:
    folder = written(tmp_path / "model", VIT, resize_mode="longest")
    with pytest.raises(InputError, match="resized by 'longest'"):
        load_backbone(f"open_clip:local-dir:{folder}")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("open_clip:ViT-B-33/openai", "Did you mean 'open_clip:ViT-B-32'"),
        ("open_clip:ViT-B-32", "takes one of openai"),
        ("open_clip:ViT-B-32/nothing", "takes one of openai"),
        ("open_clip:ViT-B-32/openai", "Use open_clip:ViT-B-32-quickgelu/openai"),
    ],
)
def test_names_and_tags_are_answered(name: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        load_backbone(name)


def test_weights_of_a_tag_come_from_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WeightsError, match="HF_HUB_OFFLINE is set"):
        load_backbone("open_clip:ViT-B-32/laion2b_s34b_b79k")


def test_a_transformers_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(WeightsError, match=f"--model hf:{tmp_path}"):
        load_backbone(f"open_clip:local-dir:{tmp_path}")
