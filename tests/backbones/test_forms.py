"""Every entry's network, built without weights, has the width, the parameters and the tensors that the entry says."""

from __future__ import annotations

import re
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import nn

from mt.backbones.entries.forms import FORMS, OWN, parameters_of
from mt.backbones.entries.foundation import FOUNDATION
from mt.backbones.entries.spec import HF, OPEN_CLIP, loader_of
from mt.backbones.hubs.timm import timm_keywords
from mt.backbones.networks.build import build
from mt.backbones.registry import REGISTRY
from tests.backbones.entries import weights_of

TOKENS = {"pooled": 1, "cls": 1, "mean": 1, "cls+mean": 2, "cls4": 4}
# Millions of parameters that rendeirolab/lazyslide-models lists beside each model (`param_size`), of both towers for
# MedSigLIP: a second source for the forms.
LISTED = {
    "uni": 303.4,
    "uni2-h": 681.4,
    "virchow": 631.2,
    "virchow2": 631.2,
    "h-optimus-0": 1130,
    "h-optimus-1": 1130,
    "h0-mini": 85.7,
    "gigapath": 1130,
    "phikon": 85.8,
    "phikon-v2": 303.4,
    "midnight": 1140,
}


def built(name: str) -> nn.Module:
    """Build an entry's image tower on the meta device: no weights, no memory."""
    spec, form = FOUNDATION[name], FORMS[name]
    arguments = dict(form.arguments or {})
    with torch.device("meta"):
        if spec.network.startswith(HF):
            return transformers_network(form.architecture, arguments)
        if spec.network.startswith(OPEN_CLIP):
            return open_clip_tower(form.architecture)
        keywords = {key: value for key, value in timm_keywords(spec, None).items() if value is not None}
        network: nn.Module = timm.create_model(form.architecture, num_classes=0, **{**arguments, **keywords})
        return network


def transformers_network(architecture: str, arguments: dict[str, Any]) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    config = transformers.AutoConfig.for_model(architecture, **arguments)
    kind = {"dinov2": "Dinov2Model", "vit": "ViTModel", "siglip_vision_model": "SiglipVisionModel"}[architecture]
    options = {"add_pooling_layer": False} if kind == "ViTModel" else {}
    network: nn.Module = getattr(transformers, kind)(config, **options)
    return network


def open_clip_tower(architecture: str) -> nn.Module:
    open_clip = pytest.importorskip("open_clip")
    model = open_clip.get_model_config(architecture) or {
        "embed_dim": 512,
        "quick_gelu": False,
        "vision_cfg": {
            "timm_model_name": "vit_base_patch16_224",
            "timm_model_pretrained": False,
            "timm_pool": "",
            "timm_proj": "linear",
            "image_size": 224,
        },
    }
    tower: nn.Module = open_clip.model._build_vision_tower(
        model["embed_dim"], model["vision_cfg"], bool(model.get("quick_gelu"))
    )
    return tower


@pytest.mark.parametrize("name", FORMS)
def test_a_network_without_weights_is_what_its_entry_says(name: str) -> None:
    form, network = FORMS[name], built(name)
    # transformers 5.4 has SigLIP's towers in a module of that name; later versions do not.
    state = {key.removeprefix("vision_model."): value for key, value in network.state_dict().items()}
    for tensor, shape in form.tensors().items():
        assert tuple(state[tensor].shape) == shape, tensor
    assert sum(parameter.numel() for parameter in network.parameters()) == form.parameters
    numbers = {int(found[1]) for key in state if (found := re.search(r"(?:blocks|layers?|resblocks)\.(\d+)\.", key))}
    assert numbers == set(range(form.depth))
    assert any(re.search(r"ls1\.gamma|layer_scale1", key) for key in state) == form.layer_scale
    assert any("reg_token" in key for key in state) == bool(form.registers)


@pytest.mark.parametrize("name", FORMS)
def test_the_width_follows_from_form_and_rule(name: str) -> None:
    spec, form = FOUNDATION[name], FORMS[name]
    width = {"open_clip": spec.dim}.get((loader_of(spec.network) or "").strip(":"), form.width)
    assert width is not None
    assert spec.dim == width * TOKENS[spec.embedding]


@pytest.mark.parametrize("name", LISTED)
def test_a_second_source_lists_as_many_parameters(name: str) -> None:
    assert FORMS[name].parameters / 1e6 == pytest.approx(LISTED[name], rel=0.006)


def test_every_entry_has_a_form_or_a_network_of_ours() -> None:
    for name, spec in (REGISTRY | FOUNDATION).items():
        assert (name in FORMS) == (spec.weights is None)
        assert parameters_of(name, spec.network)


@pytest.mark.parametrize("name", [name for name, spec in FOUNDATION.items() if spec.weights is not None])
def test_published_files_hold_the_tensors_of_our_network(name: str) -> None:
    """RETFound's are MAE's, whose encoder is timm's ViT; RadImageNet's are the numbered children of a ResNet-50."""
    spec = FOUNDATION[name]
    with torch.device("meta"):
        if spec.network == "resnet50":
            children = nn.Sequential(*list(torchvision.models.resnet50().children())[:9])
            published = {f"backbone.{key}": one for key, one in children.state_dict().items()}
        else:
            published = dict(timm.create_model("vit_large_patch16_224", num_classes=0).state_dict())
            published |= {"mask_token": torch.empty(1, 1, 512), "decoder_pred.bias": torch.empty(768)}
    network = build(spec.network, spec.embedding).state_dict()
    layout = weights_of(name).layouts[0]
    kept = {
        layout.rename(key.removeprefix(layout.prefix)): tuple(one.shape)
        for key, one in published.items()
        if not (layout.drop and key.startswith(layout.drop))
    }
    assert kept == {key: tuple(one.shape) for key, one in network.items()}
    widths = {"blocks.0.attn.proj.weight": 1024, "layer4.2.conv3.weight": 2048}
    assert {spec.dim} == {shape[0] for key, shape in kept.items() if key in widths}


@pytest.mark.parametrize("network", OWN)
def test_our_own_networks_have_as_many_parameters_as_is_said(network: str) -> None:
    assert sum(parameter.numel() for parameter in build(network, "cls1").parameters()) == OWN[network]
