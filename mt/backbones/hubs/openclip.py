"""Image towers of open_clip as backbones: from a repository of the hub, by name and tag, or from a local folder.

The embedding is the image embedding before its L2 normalisation.  The text tower is never built.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mt.backbones.checkpoints import read_checkpoint
from mt.backbones.entries.spec import OPEN_CLIP, BackboneSpec
from mt.backbones.hubs.repository import PublishedFiles, Wanted, library, published_files
from mt.backbones.layouts import split_pick
from mt.backbones.networks.build import random_state
from mt.backbones.networks.frozen import FrozenNetwork, freeze, sha256_of
from mt.backbones.networks.tokens import N_LAST, TokenNetwork
from mt.backbones.preprocess import Preprocess
from mt.backbones.states import State, find_state
from mt.backbones.weights import RANDOM, find
from mt.cache.names import digest
from mt.errors import InputError, WeightsError, unknown

_HUB, _FOLDER = "hf-hub:", "local-dir:"
_CONFIG = ("open_clip_config.json",)
# open_clip's order of preference (open_clip.factory, `_find_checkpoint_in_dir`).
_WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
    "model.safetensors",
    "pytorch_model.bin",
)
_POSITIONS = "visual.positional_embedding"
# What stands beside the image tower in a checkpoint of both towers.
_TEXT = (
    "text",
    "transformer",
    "token_embedding",
    "positional_embedding",
    "text_projection",
    "ln_final",
    "logit_scale",
    "logit_bias",
    "text_decoder",
)


@dataclass(frozen=True)
class Tower:
    """What builds and fills an image tower: open_clip's model and preprocessing configurations, and the weights."""

    model: Mapping[str, Any]
    preprocess: Mapping[str, Any]
    files: PublishedFiles | None
    weights: Path | None

    def architecture(self) -> str:
        """Return what the fingerprint calls the network: the hash of all that builds it."""
        parts = {key: self.model.get(key) for key in ("embed_dim", "vision_cfg", "quick_gelu")}
        return f"{OPEN_CLIP}{digest(parts)}"


def load_open_clip(spec: BackboneSpec, weights: str | Path | None, image_size: int | None) -> FrozenNetwork:
    """Build an image tower of open_clip, filled from where its name points, from a file, or at random.

    Raises:
        InputError: no such model or tag, or a rule or preprocessing that does not fit.
        WeightsError: the files cannot be had or do not fit.
        MissingExtraError: open_clip is not installed.
    """
    library("open_clip", f"'{spec.name}'")
    tower = _described(spec, filled=weights is None)
    network = _built(tower, image_size)
    file = tower.weights if weights is None else None
    if weights == RANDOM:
        network.load_state_dict(random_state(network, tower.architecture()))
    else:
        file = file or find(None, weights)
        assert file is not None
        pick = None if weights is None else split_pick(weights)[1]
        network.load_state_dict(_state(network, file, pick))
    preprocess = (spec.preprocess or _preprocess(network, tower, spec)).at_size(image_size)
    embedded = OpenClipNetwork(freeze(network), spec.embedding)
    with torch.inference_mode():
        dim = embedded.check(torch.zeros(1, 3, preprocess.crop, preprocess.crop), spec.name)
    files = tower.files
    return FrozenNetwork(
        embedded,
        preprocess,
        dim,
        sha256_of(network.state_dict()),
        file,
        tower.architecture(),
        None if files is None else files.origin(),
        () if files is None else files.watched,
    )


