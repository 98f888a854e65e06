"""PyTorch's and safetensors' files: a tensor, tensors by name, or one vector per id."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mt.errors import InputError
from mt.importing.readers.matrix import Matrix, as_text, beside_name, chosen_key, is_beside, matrix_of
from mt.types import Array


def open_pt(path: Path, key: str | None) -> Matrix:
    """Return the embeddings of a .pt file: its tensor, one of a dictionary, or a dictionary of id to vector.

    Only tensors, numbers, text and plain containers are loaded (`weights_only`).
    """
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a pickle protocol: what cannot be loaded is refused below
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path} holds more than tensors, which mt does not unpickle: it can run code. Save the tensor alone: "
            "torch.save(tensor, FILE)"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise InputError(f"{path} is not a whole .pt file: {' '.join(str(error).split())[:200]}") from error
    if isinstance(loaded, torch.Tensor):
        return matrix_of(path, numbers(loaded), {})
    if not isinstance(loaded, Mapping):
        raise InputError(f"{path} holds a {type(loaded).__name__}, expected a tensor (rows, dimensions).")
    tensors = {str(name): numbers(value) for name, value in loaded.items() if isinstance(value, torch.Tensor)}
    texts = {str(name): value for name, value in loaded.items() if _is_texts(value)}
    return _of_named(path, tensors, texts, key)


def open_safetensors(path: Path, key: str | None) -> Matrix:
    """Return the embeddings of a .safetensors file: one of its tensors, or one vector per id."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: numbers(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is not a whole .safetensors file: {' '.join(str(error).split())}") from error
    return _of_named(path, tensors, {}, key)


def numbers(tensor: Any) -> Array:
    """Return a tensor as an array; bfloat16, which NumPy lacks, as float32."""
    import torch

    if tensor.is_sparse or tensor.is_quantized:
        tensor = tensor.to_dense() if tensor.is_sparse else tensor.dequantize()
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.float()
    array: Array = tensor.detach().contiguous().numpy()
    return array


def _of_named(path: Path, tensors: Mapping[str, Array], texts: Mapping[str, Sequence[Any]], key: str | None) -> Matrix:
    import numpy as np

    lengths = {array.shape for array in tensors.values()}
    if key is None and len(tensors) > 1 and len(lengths) == 1 and len(next(iter(lengths))) == 1:
        return matrix_of(path, np.stack(list(tensors.values())), {"id": list(tensors)})
    name = chosen_key(path, {name: array.shape for name, array in tensors.items()}, key)
    matrix = matrix_of(path, tensors[name], {}, what=name)
    beside = {
        beside_name(other): as_text(array)
        for other, array in tensors.items()
        if other != name and is_beside(other, array.shape, matrix.n)
    }
    beside |= {
        beside_name(other): [str(value) for value in values]
        for other, values in texts.items()
        if is_beside(other, (len(values),), matrix.n)
    }
    return Matrix(path, matrix.n, matrix.dim, matrix.dtype, matrix.parts, beside)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(one, str | int) for one in value)


def _is_zip(path: Path) -> bool:
    """Return whether a file is in PyTorch's zip format, which can be mapped; the one before 1.6 cannot."""
    try:
        with path.open("rb") as file:
            return file.read(4) == b"PK\x03\x04"
    except OSError:
        return False
