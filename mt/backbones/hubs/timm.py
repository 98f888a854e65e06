"""Any of timm's networks as a backbone: by name, from a repository of the hub, or from a folder of the hub's form."""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mt.backbones.checkpoints import read_checkpoint
from mt.backbones.embeddings import POOLED
from mt.backbones.entries.spec import HF, OPEN_CLIP, TIMM, BackboneSpec
from mt.backbones.hubs.repository import PublishedFiles, Wanted, published_files
from mt.backbones.layouts import split_pick
from mt.backbones.networks.build import random_state
from mt.backbones.networks.frozen import FrozenNetwork, freeze, sha256_of
from mt.backbones.networks.tokens import N_LAST, TokenNetwork
from mt.backbones.preprocess import Preprocess
from mt.backbones.states import State, find_state
from mt.backbones.weights import OFFLINE, RANDOM, find
from mt.errors import InputError, WeightsError, unknown

_HUB = "hf-hub:"
_FOLDER = "local-dir:"
_CONFIG = ("config.json",)
_HUB_FILES = ("model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors", "open_clip_pytorch_model.bin")
_FOLDER_FILES = (  # timm.models._hub, `_PREFERRED_FILES`
    "model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.pth",
    "model.pth",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
)
POSITIONS = ("pos_embed", "pos_embed_win", "position_embedding")  # what timm resamples to another image size


def load_timm(spec: BackboneSpec, weights: str | Path | None, image_size: int | None) -> FrozenNetwork:
    """Build a timm network with its embedding rule, filled from a file, at random, or by timm from its hub.

    The hub's token for gated weights comes from the environment (`HF_TOKEN`), or from `hf auth login`.

    Raises:
        InputError: timm has no such network, its recipe is not a centred square, or the rule does not fit.
        WeightsError: the weights cannot be had or do not fit.
    """
    files = _from_hub(spec, filled=weights is None) if spec.network.startswith(_HUB) else None
    network = _create(spec, files, image_size, pretrained=weights is None)
    recipe: Mapping[str, Any] = network.pretrained_cfg
    file: Path | None = None
    if weights is None and files is not None:
        file = files.file(_FOLDER_FILES)
    elif weights is None:
        file = _folder_file(spec) if spec.network.startswith(_FOLDER) else _hub_file(recipe)
    elif weights == RANDOM:
        network.load_state_dict(random_state(network, spec.network))
    else:
        file = find(None, weights)
        assert file is not None
        network.load_state_dict(_from_file(network, file, split_pick(weights)[1]))
    preprocess = (spec.preprocess or preprocess_of(spec, recipe)).at_size(image_size)
    embedded = TimmNetwork(freeze(network), spec.embedding)
    with torch.inference_mode():
        dim = embedded.check(torch.zeros(1, 3, preprocess.crop, preprocess.crop), spec.name)
    whole = network if spec.embedding == POOLED else embedded
    published = files or (_published(recipe, file) if weights is None and file else None)
    origin = {} if published is None else published.origin()
    if spec.keywords:
        origin["keywords"] = dict(spec.keywords)
    return FrozenNetwork(
        whole,
        preprocess,
        dim,
        sha256_of(network.state_dict()),
        file,
        _architecture(spec, recipe),
        origin or None,
        _reference(recipe, file) if files is None else files.watched,
    )


