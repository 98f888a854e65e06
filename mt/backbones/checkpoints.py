"""Read published checkpoints: run no code that they hold, and fit them strictly into their network."""

from __future__ import annotations

import io
import pickle
import pickletools
import shlex
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import torch

from mt.backbones.formats import INDEX, is_safetensors, is_torchscript, read_safetensors, read_shards
from mt.backbones.layouts import Layout
from mt.backbones.states import State, StateCandidate, compared, find_state, some, typed
from mt.errors import WeightsError

SAVE_STATE = "Save its state where it was made: torch.save(model.state_dict(), 'state.pth')"
_TORCH_VALUES = {
    "torch.Size",
    "torch.device",
    "torch.Tensor",
    "torch.float",
    "torch.float16",
    "torch.float32",
    "torch.float64",
    "torch.bfloat16",
    "torch.half",
    "torch.double",
    "torch.int",
    "torch.int8",
    "torch.int16",
    "torch.int32",
    "torch.int64",
    "torch.long",
    "torch.uint8",
    "torch.bool",
    "torch.per_tensor_affine",
    "torch.serialization._get_layout",
}
_BEFORE_CONTENT = 3
_FIRST_BYTES = 1 << 20  # of a pickle, in which its kind shows
_LEGACY_PICKLES = 5  # torch files before 1.6: magic number, protocol, system, content, keys of the storages


