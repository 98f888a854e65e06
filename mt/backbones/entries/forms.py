"""The forms of the foundation models' published weights: the network that they fill, its size, and their tensors.

A form repeats the repository's configuration.  Sources: for pathology, the model cards and mahmoodlab/TRIDENT, which
loads these weights strictly (`patch_encoder_models/load.py`, `strict=True`); timm's and open_clip's configurations of
their own models; transformers' configurations of the networks that a card names.  The parameter counts agree with
those that rendeirolab/lazyslide-models lists; H0-mini's layer width is derived from its count.
Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Form:
    """A transformer as its weights are published.

    `architecture` and `arguments` build it in the library that the entry's name belongs to.  `positions` are the
    position embeddings (None: rotary, or not published), `hidden` the outputs of a block's first linear layer (None:
    the library renames it), `parameters` the image tower's.
    """

    architecture: str
    parameters: int
    width: int
    depth: int
    patch: int
    positions: int | None
    hidden: int | None
    registers: int = 0
    layer_scale: bool = False
    arguments: Mapping[str, Any] | None = None

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Return the names and shapes of tensors that only this form has."""
        naming = _NAMING.get(self.architecture, _NAMING["timm"])
        stem = (self.width, 3, self.patch, self.patch)
        said: dict[str, tuple[int, ...] | None] = {
            naming["patch"]: stem,
            naming["positions"]: None if self.positions is None else _positions(self, naming["positions"]),
            naming["registers"]: (1, self.registers, self.width) if self.registers else None,
            naming["scale"]: (self.width,) if self.layer_scale else None,
            naming["hidden"].format(self.depth - 1): None if self.hidden is None else (self.hidden, self.width),
        }
        return {name: shape for name, shape in said.items() if shape is not None and name}


def _positions(form: Form, name: str) -> tuple[int, ...]:
    assert form.positions is not None
    shape = (form.positions, form.width)
    return shape if name in ("positional_embedding", "embeddings.position_embedding.weight") else (1, *shape)


_TIMM = {
    "patch": "patch_embed.proj.weight",
    "positions": "pos_embed",
    "registers": "reg_token",
    "scale": "blocks.0.ls1.gamma",
    "hidden": "blocks.{}.mlp.fc1.weight",
}
_DINO = {
    "patch": "embeddings.patch_embeddings.projection.weight",
    "positions": "embeddings.position_embeddings",
    "registers": "",
    "scale": "encoder.layer.0.layer_scale1.lambda1",
    "hidden": "encoder.layer.{}.mlp.fc1.weight",
}
_CLIP = {
    "patch": "conv1.weight",
    "positions": "positional_embedding",
    "registers": "",
    "scale": "",
    "hidden": "transformer.resblocks.{}.mlp.c_fc.weight",
}
_SIGLIP = {
    "patch": "embeddings.patch_embedding.weight",
    "positions": "embeddings.position_embedding.weight",
    "registers": "",
    "scale": "",
    "hidden": "encoder.layers.{}.mlp.fc1.weight",
}
# How each library names the tensors; a network of timm's inside open_clip is its `trunk`.
_NAMING = {
    "timm": _TIMM,
    "dinov2": _DINO,
    "vit": _DINO,
    "siglip_vision_model": _SIGLIP,
    "ViT-B-32-quickgelu": _CLIP,
    "ViT-B-16-quickgelu": _CLIP,
    "ViT-L-14-quickgelu": _CLIP,
    "trunk": {key: f"trunk.{name}" if name else "" for key, name in _TIMM.items()},
}

_VIRCHOW = Form(
    "vit_huge_patch14_224",
    631_229_184,
    1280,
    32,
    14,
    257,
    6832,
    layer_scale=True,
    arguments={"init_values": 1e-5, "mlp_ratio": 5.3375, "global_pool": ""},
)
_H_OPTIMUS = Form(
    "vit_giant_patch14_reg4_dinov2",
    1_134_774_272,
    1536,
    40,
    14,
    256,
    8192,
    registers=4,
    layer_scale=True,
    arguments={"img_size": 224, "global_pool": "token"},
)
_DINOV2_B = Form("vit_base_patch14_dinov2", 86_579_712, 768, 12, 14, 1370, 3072, layer_scale=True)
_DINOV2_L = Form("vit_large_patch14_dinov2", 304_367_616, 1024, 24, 14, 1370, 4096, layer_scale=True)
_SIGLIP_SO400M = {
    "hidden_size": 1152,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "intermediate_size": 4304,
    "image_size": 448,
    "patch_size": 14,
}
_SIGLIP_L = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "image_size": 384,
}
_MIDNIGHT = {
    "hidden_size": 1536,
    "num_hidden_layers": 40,
    "num_attention_heads": 24,
    "use_swiglu_ffn": True,
    "image_size": 518,
}