class TimmNetwork(TokenNetwork):
    """A network of timm with an embedding rule: `forward_features` gives its tokens where it has some."""

    def __init__(self, network: nn.Module, rule: str) -> None:
        n_prefix = int(getattr(network, "num_prefix_tokens", 0))
        has_class = n_prefix > 0 and getattr(network, "cls_token", None) is not None
        super().__init__(network, rule, has_class=has_class, n_prefix=n_prefix)

    def pooled(self, images: torch.Tensor) -> torch.Tensor | None:
        output: torch.Tensor = self.network(images)
        return output if output.dim() == 2 else None

    def tokens(self, images: torch.Tensor) -> torch.Tensor | None:
        features: torch.Tensor = self.network.forward_features(images)  # type: ignore[operator]
        return features if features.dim() == 3 else None

    def class_tokens(self, images: torch.Tensor) -> list[torch.Tensor] | None:
        intermediates: Any = getattr(self.network, "forward_intermediates", None)
        if intermediates is None or not self.has_class:
            return None
        layers = intermediates(
            images, indices=N_LAST, return_prefix_tokens=True, norm=True, output_fmt="NLC", intermediates_only=True
        )
        return [prefix[:, 0] for _, prefix in layers]


def _architecture(spec: BackboneSpec, recipe: Mapping[str, Any]) -> str | None:
    """Return what the fingerprint calls a repository's network, or a folder's, which has no name; else None."""
    if spec.network.startswith(_HUB):  # the files' origin gives the revision
        return spec.network.partition("@")[0]
    if not spec.network.startswith(_FOLDER):
        return None
    config = Path(spec.network.removeprefix(_FOLDER)).expanduser() / "config.json"
    return f"{_FOLDER}{recipe.get('architecture')}:{hashlib.sha256(config.read_bytes()).hexdigest()}"


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
        resize=math.floor(height / recipe["crop_pct"]),
        crop=height,
        interpolation=interpolation,
        mean=tuple(recipe["mean"]),
        std=tuple(recipe["std"]),
        squash=mode == "squash",
    )


def _from_hub(spec: BackboneSpec, *, filled: bool) -> PublishedFiles:
    """Return the files of a repository of the hub, with its weights if `filled`.

    Raises:
        WeightsError: they cannot be had, or are in another library's form; one line says why.
    """
    wanted = Wanted(_CONFIG, weights=_FOLDER_FILES if filled else ())
    try:
        return published_files(spec.network.removeprefix(_HUB), wanted, name=spec.name)
    except WeightsError as error:
        other = _other_form(spec)
        if other is None:
            raise
        raise WeightsError(f"'{spec.name}' is not in timm's form. Use --model {other}.") from error


def _create(spec: BackboneSpec, files: PublishedFiles | None, image_size: int | None, *, pretrained: bool) -> Any:
    """Return the network without its classifier; timm resamples a transformer's positions to `image_size`.

    `files` are those of a repository of the hub, which timm reads as a folder.
    """
    import timm

    name = spec.network
    if files is not None:
        name = _FOLDER + str(files.path)
    elif name.startswith(_FOLDER):
        name = _FOLDER + str(_folder(spec))
    else:
        known = timm.list_pretrained() if "." in name else timm.list_models()
        if name not in known:
            raise unknown("backbone", spec.name, [f"timm:{one}" for one in known], see="https://huggingface.co/timm")
    try:
        keywords = timm_keywords(spec, image_size)
        try:
            network: Any = timm.create_model(name, pretrained=pretrained, num_classes=0, **keywords)
        except TypeError:  # convolutional networks take any size, and no `img_size`
            if spec.keywords:
                raise
            network = timm.create_model(name, pretrained=pretrained, num_classes=0)
    except Exception as error:  # the hub's client, torch and timm raise dozens of kinds here
        raise _unavailable(spec, error) from error
    if pretrained and not any(network.pretrained_cfg.get(source) for source in ("url", "hf_hub_id", "file")):
        raise WeightsError(f"timm has no weights for '{spec.name}'. Pass --weights FILE, or choose a tag: NAME.TAG.")
    return network


def _other_form(spec: BackboneSpec) -> str | None:
    """Return the name under which another library loads a repository or folder, from its files that are here."""
    hub = spec.network.startswith(_HUB)
    if not hub and not spec.network.startswith(_FOLDER):
        return None
    place = spec.network.removeprefix(_HUB).removeprefix(_FOLDER)
    if _config_here(place, "open_clip_config.json", hub=hub) is not None:
        return f"{OPEN_CLIP}{spec.network}"
    config = _config_here(place, "config.json", hub=hub)
    return f"{HF}{place}" if config is not None and "model_type" in config and "architecture" not in config else None


