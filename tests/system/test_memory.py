"""Amounts of memory, and the cap on a GPU's."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from mt.errors import InputError
from mt.system.memory import bytes_of, cap_gpu_memory

GB = 1 << 30


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4", 4 * GB), ("4GB", 4 * GB), ("4gb", 4 * GB), ("4 GiB", 4 * GB), ("4G", 4 * GB), ("0.5", GB // 2),
        (".5GB", GB // 2), ("512MB", 512 << 20), ("1TB", 1 << 40), (" 2 ", 2 * GB),
    ],
)  # fmt: skip
def test_an_amount_is_in_gb_unless_it_says_otherwise(text: str, expected: int) -> None:
    assert bytes_of(text, "--memory") == expected


@pytest.mark.parametrize("text", ["", "0", "0MB", "-4", "4KB", "GB", "four", "nan", "1e3", "4GB2"])
def test_what_is_no_amount_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(InputError, match=r"^--gpu-memory takes an amount of memory such as 4, 4GB or 512MB; got '"):
        bytes_of(text, "--gpu-memory")


@pytest.mark.parametrize(
    ("device", "environment", "amount", "capped"),
    [
        ("cuda:0", {}, 20 * GB, (0.25, 0)),
        ("cuda", {}, 20 * GB, (0.25, 1)),
        ("cuda", {"LOCAL_RANK": "3"}, 20 * GB, (0.25, 3)),
        ("auto", {}, 800 * GB, (1.0, 1)),
    ],
)
def test_the_cap_is_on_the_card_that_computes(
    device: str, environment: dict[str, str], amount: int, capped: tuple[float, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    caps: list[tuple[float, int]] = []
    monkeypatch.setattr(torch, "empty", lambda *args, **named: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=80 * GB))
    monkeypatch.setattr(
        torch.cuda, "set_per_process_memory_fraction", lambda share, where: caps.append((share, where.index))
    )
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert cap_gpu_memory(amount, device) is None
    assert caps == [capped]


@pytest.mark.parametrize("device", ["cpu", "pretend"])
def test_elsewhere_the_cap_says_that_it_has_no_effect(
    device: str, pretend: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda *_: pytest.fail("there is no card"))
    line = cap_gpu_memory(GB, device)
    assert line == f"Note: --gpu-memory has no effect: this run computes on {device}."