class OpenClipNetwork(TokenNetwork):
    """An image tower of open_clip with an embedding rule; `pooled` is its embedding in the space shared with text."""

    def __init__(self, network: nn.Module, rule: str) -> None:
        inner = getattr(network, "trunk", network)
        is_own = hasattr(network, "class_embedding")
        has_class = is_own or getattr(inner, "cls_token", None) is not None
        n_prefix = 1 if is_own else int(getattr(inner, "num_prefix_tokens", 0))
        super().__init__(network, rule, has_class=has_class, n_prefix=n_prefix)

    def pooled(self, images: torch.Tensor) -> torch.Tensor | None:
        output: torch.Tensor = self.network(images)
        return output if output.dim() == 2 else None

    def tokens(self, images: torch.Tensor) -> torch.Tensor | None:
        layers = self._layers(images, 1)
        return None if layers is None else layers[-1]

    def class_tokens(self, images: torch.Tensor) -> list[torch.Tensor] | None:
        layers = self._layers(images, N_LAST) if self.has_class else None
        return None if layers is None else [tokens[:, 0] for tokens in layers]

    def _layers(self, images: torch.Tensor, last: int) -> list[torch.Tensor] | None:
        """Return the tokens (N, T, D) of the last blocks, each through the final norm; None for convolutions."""
        intermediates: Any = getattr(self.network, "forward_intermediates", None)
        if intermediates is None or not (self.has_class or hasattr(getattr(self.network, "trunk", None), "blocks")):
            return None
        found = intermediates(
            images,
            indices=last,
            normalize_intermediates=True,
            intermediates_only=True,
            output_fmt="NLC",
            output_extra_tokens=True,
        )
        patches = found["image_intermediates"]
        prefixes = found.get("image_intermediates_prefix") or [patch[:, :0] for patch in patches]
        return [torch.cat(pair, dim=1) for pair in zip(prefixes, patches, strict=True)]


def _described(spec: BackboneSpec, *, filled: bool) -> Tower:
    """Return what the name points to; `filled` says whether its weights are wanted too."""
    place = spec.network.removeprefix(OPEN_CLIP)
    if not place.startswith((_HUB, _FOLDER)):
        return _listed(spec, place, filled=filled)
    where = place.removeprefix(_HUB)
    if place.startswith(_FOLDER):
        where = str(Path(place.removeprefix(_FOLDER)).expanduser().absolute())
    files = published_files(where, Wanted(_CONFIG, weights=_WEIGHTS if filled else ()), name=spec.name)
    path = files.path / _CONFIG[0]
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        return Tower(config["model_cfg"], config.get("preprocess_cfg") or {}, files, files.file(_WEIGHTS))
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{path} is not a configuration of open_clip: expected JSON with a 'model_cfg'.") from error


def _listed(spec: BackboneSpec, place: str, *, filled: bool) -> Tower:
    """Return one of open_clip's own models, NAME/TAG; TAG is required only if its weights are wanted (`filled`)."""
    library_ = library("open_clip", f"'{spec.name}'")
    name, _, tag = place.rpartition("/")
    name, tag = (name, tag) if name else (tag, "")
    model = library_.get_model_config(name)
    if model is None:
        raise unknown("backbone", spec.name, [f"{OPEN_CLIP}{one}" for one in library_.list_models()], see="mt models")
    tags = library_.list_pretrained_tags_by_model(name)
    if not filled:
        return Tower(model, library_.get_pretrained_cfg(name, tag) if tag else {}, None, None)
    published = library_.get_pretrained_cfg(name, tag) if tag else None
    if not published:
        known = f"takes one of {', '.join(tags)}" if tags else "has no published weights: pass --weights FILE"
        raise InputError(f"'{spec.name}' names no weights: {OPEN_CLIP}{name}/TAG {known}.")
    if bool(published.get("quick_gelu")) != bool(model.get("quick_gelu")):
        other = f"{name}-quickgelu" if published.get("quick_gelu") else name.removesuffix("-quickgelu")
        raise InputError(
            f"The weights '{tag}' were trained with {'Quick' if published.get('quick_gelu') else 'exact '}GELU, and "
            f"'{name}' computes the other. Use {OPEN_CLIP}{other}/{tag}."
        )
    return _fetched(Tower(model, published, None, None), published, spec)


