"""Where to compute, and how exactly: the one device rule and the TF32 switches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch

from mt.errors import InputError

T = TypeVar("T")
# Feature values (rows x columns) from which work goes to a GPU under `auto`: 16 MiB in float32, as 2,731 rows of 1,536
# columns.  Less fits a core's caches, while a GPU spends most of such a fit on launching kernels.  The border is by
# size; it has not been measured on a GPU.
WORTH_A_GPU = 1 << 22


def pick_device(name: str, *, float64: bool = False, values: int | None = None) -> torch.device:
    """Return the device called `name`; `auto` is CUDA, then MPS, then the CPU.

    float64: the caller computes in float64, which MPS lacks.
    values: how many feature values the work reads; below WORTH_A_GPU `auto` is the CPU.  None: work on images.

    Raises:
        InputError: the name is unknown, the device is absent, or it lacks float64 where that is needed.
    """
    if name == "auto":
        small = values is not None and values < WORTH_A_GPU
        return torch.device("cpu" if small else _best(float64=float64))
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except Exception as error:  # torch raises RuntimeError, AssertionError or NotImplementedError here
        raise InputError(f"No device '{name}' here. Use --device cpu, or --device auto.") from error
    if float64 and device.type == "mps":
        raise InputError(f"Device '{name}' does not compute in float64, which is needed here. Use --device cpu.")
    return device


def _best(*, float64: bool) -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() and not float64 else "cpu"


def computes_bfloat16_fast(device: torch.device) -> bool:
    """Return whether a device has units for products in bfloat16: CUDA cards that support it, CPUs with AMX."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    flags = Path("/proc/cpuinfo")
    return device.type == "cpu" and flags.is_file() and "amx_bf16" in flags.read_text()


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Round the inputs of float32 products to TF32 while inside, or do not; restore the previous state on leaving.

    TF32 belongs to CUDA.  Products on the CPU stay float32, whatever the process has set.
    """
    backends: Any = torch.backends
    matmul, cudnn = _legacy(torch.get_float32_matmul_precision), _legacy(lambda: backends.cudnn.allow_tf32)
    parts = _parts()
    before = [part.fp32_precision for part in parts]
    try:
        backends.cuda.matmul.allow_tf32 = backends.cudnn.allow_tf32 = allowed
        for part in parts:
            on_cuda = part not in (backends.mkldnn.matmul, backends.mkldnn.conv)
            part.fp32_precision = "tf32" if allowed and on_cuda else "ieee"
        yield
    finally:
        if matmul is not None:
            torch.set_float32_matmul_precision(matmul)
        if cudnn is not None:
            backends.cudnn.allow_tf32 = cudnn
        for part, value in zip(parts, before, strict=True):
            part.fp32_precision = value


def _parts() -> list[Any]:
    """Return the operations that have a precision of their own since torch 2.9."""
    backends: Any = torch.backends
    if not hasattr(backends.cudnn, "conv"):
        return []
    mkldnn, cudnn = backends.mkldnn, backends.cudnn
    return [backends.cuda.matmul, cudnn.conv, cudnn.rnn, mkldnn.matmul, mkldnn.conv]


def _legacy(read: Callable[[], T]) -> T | None:
    """Return a switch's state by its old name; None if a new name set it, so that torch refuses to say."""
    try:
        return read()
    except RuntimeError:
        return None
