"""Reading checkpoints as published: without running what is in them, and strictly into the network they are for."""

from __future__ import annotations

import io
import pickle
import pickletools
import shlex
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import torch

from mt.backbones.layouts import Layout
from mt.errors import WeightsError

State = dict[str, torch.Tensor]
_COUNTER = "num_batches_tracked"  # bookkeeping of batch norms: old files lack it, and evaluation never reads it
_SHOWN = 3
_LEGACY_PICKLES = 5  # torch files before 1.6: magic number, protocol, system, content, keys of the storages


class Ignored:
    """Stands in for an object of a checkpoint that is no tensor: takes what pickle hands over and keeps nothing."""

    def __new__(cls, *args: object) -> Ignored:
        return super().__new__(cls)

    def __init__(self, *args: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...


class IgnoredMapping:
    """Stands in for a subclass of dict: torch's restricted unpickler fills plain dictionaries only."""

    def __new__(cls, *args: object) -> dict[Any, Any]:  # type: ignore[misc]
        return {}


# What published checkpoints hold beside tensors.  None of these is imported or called: a stand-in takes its place.
_OBJECTS = (
    "argparse.Namespace", "pathlib.PosixPath", "typing.Any",
    "numpy.dtype", "numpy.ndarray", "numpy.dtypes.Float64DType", "numpy.dtypes.Float32DType",
    "numpy.dtypes.Int64DType",
    "numpy.core.multiarray.scalar", "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar", "numpy._core.multiarray._reconstruct",
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "pytorch_lightning.callbacks.early_stopping.EarlyStopping",
    "pytorch_lightning.callbacks.lr_monitor.LearningRateMonitor",
    "omegaconf.base.ContainerMetadata", "omegaconf.base.Metadata", "omegaconf.nodes.AnyNode",
    "omegaconf.dictconfig.DictConfig", "omegaconf.listconfig.ListConfig",
)  # fmt: skip
_MAPPINGS = (
    "collections.defaultdict", "pytorch_lightning.utilities.parsing.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict", "vissl.utils.hydra_config.AttrDict",
)  # fmt: skip


def read_checkpoint(path: Path, *, also_ignore: Sequence[str] = ()) -> dict[str, Any]:
    """Return what a .safetensors or torch file holds, tensors on the CPU, other objects as stand-ins.

    No code in the file is run.  `also_ignore` names further objects to put stand-ins for.

    Raises:
        WeightsError: the file is damaged or no checkpoint, or holds objects that are not on the list above.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path))
        content = _read_pickled(path, also_ignore)
    except FileNotFoundError as error:
        raise WeightsError(f"No weights at {path}.") from error
    except pickle.UnpicklingError as error:
        raise _refusal(path, error) from error
    except (MemoryError, PermissionError):
        raise
    except Exception as error:  # a broken file makes torch, zipfile and safetensors raise a dozen kinds
        raise _damaged(path, str(error).splitlines()[0] if str(error) else type(error).__name__) from error
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path} holds a {type(content).__name__}; expected a dictionary of tensors.")
    return dict(content)


def check_whole(path: Path) -> None:
    """Raise WeightsError if a file is damaged or no checkpoint; one that is refused for its objects is whole."""
    try:
        read_checkpoint(path)
    except RefusedError:
        return


class RefusedError(WeightsError):
    """The file holds objects beside tensors that are not on our list."""


def _read_pickled(path: Path, also_ignore: Sequence[str]) -> Any:
    stand_ins: list[Any] = [(Ignored, name) for name in (*_OBJECTS, *also_ignore)]
    stand_ins += [(IgnoredMapping, name) for name in _MAPPINGS]
    with torch.serialization.safe_globals(stand_ins), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.load(path, map_location="cpu", weights_only=True)


def _refusal(path: Path, error: Exception) -> WeightsError:
    names = unknown_objects(path)
    if not names:
        return _damaged(path, "its content is no pickle of tensors")  # torch's own words advise to unpickle it blindly
    return RefusedError(
        f"{path} was not loaded: beside tensors it holds {_some(names)}, and unpickling such objects can run code. "
        f"To keep only its tensors, run once: mt models convert {shlex.quote(str(path))}"
    )


def _damaged(path: Path, reason: str) -> WeightsError:
    return WeightsError(f"{path} is damaged or no checkpoint ({reason}). Fetch it again. See: mt models NAME")


def unknown_objects(path: Path) -> list[str]:
    """Return the names of the objects in a torch file that have no stand-in and are not torch's own."""
    known = {*_OBJECTS, *_MAPPINGS, "collections.OrderedDict", "collections.Counter", "_codecs.encode"}
    return sorted(name for name in set(_names(path)) if name not in known and not name.startswith("torch."))


def _names(path: Path) -> Iterator[str]:
    """Yield every name that the file's pickles refer to, by reading their opcodes; nothing is looked up."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            pickles = [io.BytesIO(archive.read(n)) for n in archive.namelist() if n.endswith("data.pkl")]
            yield from (name for pickled in pickles for name in _opcodes(pickled))
    else:
        with open(path, "rb") as file:
            for _ in range(_LEGACY_PICKLES):
                yield from _opcodes(file)


def _opcodes(pickled: BinaryIO) -> Iterator[str]:
    strings: list[str] = []
    try:
        for opcode, argument, _ in pickletools.genops(pickled):
            if opcode.name == "GLOBAL":
                yield str(argument).replace(" ", ".")
            elif opcode.name == "STACK_GLOBAL":
                yield ".".join(strings[-2:])
            elif isinstance(argument, str):
                strings.append(argument)
    except ValueError:  # not a pickle, or not a whole one: there is no more to name
        return


def select(
    content: Mapping[str, Any], layouts: Iterable[Layout], network: Mapping[str, torch.Tensor], file: Path
) -> State:
    """Return the network's state, each tensor in the network's own name and dtype, from a checkpoint's content.

    The first layout with any of the network's keys counts.

    Raises:
        WeightsError: no layout fits, or keys are missing or unexpected, or a shape differs; the keys are named.
    """
    for layout in layouts:
        nested = _descend(content, layout.nesting)
        if any(_own_name(key, layout) in network for key in nested):
            return _strict(nested, layout, network, file)
    raise WeightsError(
        f"{file} does not hold the network's weights: expected keys such as {_some(list(network))}, "
        f"found {_some([str(key) for key in content])}."
    )


def _descend(content: Mapping[str, Any], nesting: Sequence[str]) -> Mapping[str, Any]:
    """Return the dictionary at the end of `nesting`, empty where there is none; flat files join its parts by dots."""
    path = "".join(f"{part}." for part in nesting)
    if path and any(str(key).startswith(path) for key in content):
        return {key.removeprefix(path): value for key, value in content.items() if str(key).startswith(path)}
    for part in nesting:
        inner = content.get(part)
        content = inner if isinstance(inner, Mapping) else {}
    return {str(key): value for key, value in content.items()}


def _own_name(key: str, layout: Layout) -> str | None:
    """Return the network's name for a checkpoint's key, None for a key that is not the network's."""
    if not key.startswith(layout.prefix) or (layout.drop and key.startswith(layout.drop)):
        return None
    return layout.rename(key.removeprefix(layout.prefix))


def _strict(nested: Mapping[str, Any], layout: Layout, network: Mapping[str, torch.Tensor], file: Path) -> State:
    wanted = {key: value for key, value in nested.items() if not (layout.drop and key.startswith(layout.drop))}
    names = {key: _own_name(key, layout) for key in wanted}
    unexpected = [key for key, name in names.items() if name not in network]
    given = {name: wanted[key] for key, name in names.items() if name is not None and name in network}
    missing = [name for name in network if name not in given and not name.endswith(_COUNTER)]
    wrong = [
        f"{name} {tuple(getattr(value, 'shape', ()))} instead of {tuple(network[name].shape)}"
        for name, value in given.items()
        if not isinstance(value, torch.Tensor) or value.shape != network[name].shape
    ]
    faults = {"missing": missing, "unexpected": unexpected, "wrong shape": wrong}
    if missing or unexpected or wrong:
        said = "; ".join(f"{fault}: {_some(keys)}" for fault, keys in faults.items() if keys)
        raise WeightsError(f"{file} does not fit the network. {said}. Is it the published file? See: mt models NAME")
    return {
        name: given[name].detach().to(like.dtype) if name in given else torch.zeros((), dtype=like.dtype)
        for name, like in network.items()
    }


def _some(names: Sequence[str]) -> str:
    """Return the first few names, and how many there are."""
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown}, ... ({len(names)} in all)"
