"""A pretend accelerator: its tensors claim to be on another device, compute on the CPU, and refuse CPU tensors.

It finds, without a GPU, what a GPU would refuse: operands on two devices, a factory without a device, `.numpy()` of a
device tensor.  Numbers are the CPU's.  torch's Python-only backends carry it: `torch.device("pretend")` is a real
device type, modules move with `.to`, autograd and autocast work.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils import backend_registration

NAME = "pretend"
# Operations that may read from one device and write to another, and indexing, whose indices may be on the CPU.
MOVES = {"_to_copy", "copy_", "_copy_from"}
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}
MAY_DIFFER = MOVES | INDEXING
FACTORIES = (
    "empty.memory_format",
    "empty_strided",
    "zeros",
    "ones",
    "full",
    "arange",
    "arange.start",
    "arange.start_step",
    "eye",
    "eye.m",
    "linspace",
    "randn",
    "randn.generator",
    "rand",
    "rand.generator",
    "randint",
    "randint.low",
    "randint.generator",
    "randint.low_generator",
    "randperm",
    "randperm.generator",
    "scalar_tensor",
    "tril_indices",
    "triu_indices",
    "_efficientzerotensor",
)
# Parts of torch that its own type hints omit.
_C: Any = torch._C
_library: Any = torch.library.Library
# Operations of our networks that autocast computes in the lower precision, and those that it computes in float32.
LOWERED = ("linear", "conv2d", "matmul", "mm", "bmm", "addmm", "baddbmm", "scaled_dot_product_attention")
RAISED = ("layer_norm", "softmax.int", "log_softmax.int", "cross_entropy_loss", "mse_loss", "exp", "log", "cumsum")


class PretendTensor(Tensor):
    """Wraps a CPU tensor; `on_cpu` holds the numbers."""

    on_cpu: Tensor

    @staticmethod
    def __new__(cls, on_cpu: Tensor) -> PretendTensor:
        wrapper: PretendTensor = torch.Tensor._make_wrapper_subclass(
            cls,
            on_cpu.size(),
            strides=on_cpu.stride(),
            storage_offset=on_cpu.storage_offset(),
            dtype=on_cpu.dtype,
            device=torch.device(NAME, 0),
            requires_grad=False,
        )
        wrapper.on_cpu = on_cpu
        return wrapper

    __torch_function__ = _C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch types it as a function, not as a class method
        cls, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[Any, Any] | None = None
    ) -> Any:
        if not torch.is_inference_mode_enabled():
            return _computed(func, args, kwargs or {})
        with torch.inference_mode(False):  # a wrapper counts versions; inference mode does not
            return _computed(func, args, kwargs or {})

    def tolist(self) -> Any:
        return self.on_cpu.tolist()

    def __repr__(self) -> str:  # type: ignore[override]
        return f"PretendTensor({self.on_cpu!r})"


class DeviceModule:
    """What torch asks of `torch.pretend`; the CPU's random generator is the device's."""

    @staticmethod
    def is_available() -> bool:
        return True

    @staticmethod
    def is_initialized() -> bool:
        return True

    @staticmethod
    def device_count() -> int:
        return 1

    @staticmethod
    def current_device() -> int:
        return 0

    @staticmethod
    def _is_in_bad_fork() -> bool:
        return False

    @staticmethod
    def manual_seed_all(seed: int) -> None:
        """Do nothing: torch.manual_seed seeds the CPU's generator, which the device uses."""

    @staticmethod
    def get_amp_supported_dtype() -> list[torch.dtype]:
        return [torch.float16, torch.bfloat16, torch.float32]

    @staticmethod
    def get_rng_state(device: Any = None) -> Tensor:
        return torch.get_rng_state()

    @staticmethod
    def set_rng_state(state: Tensor, device: Any = None) -> None:
        torch.set_rng_state(state)


