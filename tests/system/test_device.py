"""One rule chooses the device; TF32 is set only while something computes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import mt
from mt.errors import InputError
from mt.system.device import WORTH_A_GPU, _parts, computes_bfloat16_fast, pick_device, tf32


@pytest.mark.parametrize(
    ("cuda", "mps", "needs", "expected"),
    [
        (True, True, {}, "cuda"),
        (True, False, {"float64": True}, "cuda"),
        (True, True, {"values": WORTH_A_GPU - 1}, "cpu"),
        (True, True, {"values": WORTH_A_GPU}, "cuda"),
        (False, True, {}, "mps"),
        (False, True, {"float64": True}, "cpu"),
        (False, True, {"values": 1}, "cpu"),
        (False, True, {"values": WORTH_A_GPU}, "mps"),
        (False, False, {}, "cpu"),
    ],
)
def test_auto_is_cuda_then_mps_then_the_cpu(
    cuda: bool, mps: bool, needs: dict[str, Any], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert pick_device("auto", **needs).type == expected


@pytest.mark.parametrize("name", ["cpu", "meta"])
def test_a_named_device_is_taken_even_for_small_work(name: str) -> None:
    assert pick_device(name, values=1) == torch.device(name)


@pytest.mark.parametrize("name", ["warp", "", "cuda:99", "cpu:x"])
def test_an_absent_device_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"No device '{name}' here. Use --device cpu"):
        pick_device(name)


def test_mps_is_refused_where_float64_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "empty", lambda *args, **named: None)
    assert pick_device("mps").type == "mps"
    with pytest.raises(InputError, match="'mps' does not compute in float64"):
        pick_device("mps", float64=True)


def state() -> list[object]:
    """Return every TF32 switch by its old names and, where torch has them, by its new ones."""
    old = [torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32]
    return [*old, torch.backends.cuda.matmul.allow_tf32, *(part.fp32_precision for part in _parts())]


@pytest.fixture
def _restored() -> Iterator[None]:
    matmul, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    yield
    torch.set_float32_matmul_precision(matmul)
    torch.backends.cudnn.allow_tf32 = convolutions


@pytest.mark.usefixtures("_restored")
@pytest.mark.parametrize("convolutions", [True, False])
@pytest.mark.parametrize("matmul", ["highest", "high", "medium"])
@pytest.mark.parametrize("allowed", [True, False])
def test_tf32_is_set_while_something_computes_and_restored(matmul: str, convolutions: bool, allowed: bool) -> None:
    torch.set_float32_matmul_precision(matmul)
    torch.backends.cudnn.allow_tf32 = convolutions
    before = state()
    with tf32(allowed):
        assert torch.backends.cuda.matmul.allow_tf32 is torch.backends.cudnn.allow_tf32 is allowed
        assert [part.fp32_precision for part in _parts()][3:] in ([], ["ieee", "ieee"])
        with tf32(not allowed):
            assert torch.backends.cuda.matmul.allow_tf32 is torch.backends.cudnn.allow_tf32 is not allowed
        assert torch.backends.cudnn.allow_tf32 is allowed
    assert state() == before


def test_tf32_is_restored_after_an_error() -> None:
    before = state()
    with pytest.raises(ZeroDivisionError), tf32(not torch.backends.cudnn.allow_tf32):
        _ = 1 / 0
    assert state() == before


@pytest.mark.skipif(not _parts(), reason="before torch 2.9")
def test_a_state_set_by_new_names_is_restored_too() -> None:
    matmul: Any = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    matmul.fp32_precision = "tf32"
    try:
        with tf32(False):
            assert matmul.fp32_precision == "ieee"
        assert matmul.fp32_precision == "tf32"
    finally:
        matmul.fp32_precision = before


def test_nobody_else_picks_a_device_or_sets_tf32() -> None:
    """`mt doctor` alone also asks which GPUs there are, to list them."""
    rules = re.compile(r"\.is_available\(\)|allow_tf32|fp32_precision|float32_matmul_precision")
    package = Path(mt.__file__).parent
    found = [str(path.relative_to(package)) for path in package.rglob("*.py") if rules.search(path.read_text())]
    assert sorted(found) == ["doctor.py", "system/device.py"]


@pytest.mark.parametrize(("flags", "fast"), [("sse amx_bf16 amx_tile", True), ("sse avx2", False)])
def test_a_cpu_with_amx_computes_bfloat16_fast(flags: str, fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mt.system.device.Path.is_file", lambda path: True)
    monkeypatch.setattr("mt.system.device.Path.read_text", lambda path: f"flags : {flags}")
    assert computes_bfloat16_fast(torch.device("cpu")) is fast