def _config_here(place: str, name: str, *, hub: bool) -> Mapping[str, Any] | None:
    """Return a configuration of a folder or of the hub's cache, None where it is not there."""
    from huggingface_hub import try_to_load_from_cache

    repository, _, revision = place.partition("@")
    found = try_to_load_from_cache(repository, name, revision=revision or None) if hub else Path(place) / name
    try:
        content = json.loads(Path(found).expanduser().read_text(encoding="utf-8"))  # type: ignore[arg-type]
    except (OSError, ValueError, TypeError):
        return None
    return content if isinstance(content, Mapping) else None


def timm_keywords(spec: BackboneSpec, image_size: int | None) -> dict[str, Any]:
    """Return what timm builds an entry's network with: names of layers as layers, and the image size asked for."""
    import timm.layers

    layers = {
        key: getattr(timm.layers, value, None) or getattr(nn, value)
        for key, value in spec.keywords
        if key.endswith("_layer")
    }
    size = {} if image_size is None else {"img_size": image_size}
    return {"img_size": None} | dict(spec.keywords) | layers | size


def _folder(spec: BackboneSpec) -> Path:
    """Return the folder that a `local-dir:` name means.

    Raises:
        WeightsError: it is not there, or holds no model of timm's.
    """
    folder = Path(spec.network.removeprefix(_FOLDER)).expanduser()
    if not (folder / "config.json").is_file():
        other = _other_form(spec)
        if other is not None:
            raise WeightsError(f"'{spec.name}' is not in timm's form. Use --model {other}.")
        raise WeightsError(f"No config.json in {folder}. '{TIMM}{_FOLDER}PATH' takes a folder of the hub's form.")
    return folder


def _unavailable(spec: BackboneSpec, error: Exception) -> WeightsError:
    other = _other_form(spec)
    if other is not None:
        return WeightsError(f"'{spec.name}' is not in timm's form. Use --model {other}.")
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
    """Return the file in the hub's local cache that timm has just loaded; a rerun checks that it is unchanged."""
    from huggingface_hub import try_to_load_from_cache

    repository, _, revision = str(recipe.get("hf_hub_id") or "").partition("@")
    for name in (recipe.get("hf_hub_filename"), *_HUB_FILES):
        found = try_to_load_from_cache(repository, name, revision=revision or None) if repository and name else None
        if isinstance(found, str):
            return Path(found)
    return None


def _published(recipe: Mapping[str, Any], file: Path) -> PublishedFiles:
    """Return the file that timm has just loaded, with its repository and revision where it is in the hub's cache."""
    repository = str(recipe.get("hf_hub_id") or "").partition("@")[0]
    if not repository or file.parent.parent.name != "snapshots":
        return PublishedFiles(file.parent, (file,))
    return PublishedFiles(file.parent, (file,), repository, file.parent.name)


def _reference(recipe: Mapping[str, Any], file: Path | None) -> tuple[Path, ...]:
    """Return the file in which the hub's cache keeps the revision of a branch: it changes when the branch moves on."""
    if file is None or not recipe.get("hf_hub_id") or file.parent.parent.name != "snapshots":
        return ()
    branch = str(recipe["hf_hub_id"]).partition("@")[2] or "main"
    reference = file.parent.parent.parent / "refs" / branch
    return (reference,) if reference.is_file() else ()


def _folder_file(spec: BackboneSpec) -> Path | None:
    """Return the weights' file of a local folder that timm has just loaded, in timm's order of preference."""
    folder = _folder(spec)
    files = [folder / name for name in _FOLDER_FILES]
    for ending in (".safetensors", ".pth", ".pth.tar", ".bin"):
        files += sorted(folder.glob(f"*{ending}"))
    return next((file for file in files if file.is_file()), None)
