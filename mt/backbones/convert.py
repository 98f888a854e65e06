"""Keep only a checkpoint's tensors, as safetensors: `mt models convert FILE [OUT]`, run knowingly, once.

For files that `mt` refuses because they hold objects beside tensors.  Nothing in the file is run: every such object
is replaced by an empty stand-in, named on stderr, and omitted from the result.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mt.errors import WeightsError
from mt.system import files
from mt.terminal.progress import note


def convert(file: Path, out: Path | None = None) -> Path:
    """Write the tensors of a torch checkpoint to a .safetensors file, nested names joined by dots; return its path.

    Lists and dictionaries with numbers as keys (the states of optimizers) are omitted.

    Raises:
        WeightsError: the file is absent or damaged, or torch's restricted unpickler refuses what it would execute.
    """
    from safetensors.torch import save_file

    from mt.backbones.checkpoints import read_checkpoint, unknown_objects
    from mt.backbones.weights import converted_path

    if not file.is_file():
        raise WeightsError(f"No weights at {file}. Expected a checkpoint: mt models convert FILE")
    objects = unknown_objects(file)
    tensors = dict(_tensors(read_checkpoint(file, also_ignore=objects)))
    for name in objects:
        note(f"Omitted: {name}")
    out = out or converted_path(file)
    with files.whole(out) as aside:
        save_file(tensors, aside)
    return out


def _tensors(content: Mapping[Any, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    import torch

    for key, value in content.items():
        if isinstance(value, torch.Tensor) and isinstance(key, str):
            yield f"{path}{key}", value.detach().clone().contiguous()
        elif isinstance(value, Mapping) and isinstance(key, str):
            yield from _tensors(value, f"{path}{key}.")
