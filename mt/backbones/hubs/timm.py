"""Any of timm's networks as a backbone: `timm:NAME`, and `timm:hf-hub:ORG/NAME` for what medical groups publish."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mt.backbones.checkpoints import read_checkpoint
from mt.backbones.layouts import split_pick
from mt.backbones.networks.build import random_state
from mt.backbones.networks.frozen import FrozenNetwork, freeze, sha256_of
from mt.backbones.preprocess import Preprocess
from mt.backbones.registry import BackboneSpec
from mt.backbones.states import State, find_state
from mt.backbones.weights import OFFLINE, RANDOM, find
from mt.errors import InputError, WeightsError, unknown

_HUB = "hf-hub:"
_HUB_FILES = ("model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors", "open_clip_pytorch_model.bin")
POSITIONS = ("pos_embed", "pos_embed_win", "position_embedding")  # what timm resamples to another image size


def load_timm(spec: BackboneSpec, weights: str | Path | None, image_size: int | None) -> FrozenNetwork:
    """Build a timm network with its pooled features, filled from a file, at random, or by timm from its hub.

    The hub's token for gated weights comes from the environment (`HF_TOKEN`), or from `hf auth login`.

    Raises:
        InputError: timm has no such network, or its recipe is not a centred square.
        WeightsError: the weights cannot be had or do not fit.
    """
    network = _create(spec, image_size, pretrained=weights is None)
    recipe: Mapping[str, Any] = network.pretrained_cfg
    file: Path | None = None
    if weights is None:
        file = _hub_file(recipe)
    elif weights == RANDOM:
        network.load_state_dict(random_state(network, spec.network))
    else:
        file = find(None, weights)
        assert file is not None
        network.load_state_dict(_from_file(network, file, split_pick(weights)[1]))
    preprocess = preprocess_of(spec, recipe).at_size(image_size)
    freeze(network)
    with torch.inference_mode():
        features = network(torch.zeros(1, 3, preprocess.crop, preprocess.crop))
    if features.dim() != 2:
        raise InputError(f"'{spec.name}' has no pooled features: its output has shape {tuple(features.shape)}.")
    return FrozenNetwork(network, preprocess, features.shape[1], sha256_of(network.state_dict()), file)


def preprocess_of(spec: BackboneSpec, recipe: Mapping[str, Any]) -> Preprocess:
    """Return timm's evaluation transform for a network, from its published configuration.

    timm resizes to `floor(input / crop_pct)` (timm.data.transforms_factory, `transforms_imagenet_eval`).

    Raises:
        InputError: a recipe that this tool does not have: another crop mode, interpolation, or an oblong input.
    """
    channels, height, width = recipe["input_size"]
    mode, interpolation = recipe.get("crop_mode") or "center", recipe["interpolation"]
    square = channels == 3 and height == width
    if not square or mode not in ("center", "squash") or interpolation not in ("bilinear", "bicubic"):
        raise InputError(
            f"'{spec.name}' wants {channels} channels of {height}x{width}, {interpolation}, cropped by '{mode}': "
            "expected 3 channels, a square, bilinear or bicubic, cropped by 'center' or 'squash'. See: mt models"
        )
    return Preprocess(
        resize=math.floor(height / recipe["crop_pct"]), crop=height, interpolation=interpolation,
        mean=tuple(recipe["mean"]), std=tuple(recipe["std"]), squash=mode == "squash",
    )  # fmt: skip


def _create(spec: BackboneSpec, image_size: int | None, *, pretrained: bool) -> Any:
    """Return the network without its classifier; timm resamples a transformer's positions to `image_size`."""
    import timm

    name = spec.network
    if not name.startswith(_HUB):
        known = timm.list_pretrained() if "." in name else timm.list_models()
        if name not in known:
            raise unknown("backbone", spec.name, [f"timm:{one}" for one in known], see="https://huggingface.co/timm")
    try:
        try:
            network: Any = timm.create_model(name, pretrained=pretrained, num_classes=0, img_size=image_size)
        except TypeError:  # convolutional networks take any size, and no `img_size`
            network = timm.create_model(name, pretrained=pretrained, num_classes=0)
    except Exception as error:  # the hub's client, torch and timm raise dozens of kinds here
        raise _unavailable(spec, error) from error
    if pretrained and not any(network.pretrained_cfg.get(source) for source in ("url", "hf_hub_id", "file")):
        raise WeightsError(f"timm has no weights for '{spec.name}'. Pass --weights FILE, or choose a tag: NAME.TAG.")
    return network


def _unavailable(spec: BackboneSpec, error: Exception) -> WeightsError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    hub = spec.network.startswith(_HUB)
    gated = " If it is gated, accept its terms there and set HF_TOKEN." if hub else ""
    where = f"https://huggingface.co/{spec.network.removeprefix(_HUB)}" if hub else "https://huggingface.co/timm"
    return WeightsError(
        f"Could not get '{spec.name}' ({reason}). It is fetched from {where}.{gated} Without a network, fill the hub's "
        f"cache (HF_HOME) elsewhere and copy it here, or pass --weights FILE. {OFFLINE}"
    )


def _from_file(network: Any, file: Path, pick: str | None) -> State:
    """Return the state in a checkpoint with timm's names, its position embeddings resampled as timm does."""
    heads = network.pretrained_cfg.get("classifier") or ()
    drop = [head.split(".")[0] for head in ((heads,) if isinstance(heads, str) else heads)]
    module = sys.modules[type(network).__module__]
    filtered: Any = getattr(module, "checkpoint_filter_fn", None)

    def adapt(state: State) -> State:
        resampled = {name for name in state if name in POSITIONS and state[name].shape != wanted[name].shape}
        if not resampled or filtered is None:
            return state
        found: State = filtered({name: value.float() for name, value in state.items()}, network)
        return {**state, **{name: found[name] for name in resampled if name in found}}

    wanted: State = network.state_dict()
    return find_state(read_checkpoint(file), wanted, file, pick=pick, drop=drop, adapt=adapt)


def _hub_file(recipe: Mapping[str, Any]) -> Path | None:
    """Return the file in the hub's local cache that timm has just loaded, so that a rerun can see it unchanged."""
    from huggingface_hub import try_to_load_from_cache

    repository, _, revision = str(recipe.get("hf_hub_id") or "").partition("@")
    for name in (recipe.get("hf_hub_filename"), *_HUB_FILES):
        found = try_to_load_from_cache(repository, name, revision=revision or None) if repository and name else None
        if isinstance(found, str):
            return Path(found)
    return None