def _fetched(tower: Tower, published: Mapping[str, Any], spec: BackboneSpec) -> Tower:
    """Return the tower with the weights of a tag, from the hub or from their own address."""
    repository, _, file = str(published.get("hf_hub") or "").rpartition("/")
    if repository:
        names = (file, f"{file.rpartition('.')[0]}.safetensors")[::-1] if file else _WEIGHTS
        files = published_files(repository, Wanted(tuple(dict.fromkeys(names))), name=spec.name)
        return replace(tower, files=files, weights=files.files[0])
    try:
        path = library("open_clip", f"'{spec.name}'").download_pretrained(published)
    except Exception as error:  # urllib raises a dozen kinds here
        raise WeightsError(f"Could not get '{spec.name}' ({error}). It comes from {published.get('url')}.") from error
    file_path = Path(path)
    return replace(tower, files=PublishedFiles(file_path.parent, (file_path,)), weights=file_path)


def _built(tower: Tower, image_size: int | None) -> nn.Module:
    """Return the image tower alone, without weights; a pretrained trunk is not fetched, since all is filled later."""
    towers = library("open_clip.model", "this backbone")
    vision = {**tower.model["vision_cfg"], "timm_model_pretrained": False}
    if image_size is not None and "timm_model_name" not in vision:
        vision["image_size"] = image_size
    network: nn.Module = towers._build_vision_tower(
        tower.model["embed_dim"], vision, bool(tower.model.get("quick_gelu"))
    )
    if image_size is not None and hasattr(network, "trunk"):
        network.set_input_size(image_size)  # type: ignore[operator]
    if hasattr(network, "output_tokens"):
        network.output_tokens = False  # type: ignore[assignment]
    return network


def _state(network: nn.Module, file: Path, pick: str | None) -> State:
    """Return the image tower's state, its position embeddings resampled as open_clip and timm do."""

    def adapt(state: State) -> State:
        wanted = network.state_dict()
        if all(state[name].shape == wanted[name].shape for name in state):
            return state
        if hasattr(network, "trunk"):
            resample = library("timm.models.vision_transformer", "this backbone").checkpoint_filter_fn
            inner = {name.removeprefix("trunk."): value for name, value in state.items() if name.startswith("trunk.")}
            return state | {f"trunk.{name}": value for name, value in resample(inner, network.trunk).items()}
        holder = nn.Module()
        holder.visual = network
        whole = {f"visual.{name}": value for name, value in state.items()}
        library("open_clip.model", "this backbone").resize_pos_embed(whole, holder)
        return {name.removeprefix("visual."): value for name, value in whole.items()}

    return find_state(read_checkpoint(file), network.state_dict(), file, pick=pick, drop=_TEXT, adapt=adapt)


def _preprocess(network: nn.Module, tower: Tower, spec: BackboneSpec) -> Preprocess:
    """Return open_clip's evaluation transform (open_clip.transform, `image_transform`) at the model's own size.

    Raises:
        InputError: a resize mode that `Preprocess` does not have.
    """
    transform = library("open_clip.transform", "this backbone")
    said = transform.merge_preprocess_dict(asdict(transform.PreprocessCfg()), dict(tower.preprocess))
    size = tower.model["vision_cfg"].get("image_size", getattr(network, "image_size", 224))
    sides = {size} if isinstance(size, int) else set(size)
    mode = said["resize_mode"] or "shortest"
    if len(sides) != 1 or mode not in ("shortest", "squash"):
        raise InputError(
            f"'{spec.name}' is resized by '{mode}' to {size}: expected 'shortest' or 'squash' to a square. Wrap the "
            "model yourself: --model module:FILE.py:FUNCTION"
        )
    side = sides.pop()
    mean, std = (
        (value,) * 3 if isinstance(value, float | int) else tuple(value) for value in (said["mean"], said["std"])
    )
    interpolation = "bilinear" if said["interpolation"] == "bilinear" else "bicubic"
    return Preprocess(side, side, interpolation, mean, std, squash=mode == "squash")  # type: ignore[arg-type]