FORMS: dict[str, Form] = {
    "dinov2-vitb14": _DINOV2_B,
    "dinov2-vitl14": _DINOV2_L,
    "dinov2-vits14-reg4": Form(
        "vit_small_patch14_reg4_dinov2", 22_057_344, 384, 12, 14, 1369, 1536, registers=4, layer_scale=True
    ),
    "dinov2-vitb14-reg4": replace(
        _DINOV2_B, architecture="vit_base_patch14_reg4_dinov2", parameters=86_582_016, positions=1369, registers=4
    ),
    "dinov2-vitl14-reg4": replace(
        _DINOV2_L, architecture="vit_large_patch14_reg4_dinov2", parameters=304_370_688, positions=1369, registers=4
    ),
    "dinov3-vits16": Form("vit_small_patch16_dinov3", 21_586_944, 384, 12, 16, None, 1536, registers=4),
    "dinov3-vitb16": Form("vit_base_patch16_dinov3", 85_641_216, 768, 12, 16, None, 3072, registers=4),
    "dinov3-vitl16": Form("vit_large_patch16_dinov3", 303_079_424, 1024, 24, 16, None, 4096, registers=4),
    "clip-vitb32": Form("ViT-B-32-quickgelu", 87_849_216, 768, 12, 32, 50, 3072),
    "clip-vitb16": Form("ViT-B-16-quickgelu", 86_192_640, 768, 12, 16, 197, 3072),
    "clip-vitl14": Form("ViT-L-14-quickgelu", 303_966_208, 1024, 24, 14, 257, 4096),
    "siglip2-base": Form("siglip_vision_model", 93_176_064, 768, 12, 16, 576, 3072, arguments={"image_size": 384}),
    "siglip2-large": Form("siglip_vision_model", 316_283_904, 1024, 24, 16, 576, 4096, arguments=_SIGLIP_L),
    "siglip2-so400m": Form(
        "siglip_vision_model", 428_225_600, 1152, 27, 14, 729, 4304, arguments={**_SIGLIP_SO400M, "image_size": 384}
    ),
    "uni": Form("vit_large_patch16_224", 303_350_784, 1024, 24, 16, 197, 4096, layer_scale=True),
    "uni2-h": Form("vit_giant_patch14_224", 681_394_176, 1536, 24, 14, 256, 8192, registers=8, layer_scale=True),
    "virchow": _VIRCHOW,
    "virchow2": replace(
        _VIRCHOW,
        parameters=631_239_424,
        positions=261,
        registers=4,
        arguments={**(_VIRCHOW.arguments or {}), "reg_tokens": 4},
    ),
    "h-optimus-0": _H_OPTIMUS,
    "h-optimus-1": _H_OPTIMUS,
    "h0-mini": Form(
        "vit_base_patch14_reg4_dinov2",
        85_739_520,
        768,
        12,
        14,
        256,
        4096,
        registers=4,
        layer_scale=True,
        arguments={"img_size": 224, "global_pool": "token", "mlp_ratio": 5.33334},
    ),
    "gigapath": Form(
        "vit_giant_patch14_dinov2",
        1_134_953_984,
        1536,
        40,
        16,
        197,
        8192,
        layer_scale=True,
        arguments={
            "img_size": 224,
            "patch_size": 16,
            "embed_dim": 1536,
            "depth": 40,
            "num_heads": 24,
            "mlp_ratio": 5.33334,
        },
    ),
    "phikon": Form("vit", 85_798_656, 768, 12, 16, 197, None),
    "phikon-v2": Form(
        "dinov2",
        303_228_928,
        1024,
        24,
        14,
        None,
        4096,
        layer_scale=True,
        arguments={"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "image_size": 224},
    ),
    "midnight": Form("dinov2", 1_136_480_768, 1536, 40, 14, None, None, layer_scale=True, arguments=_MIDNIGHT),
    "kaiko-vits16": Form("vit_small_patch16_224", 21_665_664, 384, 12, 16, 197, 1536),
    "kaiko-vits8": Form("vit_small_patch8_224", 21_670_272, 384, 12, 8, 785, 1536),
    "kaiko-vitb16": Form("vit_base_patch16_224", 85_798_656, 768, 12, 16, 197, 3072),
    "kaiko-vitb8": Form("vit_base_patch8_224", 85_807_872, 768, 12, 8, 785, 3072),
    "kaiko-vitl14": replace(
        _DINOV2_L, architecture="vit_large_patch14_reg4_dinov2", parameters=304_370_688, positions=1369, registers=4
    ),
    "rad-dino": Form("dinov2", 86_580_480, 768, 12, 14, 1370, 3072, layer_scale=True, arguments={"image_size": 518}),
    "medsiglip": Form("siglip_vision_model", 428_565_440, 1152, 27, 14, 1024, 4304, arguments=_SIGLIP_SO400M),
    "biomedclip": Form("trunk", 86_191_872, 768, 12, 16, 197, 3072),
}

# Parameters of our own networks, by what an entry calls its network.
OWN: dict[str, int] = {
    "resnet50": 23_508_032,
    "vit_small_patch16": 21_665_664,
    "vit_small_patch8": 21_670_272,
    "vit_base_patch16": 85_798_656,
    "vit_large_patch16": 303_301_632,
    "vit_small_patch14_dinov2": 22_056_192,
    "tf_efficientnet_lite0": 3_371_008,
    "tf_efficientnet_lite1": 4_135_680,
    "tf_efficientnet_lite2": 4_811_072,
}


def parameters_of(name: str, network: str) -> int | None:
    """Return the number of parameters of the entry `name`, which builds `network`; None if no form lists it."""
    form = FORMS.get(name)
    return OWN.get(network) if form is None else form.parameters
