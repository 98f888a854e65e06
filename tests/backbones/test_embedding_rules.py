"""`MODEL:RULE` and `--embedding` choose the activations that are the embedding; a rule may not fit the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from mt.backbones.embeddings import RULES, split_rule, with_rule
from mt.backbones.load import load_backbone
from mt.backbones.registry import find_spec
from mt.errors import InputError, WeightsError

VIT = "timm:test_vit"
IMAGES = torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(0))
# Fingerprints from before embedding rules and hubs were added, in float32 with random weights.
BEFORE = {
    VIT: "5d08c971e7179c94bebeda35e16119bd61058f54068b99c34f351d45b3e1374b",
    "timm:test_resnet": "2beb7ad263cbb3824fbbad32933ea064e987fa177ddc1d67fc1c13ccfaf87871",
    "dino:cls1": "1fc34365f9e3891ea8821de1672781d5c4a5521e0d0ab2d688d0ffe3461a7a49",
    "swav": "b4122e2fa2611e9ed8405c652e5a6fdd93fe200274f01bbbd222eb1ff15a1c08",
}


def hub_folder(folder: Path, **config: Any) -> Path:
    """Write a small transformer with registers in the form in which timm's publishers put models on the hub."""
    torch.manual_seed(0)
    network = timm.create_model("test_vit", num_classes=0, **config)
    folder.mkdir()
    save_file(network.state_dict(), folder / "model.safetensors")
    pretrained = {
        "input_size": [3, 160, 160],
        "interpolation": "bicubic",
        "crop_pct": 1.0,
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
        "num_classes": 0,
        "pool_size": None,
        "first_conv": "patch_embed.proj",
        "classifier": "head",
    }
    about = {"architecture": "test_vit", "num_classes": 0, "pretrained_cfg": pretrained, "model_args": config}
    (folder / "config.json").write_text(json.dumps(about))
    return folder


def embed(name: str, weights: str | Path | None = None) -> torch.Tensor:
    with torch.inference_mode():
        output: torch.Tensor = load_backbone(name, weights).model(IMAGES)
    return output


@pytest.mark.parametrize("name", BEFORE)
def test_defaults_keep_their_fingerprints(name: str) -> None:
    assert load_backbone(name, "random").fingerprint == BEFORE[name]


@pytest.mark.parametrize("pool", ["token", ""])
def test_timms_tokens_become_embeddings_by_each_rule(tmp_path: Path, pool: str) -> None:
    """With four registers: patches begin at the sixth token, as Virchow2's authors cut them."""
    folder = hub_folder(tmp_path / "model", reg_tokens=4, global_pool=pool)
    name = f"timm:local-dir:{folder}"
    network: Any = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()
    with torch.inference_mode():
        tokens = network.forward_features(IMAGES)
        layers = network.get_intermediate_layers(IMAGES, n=4, return_prefix_tokens=True, norm=True)
    cls, mean = tokens[:, 0], tokens[:, 5:].mean(1)
    expected = {
        "cls": cls,
        "mean": mean,
        "cls+mean": torch.cat((cls, mean), 1),
        "cls4": torch.cat([prefix[:, 0] for _, prefix in layers], 1),
    }
    for rule, embedding in expected.items():
        assert torch.allclose(embed(f"{name}:{rule}"), embedding, atol=1e-5), rule
    if pool:
        assert torch.allclose(embed(name), cls, atol=1e-5)
    else:
        with pytest.raises(InputError, match=r"has no pooled features; rules that fit: cls, mean, cls\+mean, cls4"):
            load_backbone(name)


def test_a_folders_fingerprint_is_its_content(tmp_path: Path) -> None:
    one, other = hub_folder(tmp_path / "one"), hub_folder(tmp_path / "other")
    fingerprints = {load_backbone(f"timm:local-dir:{folder}").fingerprint for folder in (one, other)}
    assert len(fingerprints) == 1
    assert str(tmp_path) not in json.dumps(load_backbone(f"timm:local-dir:{one}").description)
    assert load_backbone(f"timm:local-dir:{one}:mean").fingerprint not in fingerprints


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"No config\.json in"):
        load_backbone(f"timm:local-dir:{tmp_path / 'none'}")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("timm:test_resnet:cls", "'timm:test_resnet'; rule that fits: pooled"),
        ("swav:cls", "'swav'; rule that fits: pooled"),
        ("dino:pooled", r"'dino' has no pooled features; rules that fit: cls, mean, cls\+mean, cls4"),
    ],
)
def test_a_rule_that_does_not_fit_is_answered_with_those_that_do(name: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        load_backbone(name, "random")


@pytest.mark.parametrize(("rule", "dim"), [("cls", 384), ("mean", 384), ("cls+mean", 768), ("cls4", 1536)])
def test_dinos_own_network_takes_the_rules(rule: str, dim: int) -> None:
    backbone = load_backbone(f"dino:{rule}", "random")
    with torch.inference_mode():
        assert backbone.model(torch.zeros(1, 3, 32, 32)).shape == (1, dim)
    assert backbone.dim == find_spec(f"dino:{rule}").dim == dim
    same = {"cls": "dino:cls1", "cls4": "dino"}.get(rule)
    if same:
        assert backbone.fingerprint == load_backbone(same, "random").fingerprint


def test_a_name_ends_in_its_rule() -> None:
    assert with_rule("timm:test_vit", "cls") == "timm:test_vit:cls"
    assert split_rule("timm:hf-hub:a/b:cls+mean") == ("timm:hf-hub:a/b", "cls+mean")
    assert split_rule("dino:cls1") == ("dino:cls1", None)
    with pytest.raises(InputError, match=f"takes one of {', '.join(RULES)}".replace("+", r"\+")):
        with_rule("dino", "max")


def test_the_hubs_two_spellings_are_one_model() -> None:
    assert find_spec("timm:hf_hub:a/b").network == find_spec("timm:hf-hub:a/b").network == "hf-hub:a/b"
