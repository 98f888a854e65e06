"""The user's own backbone: `module:PATH.py:FUNCTION`, a function that returns network, preprocessing and width.

    def backbone():
        network = ...                                    # maps (N, 3, S, S) to embeddings (N, 512)
        return network, mt.Preprocess(resize=256, crop=224), 512

The text of the file and the network's state are part of the fingerprint.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mt.backbones.checkpoints import read_checkpoint
from mt.backbones.embeddings import POOLED, unfitting
from mt.backbones.entries.spec import MODULE, BackboneSpec
from mt.backbones.layouts import split_pick
from mt.backbones.networks.build import random_state
from mt.backbones.networks.frozen import FrozenNetwork, freeze, sha256_of
from mt.backbones.preprocess import Preprocess
from mt.backbones.states import find_state
from mt.backbones.weights import RANDOM, find
from mt.errors import InputError


def load_module(spec: BackboneSpec, weights: str | Path | None, image_size: int | None) -> FrozenNetwork:
    """Return what the user's function returns, frozen; `--weights` replaces the state that it set.

    Raises:
        InputError: no such file or function, an error in it, or a result of another form.
    """
    path, name = _place(spec)
    if spec.embedding != POOLED:
        raise unfitting(spec.name, spec.embedding, [POOLED])
    network, preprocess, dim = _called(spec, _function(spec, path, name))
    file = path
    if weights == RANDOM:
        network.load_state_dict(random_state(network, name))
    elif weights is not None:
        given = find(None, weights)
        assert given is not None
        file = given
        network.load_state_dict(find_state(read_checkpoint(given), network.state_dict(), given, pick=_pick(weights)))
    preprocess = preprocess.at_size(image_size)
    _check_output(spec, freeze(network), preprocess, dim)
    source = hashlib.sha256(path.read_bytes()).hexdigest()
    return FrozenNetwork(
        network,
        preprocess,
        dim,
        sha256_of(network.state_dict()),
        None if weights == RANDOM else file,
        f"{MODULE}{name}",
        {"source": source},
        (path,),
    )


def _place(spec: BackboneSpec) -> tuple[Path, str]:
    """Return the file and the function that the name means."""
    path, _, function = spec.network.removeprefix(MODULE).rpartition(":")
    if not path.endswith(".py") or not function.isidentifier():
        raise InputError(f"'{spec.name}' names no function: expected {MODULE}PATH.py:FUNCTION.")
    file = Path(path).expanduser().absolute()
    if not file.is_file():
        raise InputError(f"No file {file} for '{spec.name}'.")
    return file, function


def _function(spec: BackboneSpec, path: Path, name: str) -> Callable[[], Any]:
    """Return the function from the file, whose neighbours it may import."""
    module_spec = importlib.util.spec_from_file_location(f"_mt_user_{path.stem}", path)
    assert module_spec is not None
    assert module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    sys.path.insert(0, str(path.parent))
    try:
        module_spec.loader.exec_module(module)
    except Exception as error:  # the user's own code may raise anything
        raise _failed(spec, path, error) from error
    finally:
        sys.path.remove(str(path.parent))
    function = getattr(module, name, None)
    if not callable(function):
        raise InputError(f"{path} has no function '{name}'.")
    found: Callable[[], Any] = function
    return found


def _called(spec: BackboneSpec, function: Callable[[], Any]) -> tuple[nn.Module, Preprocess, int]:
    try:
        found = function()
    except Exception as error:  # the user's own code may raise anything
        raise _failed(spec, _place(spec)[0], error) from error
    kinds = (nn.Module, Preprocess, int)
    whole = isinstance(found, tuple) and len(found) == len(kinds)
    if not whole or not all(isinstance(one, kind) for one, kind in zip(found, kinds, strict=True)):
        names = ", ".join(type(one).__name__ for one in found) if isinstance(found, tuple) else type(found).__name__
        raise InputError(
            f"'{spec.name}' returned ({names}): expected a network (torch.nn.Module), its preprocessing "
            "(mt.Preprocess) and the width of its embedding (int)."
        )
    network, preprocess, dim = found
    return network, preprocess, dim


def _check_output(spec: BackboneSpec, network: nn.Module, preprocess: Preprocess, dim: int) -> None:
    image = torch.zeros(1, 3, preprocess.crop, preprocess.crop)
    try:
        with torch.inference_mode():
            output = network(image)
    except Exception as error:  # the user's own code may raise anything
        raise _failed(spec, _place(spec)[0], error) from error
    shape = tuple(getattr(output, "shape", ()))
    if shape != (1, dim):
        raise InputError(f"'{spec.name}' gives {shape or type(output).__name__} for one image: expected (1, {dim}).")


def _failed(spec: BackboneSpec, path: Path, error: Exception) -> InputError:
    line = (str(error).strip() or "no message").splitlines()[0]
    return InputError(f"'{spec.name}' failed in {path}: {type(error).__name__}: {line}")


def _pick(weights: str | Path) -> str | None:
    return split_pick(weights)[1]
