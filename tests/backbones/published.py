"""Checkpoints in the forms in which their authors publish them, filled by the recipe of the golden outputs."""

from __future__ import annotations

import json
import sys
import types
from argparse import Namespace
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests import recipe

GOLDEN = Path(__file__).parents[1] / "data" / "golden"

# backbone -> the key list of its checkpoint, which is also the recipe's namespace
KEYS = {
    "supervised": "torchvision_resnet50",
    "supervised-v2": "torchvision_resnet50",
    "simclr": "simclr_vissl_resnet50",
    "simclr-bolts": "simclr_bolts_resnet50",
    "swav": "swav_resnet50",
    "dino": "dino_vits16",
    "dino:cls1": "dino_vits16",
    "dino-vits8": "dino_vits8",
    "dino-vits8:cls1": "dino_vits8",
    "dino-vitb16": "dino_vitb16",
    "dino-vitb16:cls1": "dino_vitb16",
    "dino-resnet50": "dino_resnet50",
    "mocov2": "mocov2_resnet50",
    "barlowtwins": "barlowtwins_resnet50",
    "vicreg": "vicreg_resnet50",
    "dinov2-vits14": "dinov2_vits14",
}


def key_list(name: str) -> dict[str, Any]:
    """Return the published form of a backbone's checkpoint: nesting, prefix, siblings, entries and their shapes."""
    content: dict[str, Any] = json.loads((GOLDEN / "keys" / f"{KEYS[name]}.json").read_text())
    return content


def network_state(name: str) -> dict[str, np.ndarray]:
    """Return the recipe's weights of a backbone's network under their bare keys; shared, not to be changed."""
    return _state_of(KEYS[name])


@lru_cache(maxsize=2)
def _state_of(keys: str) -> dict[str, np.ndarray]:
    form = json.loads((GOLDEN / "keys" / f"{keys}.json").read_text())
    prefix, drop = form["prefix"], tuple(key.removesuffix("*") for key in form.get("drop", ()))
    shapes = {
        key.removeprefix(prefix): shape
        for key, shape in form["entries"].items()
        if key.startswith(prefix) and not (drop and (key.startswith(drop) or key.removeprefix(prefix).startswith(drop)))
    }
    return recipe.state(keys, shapes)


def content(name: str) -> dict[str, Any]:
    """Return what the published file holds: every entry of the key list, nested, with its siblings."""
    form = key_list(name)
    bare = network_state(name)
    inner: dict[str, Any] = {}
    for key, shape in form["entries"].items():
        value = bare.get(key.removeprefix(form["prefix"]))
        dropped = np.full(shape, 7.0, np.float32)
        inner[key] = torch.from_numpy(dropped if value is None else value)
    for depth in reversed(range(len(form["nesting"]))):
        inner = {form["nesting"][depth]: inner}
        for sibling in form.get("siblings", {}).get(".".join(form["nesting"][:depth]), ()):
            inner.setdefault(sibling.split(" ")[0], _SIBLINGS.get(sibling, 3))
    return inner


# Other contents of such files: optimizer states with tensors, settings objects, numpy numbers.
_SIBLINGS: dict[str, Any] = {
    "optimizer": {"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]},
    "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(3)}}}],
    "heads": {"0.clf.0.weight": torch.ones(2, 2)},
    "meters": {"train": [np.float64(0.5)]},
    "losses": [np.float32(1.5)],
    "loss": {"args": Namespace(temperature=0.1)},
    "arch": "resnet50",
    "type": "checkpoint",
}


def write(name: str, folder: Path, suffix: str = ".pth", *, legacy: bool = False) -> Path:
    """Write a backbone's published checkpoint, with pickled Lightning objects where Lightning leaves them."""
    path = folder / f"{KEYS[name]}{suffix}"
    held = content(name)
    if name == "simclr-bolts":
        with_lightning(lambda lightning: torch.save(held | lightning, path))
    else:
        torch.save(held, path, _use_new_zipfile_serialization=not legacy)
    return path


def with_lightning(save: Any) -> None:
    """Call `save` with the objects that Lightning stores; their classes exist only during the call."""
    classes = {
        "pytorch_lightning.callbacks.model_checkpoint": ("ModelCheckpoint", (object,)),
        "pytorch_lightning.utilities.parsing": ("AttributeDict", (dict,)),
    }
    made, before = {}, dict(sys.modules)
    for module_name, (class_name, bases) in classes.items():
        for parent in accumulate(module_name.split("."), "{}.{}".format):
            sys.modules.setdefault(parent, types.ModuleType(parent))
        made[class_name] = type(class_name, bases, {"__module__": module_name})
        setattr(sys.modules[module_name], class_name, made[class_name])
    try:
        settings = made["AttributeDict"]({"arch": "resnet50", "gpus": 16})
        save({"callbacks": {made["ModelCheckpoint"]: {"best": 0.1}}, "hyper_parameters": settings})
    finally:
        for module_name in set(sys.modules) - set(before):
            if module_name.startswith("pytorch_lightning"):
                del sys.modules[module_name]
