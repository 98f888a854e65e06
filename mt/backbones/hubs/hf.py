"""Vision models of transformers as backbones: `hf:ORG/NAME` from the hub, `hf:PATH` from a folder.

Of models with two towers (CLIP, SigLIP) the vision tower is used.  A repository's code runs only if the caller named
that repository for it.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mt.backbones.checkpoints import read_checkpoint
from mt.backbones.entries.spec import HF, BackboneSpec
from mt.backbones.hubs.image_processor import preprocess_of_processor
from mt.backbones.hubs.remote_code import FLAG, with_code
from mt.backbones.hubs.repository import HUB, PublishedFiles, Wanted, library, published_files
from mt.backbones.layouts import split_pick
from mt.backbones.networks.build import random_state
from mt.backbones.networks.frozen import FrozenNetwork, freeze, sha256_of
from mt.backbones.networks.tokens import N_LAST, TokenNetwork
from mt.backbones.preprocess import Preprocess
from mt.backbones.states import find_state, some
from mt.backbones.weights import RANDOM, find
from mt.errors import InputError, WeightsError

_CONFIGS = ("config.json",)
_PROCESSORS = ("preprocessor_config.json", "processor_config.json")
_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_CLASS_TOKENS = ("cls_token", "class_embedding")
_FINAL_NORMS = ("layernorm", "post_layernorm", "norm")
_POOLER = "pooler."


def load_transformers(
    spec: BackboneSpec, weights: str | Path | None, image_size: int | None, trusted: Collection[str] = ()
) -> FrozenNetwork:
    """Build a vision model of transformers, filled from its repository or folder, from a file, or at random.

    `trusted` are the repositories, or folders, whose code may be run.

    Raises:
        InputError: the embedding rule or the published preprocessing does not fit.
        WeightsError: the files cannot be had, are another library's, or lack weights of the network.
        MissingExtraError: transformers is not installed.
    """
    place = spec.network.removeprefix(HF)
    with _quiet(library("transformers", f"'{spec.name}'").utils.logging):
        wanted = Wanted(_CONFIGS, _PROCESSORS, _WEIGHTS if weights is None else ())
        folder = published_files(place, wanted, name=spec.name)
        if place.partition("@")[0] in trusted:
            folder = with_code(folder, spec.name)
        return _loaded(spec, folder, weights, image_size)


def _loaded(
    spec: BackboneSpec, folder: PublishedFiles, weights: str | Path | None, image_size: int | None
) -> FrozenNetwork:
    config = _config(folder, spec)
    preprocess = (spec.preprocess or _published(folder, spec)).at_size(image_size)
    file: Path | None = None
    if weights is None:
        network = _pretrained(folder, spec, config)
        file = folder.file(_WEIGHTS)
    else:
        network = _tower(_transformers().AutoModel.from_config(config, trust_remote_code=bool(folder.code)))
        if weights == RANDOM:
            network.load_state_dict(random_state(network, config.model_type))
        else:
            file = find(None, weights)
            assert file is not None
            state = find_state(read_checkpoint(file), network.state_dict(), file, pick=split_pick(weights)[1])
            network.load_state_dict(state)
    embedded = TransformersNetwork(freeze(network), spec.embedding, preprocess.crop)
    with torch.inference_mode():
        dim = embedded.check(torch.zeros(1, 3, preprocess.crop, preprocess.crop), spec.name)
    return FrozenNetwork(
        embedded,
        preprocess,
        dim,
        sha256_of(network.state_dict()),
        file,
        f"{HF}{config.model_type}",
        folder.origin(),
        folder.watched,
    )


class TransformersNetwork(TokenNetwork):
    """A vision model of transformers with an embedding rule, for images of one size."""

    def __init__(self, network: nn.Module, rule: str, size: int) -> None:
        config: Any = network.config
        last = [name.rsplit(".", 1)[-1] for name, _ in network.named_parameters()]
        has_class = any(name in _CLASS_TOKENS for name in last)
        patch = getattr(config, "patch_size", None)
        registers = int(getattr(config, "num_register_tokens", 0) or 0)
        super().__init__(network, rule, has_class=has_class, n_prefix=has_class + registers)
        if "distillation_token" in last:
            self.n_prefix += 1
        takes = inspect.signature(network.forward).parameters
        other_size = isinstance(patch, int) and getattr(config, "image_size", size) != size
        self.how = {"interpolate_pos_encoding": True} if other_size and "interpolate_pos_encoding" in takes else {}
        self.norm = next((one for one in _FINAL_NORMS if isinstance(getattr(network, one, None), nn.Module)), None)

    def pooled(self, images: torch.Tensor) -> torch.Tensor | None:
        output = self.network(pixel_values=images, **self.how)
        if isinstance(output, torch.Tensor):  # of a repository's own code
            return output if output.dim() == 2 else None
        pooled: torch.Tensor | None = getattr(output, "pooler_output", None)
        return None if pooled is None else pooled.flatten(1)

    def tokens(self, images: torch.Tensor) -> torch.Tensor | None:
        output = self.network(pixel_values=images, **self.how)
        tokens = output if isinstance(output, torch.Tensor) else getattr(output, "last_hidden_state", None)
        return self._normed(tokens) if tokens is not None and tokens.dim() == 3 else None

    def class_tokens(self, images: torch.Tensor) -> list[torch.Tensor] | None:
        if self.norm is None or not self.has_class:
            return None
        output = self.network(pixel_values=images, output_hidden_states=True, **self.how)
        norm = getattr(self.network, self.norm)
        before = [norm(hidden)[:, 0] for hidden in output.hidden_states[-N_LAST:-1]]
        return [*before, self._normed(output.last_hidden_state)[:, 0]] if len(before) == N_LAST - 1 else None

    def _normed(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the last tokens through the final norm, which CLIP's tower leaves to its pooled output."""
        if getattr(self.network.config, "model_type", "").startswith("clip"):
            normed: torch.Tensor = self.network.post_layernorm(tokens)  # type: ignore[operator]
            return normed
        return tokens