@functools.cache
def install() -> torch.device | None:
    """Register the device with torch, once in a process; return None if this torch has no Python-only backends."""
    if not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"):
        return None
    backend_registration._setup_privateuseone_for_python_backend(NAME, backend_module=DeviceModule())
    library = _library("aten", "IMPL")
    for name in FACTORIES:
        library.impl(name, _factory(name), "PrivateUse1")
    library.impl("_copy_from", _copy_from, "PrivateUse1")
    for name in LOWERED:
        library.impl(name, _autocast(name, lowered=True), "AutocastPrivateUse1")
    for name in RAISED:
        library.impl(name, _autocast(name, lowered=False), "AutocastPrivateUse1")
    others = _library("_", "IMPL")
    others.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    _LIBRARIES.extend((library, others))
    return torch.device(NAME)


_LIBRARIES: list[Any] = []  # a library that is collected takes its registrations with it


def _factory(name: str) -> Callable[..., Tensor]:
    packet, _, overload = name.partition(".")
    function = getattr(getattr(torch.ops.aten, packet), overload or "default")

    def made(*args: Any, **kwargs: Any) -> Tensor:
        kwargs |= {"device": torch.device("cpu"), "pin_memory": False}
        return PretendTensor(function(*args, **kwargs))

    return made


def _copy_from(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
    """Copy between devices, in either direction."""
    _inside(target).copy_(_inside(source))
    return target


def _autocast(name: str, *, lowered: bool) -> Callable[..., Any]:
    """Return what autocast does with one operation: cast its floating-point tensors, then run it without autocast."""
    packet, _, overload = name.partition(".")
    function = getattr(getattr(torch.ops.aten, packet), overload or "default")
    keys = _C.DispatchKeySet(_C.DispatchKey.AutocastPrivateUse1)

    def run(*args: Any, **kwargs: Any) -> Any:
        dtype = torch.get_autocast_dtype(NAME) if lowered else torch.float32

        def cast(value: Any) -> Any:
            floating = isinstance(value, Tensor) and value.is_floating_point() and value.dtype != torch.float64
            return value.to(dtype) if floating else value

        with _C._ExcludeDispatchKeyGuard(keys):
            return function(*_mapped(cast, args), **_mapped(cast, kwargs))

    return run


def _computed(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run one operation on the CPU's numbers, after checking that its tensors are on one device."""
    name = function.overloadpacket.__name__
    known: dict[int, PretendTensor] = {}
    may_differ = name in MAY_DIFFER

    def inside(value: Any) -> Any:
        if isinstance(value, PretendTensor):
            known[id(value.on_cpu)] = value
            return value.on_cpu
        if not may_differ and isinstance(value, Tensor):
            _refuse_another_device(name, value)
        return value

    args_inside, kwargs_inside = _mapped(inside, args), _mapped(inside, kwargs)
    there = bool(known)
    if kwargs.get("device") is not None:
        there = torch.device(kwargs["device"]).type == NAME
        kwargs_inside["device"] = torch.device("cpu")
    if kwargs.get("pin_memory"):
        kwargs_inside["pin_memory"] = False
    result = function(*args_inside, **kwargs_inside)
    if name == "copy_":
        return args[0]

    def outside(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        if id(value) in known:
            return known[id(value)]
        return PretendTensor(value) if there else value

    return _mapped(outside, result)


def _mapped(change: Callable[[Any], Any], value: Any) -> Any:
    """Return the value with each part of its tuples, lists and dictionaries changed."""
    if isinstance(value, tuple | list):
        return type(value)([_mapped(change, part) for part in value])
    if isinstance(value, dict):
        return {key: _mapped(change, part) for key, part in value.items()}
    return change(value)


def _refuse_another_device(name: str, tensor: Tensor) -> None:
    """Raise as CUDA does for a tensor of the CPU, except one without dimensions."""
    if tensor.dim() > 0:
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but {name} got {NAME}:0 and cpu {tuple(tensor.shape)}"
        )


def _inside(value: Any) -> Any:
    return value.on_cpu if isinstance(value, PretendTensor) else value