class Ignored:
    """Stands in for an object of a checkpoint that is not a tensor: takes what pickle hands over and keeps nothing."""

    def __new__(cls, *args: object) -> Ignored:
        return super().__new__(cls)

    def __init__(self, *args: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...


class IgnoredMapping:
    """Stands in for a subclass of dict: torch's restricted unpickler fills plain dictionaries only."""

    def __new__(cls, *args: object) -> dict[Any, Any]:  # type: ignore[misc]
        return {}


_PATHS = ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")
# What published checkpoints hold beside tensors.  None of these is imported or called: a stand-in takes its place.
_OBJECTS = (
    "argparse.Namespace",
    *(f"{module}.{name}" for module in ("pathlib", "pathlib._local") for name in _PATHS),  # _local: Python 3.13's
    "typing.Any",
    "numpy.dtype",
    "numpy.ndarray",
    "numpy.dtypes.Float64DType",
    "numpy.dtypes.Float32DType",
    "numpy.dtypes.Int64DType",
    "numpy.core.multiarray.scalar",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "numpy._core.multiarray._reconstruct",
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "pytorch_lightning.callbacks.early_stopping.EarlyStopping",
    "pytorch_lightning.callbacks.lr_monitor.LearningRateMonitor",
    "omegaconf.base.ContainerMetadata",
    "omegaconf.base.Metadata",
    "omegaconf.nodes.AnyNode",
    "omegaconf.dictconfig.DictConfig",
    "omegaconf.listconfig.ListConfig",
)
_MAPPINGS = (
    "collections.defaultdict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "vissl.utils.hydra_config.AttrDict",
)


def read_checkpoint(path: Path, *, also_ignore: Sequence[str] = ()) -> dict[str, Any]:
    """Return what a file of weights holds, tensors on the CPU, other objects as stand-ins.

    A safetensors file is known by its content, an index of shards (`*.index.json`) by its name; all else is read by
    torch's restricted unpickler.  No code in the file is run.  `also_ignore` names further objects that get stand-ins.

    Raises:
        WeightsError: the file is damaged, holds no state, or holds objects that are not on the list above.
    """
    try:
        if path.name.endswith(INDEX):
            return read_shards(path, read_checkpoint)
        if is_safetensors(path):
            return read_safetensors(path)
        content = _read_pickled(path, also_ignore)
    except FileNotFoundError as error:
        raise WeightsError(f"No weights at {path}.") from error
    except pickle.UnpicklingError as error:
        raise _refusal(path, error) from error
    except (MemoryError, PermissionError, WeightsError):
        raise
    except Exception as error:  # a broken file makes torch, zipfile and safetensors raise a dozen kinds
        raise _explained(path, str(error).splitlines()[0] if str(error) else type(error).__name__) from error
    if not isinstance(content, Mapping):
        raise _explained(path, f"it holds a {type(content).__name__}, not a dictionary of tensors")
    return dict(content)


def check_whole(path: Path) -> None:
    """Raise WeightsError if a file is damaged or not a checkpoint; a file refused for its objects counts as whole."""
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
    """Return the error for a file that torch's restricted unpickler refuses, with the advice that works for it."""
    names = unknown_objects(path)
    if not names or whole_object(path) is not None:
        return _explained(path, "its content is not a pickle of tensors")  # torch's own words advise blind unpickling
    held = f"{path} was not loaded: beside tensors it holds {some(names)}, and unpickling such objects can run code."
    try:
        content = _read_pickled(path, names)
        works = isinstance(content, Mapping)
    except Exception:  # `mt models convert` would fail in the same way
        works = False
    if works:
        return RefusedError(f"{held} To keep only its tensors, run once: mt models convert {shlex.quote(str(path))}")
    return RefusedError(f"{held} {SAVE_STATE}")


def _explained(path: Path, reason: str) -> WeightsError:
    """Return the error for a file without a state: what it is, if it can be identified, and what to do."""
    if is_torchscript(path):
        return WeightsError(
            f"{path} is a TorchScript archive: it holds a program, not a state. Save its state where it was made: "
            "torch.save(torch.jit.load(FILE).state_dict(), 'state.pth')"
        )
    whole = whole_object(path)
    if whole is not None:
        return WeightsError(
            f"{path} holds a whole pickled object ({whole}), which only running its code can open. {SAVE_STATE}"
        )
    return WeightsError(f"{path} is damaged or not a checkpoint ({reason}). Fetch it again. See: mt models NAME")


def whole_object(path: Path) -> str | None:
    """Return the class of the object that a torch file holds in place of a dictionary, None for a dictionary.

    A dictionary's pickle begins with an empty dictionary or `collections.OrderedDict`, a module's with its class.
    """
    try:
        pickled = _content_pickle(path)
    except (OSError, StopIteration, zipfile.BadZipFile, ValueError):
        return None
    strings: list[str] = []
    try:
        for opcode, argument, _ in pickletools.genops(pickled):
            if opcode.name in ("EMPTY_DICT", "DICT", "EMPTY_LIST", "LIST", "EMPTY_TUPLE", "LONG1", "STOP"):
                return None
            if opcode.name == "GLOBAL":
                name = str(argument).replace(" ", ".")
                return None if name.startswith(("collections.", "torch._utils.")) else name
            if opcode.name == "STACK_GLOBAL":
                name = ".".join(strings[-2:])
                return None if name.startswith(("collections.", "torch._utils.")) else name
            if isinstance(argument, str):
                strings.append(argument)
    except ValueError:
        return None
    return None


def unknown_objects(path: Path) -> list[str]:
    """Return the names of the objects in a torch file that have no stand-in and that torch does not allow itself."""
    known = {*_OBJECTS, *_MAPPINGS, "collections.OrderedDict", "collections.Counter", "_codecs.encode"}
    return sorted(name for name in set(_names(path)) if name not in known and not _torch_allows(name))


def _torch_allows(name: str) -> bool:
    """Return whether torch's restricted unpickler accepts a torch name: a part of tensors and storages."""
    return name.startswith(("torch._utils._rebuild", "torch._tensor.", "torch.storage.", "torch.nn.parameter.")) or (
        name.startswith("torch.") and (name.endswith("Storage") or name in _TORCH_VALUES)
    )


def _names(path: Path) -> Iterator[str]:
    """Yield every name that the file's pickles refer to, by reading their opcodes; nothing is looked up."""
    for pickled in _pickles(path):
        yield from _opcodes(pickled)


def _pickles(path: Path) -> Iterator[BinaryIO]:
    """Yield the pickles of a torch file, in either of its formats."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            yield from [io.BytesIO(archive.read(n)) for n in archive.namelist() if n.endswith("data.pkl")]
    else:
        with open(path, "rb") as file:
            for _ in range(_LEGACY_PICKLES):
                yield file


def _content_pickle(path: Path) -> BinaryIO:
    """Return the pickle of what was saved: the only one of an archive, the fourth of a file before torch 1.6."""
    pickles = _pickles(path)
    if not zipfile.is_zipfile(path):
        for _ in range(_BEFORE_CONTENT):
            for _ in pickletools.genops(next(pickles)):
                pass
    return io.BytesIO(next(pickles).read(_FIRST_BYTES))


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
    content: Mapping[str, Any],
    layouts: Sequence[Layout],
    network: Mapping[str, torch.Tensor],
    file: Path,
    pick: str | None = None,
) -> State:
    """Return the network's state from a checkpoint: where its publisher puts it, else found by structure.

    The first layout with any of the network's keys counts, unless `pick` names another state.

    Raises:
        WeightsError: no state fits, since keys are missing or unexpected, or a shape differs; the keys are named.
    """
    for layout in layouts if pick is None else ():
        nested = _descend(content, layout.nesting)
        names = {key: _own_name(key, layout) for key in nested if not (layout.drop and key.startswith(layout.drop))}
        if any(name in network for name in names.values()):
            inside = {key if names[key] not in network else str(names[key]): nested[key] for key in names}
            found = compared("", inside, network)
            return typed(found.state, network) if found.fits else _by_structure(content, network, file, found)
    return find_state(content, network, file, pick=pick)


def _by_structure(
    content: Mapping[str, Any], network: Mapping[str, torch.Tensor], file: Path, published: StateCandidate
) -> State:
    """Return the state that structure finds; where it finds none, the error names what the published form lacks."""
    try:
        return find_state(content, network, file)
    except WeightsError as error:
        if "differ" in str(error):
            raise
        line = f"{file} does not fit the network. {published.faults()}. Is it the published file? See: mt models NAME"
        raise WeightsError(line) from error


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