def _config(folder: PublishedFiles, spec: BackboneSpec) -> Any:
    """Return the configuration, or the error that says which loader a repository of another library needs."""
    path = folder.path / _CONFIGS[0]
    try:
        plain: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WeightsError(f"{path} is not JSON. Fetch it again.") from error
    place = spec.network.removeprefix(HF)
    if "model_type" not in plain:
        timm = f"timm:local-dir:{place}" if folder.repository is None else f"timm:hf-hub:{place}"
        raise WeightsError(
            f"'{spec.name}' is in timm's form: --model {timm}"
            if "architecture" in plain
            else f"{path} is not a configuration of transformers: it has no model_type."
        )
    try:
        return _transformers().AutoConfig.from_pretrained(
            folder.path, local_files_only=True, trust_remote_code=bool(folder.code)
        )
    except Exception as error:  # an unknown type, or one that its repository defines
        raise _unbuildable(spec, folder, plain, error) from error


def _pretrained(folder: PublishedFiles, spec: BackboneSpec, config: Any) -> nn.Module:
    """Return the network with its weights; a pooler without weights in the files is removed, not left random."""
    try:
        model, found = _transformers().AutoModel.from_pretrained(
            folder.path,
            config=config,
            local_files_only=True,
            trust_remote_code=bool(folder.code),
            output_loading_info=True,
            dtype=torch.float32,
        )
    except Exception as error:  # transformers, safetensors and torch raise dozens of kinds here
        raise _unbuildable(spec, folder, config.to_dict(), error) from error
    network = _tower(model)
    prefix = "" if network is model else "vision_model."
    missing = {one.removeprefix(prefix) for one in found["missing_keys"] if one.startswith(prefix)}
    if any(one.startswith(_POOLER) for one in missing):
        network.pooler = None  # type: ignore[assignment]
    lacking = sorted(one for one in missing if not one.startswith(_POOLER) and one in network.state_dict())
    wrong = [str(one) for one in found.get("mismatched_keys", ())]
    if lacking or wrong:
        raise WeightsError(f"The weights of '{spec.name}' do not fit its config.json: {some([*lacking, *wrong])}.")
    return network


def _tower(model: nn.Module) -> nn.Module:
    """Return the part that sees images."""
    tower = getattr(model, "vision_model", None)
    return tower if isinstance(tower, nn.Module) else model


def _published(folder: PublishedFiles, spec: BackboneSpec) -> Preprocess:
    if folder.file(_PROCESSORS) is None:
        raise WeightsError(
            f"'{spec.name}' publishes no {_PROCESSORS[0]}, so its preprocessing is unknown. Wrap it yourself: "
            "--model module:FILE.py:FUNCTION"
        )
    try:
        processor = _transformers().AutoImageProcessor.from_pretrained(
            folder.path, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # an unknown processor, or one that its repository defines
        if folder.code:
            raise InputError(
                f"'{spec.name}' is preprocessed by code of its own, which mt cannot reproduce. Wrap the model "
                "yourself: --model module:FILE.py:FUNCTION"
            ) from error
        raise _unbuildable(spec, folder, {}, error) from error
    return preprocess_of_processor(processor, spec.name)


def _unbuildable(spec: BackboneSpec, folder: PublishedFiles, config: dict[str, Any], error: Exception) -> WeightsError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    if not folder.code and ("auto_map" in config or "trust_remote_code" in str(error)):
        place = spec.network.removeprefix(HF).partition("@")[0]
        where = folder.path if folder.repository is None else f"{HUB}/{folder.repository}"
        return WeightsError(
            f"'{spec.name}' needs code from its repository, which mt does not run unasked. Read it at {where}, then "
            f"allow it in mt featurize and mt predict: {FLAG} {place}. Or wrap it: --model module:FILE.py:FUNCTION"
        )
    return WeightsError(f"transformers cannot build '{spec.name}': {reason}")


@contextmanager
def _quiet(log: Any) -> Iterator[None]:
    """Silence transformers' progress bars and load reports: missing and unfitting weights raise an error here."""
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()


def _transformers() -> Any:
    return library("transformers", "this backbone")
