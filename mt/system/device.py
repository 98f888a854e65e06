"""Where and how to compute: the device rule, the TF32 switches, the number of threads, and their options."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mt.errors import InputError
from mt.terminal import progress
from mt.terminal.options import MemoryAmount

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])
# Feature values (rows x columns) from which work goes to a GPU under `auto`: 16 MiB in float32, as 2,731 rows of 1,536
# columns.  Smaller data fits a core's caches, and a GPU would spend most of such a fit on launching kernels.  The limit
# is set by size; it has not been measured on a GPU.
WORTH_A_GPU = 1 << 22
GPU_MEMORY = "MT_GPU_MEMORY"  # bytes that a worker process may take of its device: the --gpu-memory of its parent

if TYPE_CHECKING:
    import torch


def pick_device(name: str, *, float64: bool = False, values: int | None = None) -> torch.device:
    """Return the device called `name`; `auto` is CUDA, then MPS, then the CPU.

    float64: the caller computes in float64, which MPS lacks.
    values: the number of feature values that are read; below WORTH_A_GPU `auto` is the CPU.  None: work on images.

    Raises:
        InputError: the name is unknown, the device is absent, or it lacks float64 where that is needed.
    """
    import torch

    if "," in name or name == "cuda:all":
        raise InputError(f"--device {name} names several devices, and one is used here. Use --device cuda:0.")
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


def device_names(name: str) -> list[str]:
    """Return the devices that `--device` names: `cuda:0,1`, `cuda:all` and `cpu,cpu` are several, all of one kind.

    Raises:
        InputError: devices of several kinds, or a list with a gap.
    """
    if name == "cuda:all":
        import torch

        return (
            [f"cuda:{number}" for number in range(torch.cuda.device_count())]
            if torch.cuda.device_count() > 1
            else ["cuda"]
        )
    parts = [part.strip() for part in name.split(",")]
    kind = parts[0].partition(":")[0]
    named = [f"{kind}:{part}" if part.isdigit() and number else part for number, part in enumerate(parts)]
    if not all(parts) or len({one.partition(":")[0] for one in named}) > 1:
        raise InputError(f"--device takes devices of one kind, such as cuda:0,1 or cuda:all; got '{name}'.")
    return named


def first_device(name: str, what: str) -> str:
    """Return the first of several devices for work that uses one, and say so: `what` names the work."""
    first, *others = device_names(name)
    if others:
        progress.note(f"Note: {what} computes on one device, {first}; mt featurize uses several.")
    return first


def has_cuda() -> bool:
    """Return whether a CUDA device can compute here."""
    import torch

    return torch.cuda.is_available()


def _best(*, float64: bool) -> str:
    import torch

    if has_cuda():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() and not float64 else "cpu"


def computes_bfloat16_fast(device: torch.device) -> bool:
    """Return whether a device has units for products in bfloat16: CUDA cards that support it, CPUs with AMX."""
    import torch

    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    flags = Path("/proc/cpuinfo")
    return device.type == "cpu" and flags.is_file() and "amx_bf16" in flags.read_text()


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return the context in which networks compute in a precision; in float32 it changes nothing."""
    import torch

    dtype = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(precision)
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Allow or forbid TF32 in float32 products while inside; restore the previous state on leaving.

    TF32 belongs to CUDA.  Products on the CPU stay float32, whatever the process has set.
    """
    import torch

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
    import torch

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


def cores() -> int:
    """Return the number of cores this process may use: those of its affinity (taskset, Slurm) if the system has one."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def decoders() -> int:
    """Return the number of threads that decode images: one per core, 16 at most."""
    return min(16, cores())


@contextmanager
def one_thread(wanted: bool) -> Iterator[None]:
    """Let torch use one thread while inside, if wanted; restore the number of threads on leaving.

    In small products threads mostly wait for each other, and for any other process on their core.
    """
    import torch

    before = torch.get_num_threads()
    if wanted:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def device_options(command: F) -> F:
    """Add `--device`, which the command gets, and `--gpu-memory`, which caps this process before the command runs."""

    @functools.wraps(command)
    def capped(*args: object, device: str, gpu_memory: int | None, **values: object) -> Any:
        if gpu_memory is not None and (line := cap_gpu_memory(gpu_memory, device)):
            progress.note(line)
        return command(*args, device=device, **values)

    for option in (
        click.option(
            "--gpu-memory",
            type=MemoryAmount(),
            metavar="AMOUNT",
            help="Take at most this much of the GPU's memory: 20, 20GB, 512MB.  [default: all of it]",
        ),
        click.option(
            "--device",
            default="auto",
            show_default=True,
            help="Where to compute: auto, cpu, cuda, cuda:1, mps; mt featurize also on several: cuda:0,1, cuda:all.",
        ),
    ):
        capped = option(capped)
    return capped  # type: ignore[return-value]


def cap_gpu_memory(amount: int, device: str) -> str | None:
    """Cap this process at `amount` bytes of a CUDA device's memory; return a line for the user if that has no effect.

    The cap is on what torch allocates.  CUDA's own context, a few hundred MB, comes on top.  Work that needs more ends
    as on a card of that size: a batch is halved, and work that cannot be halved is refused in one line.  If several
    devices are named, each worker process caps its own.
    """
    import torch

    if len(device_names(device)) > 1:
        os.environ[GPU_MEMORY] = str(amount)
        return None
    where = pick_device(device_names(device)[0])
    if where.type != "cuda":
        return f"Note: --gpu-memory has no effect: this run computes on {where}."
    if str(where) == "cuda":  # each process of a torchrun has a card of its own
        where = torch.device("cuda", int(os.environ.get("LOCAL_RANK", torch.cuda.current_device())))
    total = torch.cuda.get_device_properties(where).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, amount / total), where)
    return None


def cap_from_environment(device: torch.device) -> None:
    """Cap a worker process at the amount that its parent was given."""
    if (amount := os.environ.get(GPU_MEMORY)) and device.type == "cuda":
        cap_gpu_memory(int(amount), str(device))
