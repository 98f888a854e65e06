"""The number of cores is counted by one rule."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

import mt
from mt.system import device


def test_cores_are_those_of_the_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 3, 5}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert device.cores() == device.decoders() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    assert (device.cores(), device.decoders()) == (64, 16)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert device.cores() == 1


def test_nobody_else_counts_cores() -> None:
    package = Path(mt.__file__).parent
    counters = re.compile(r"cpu_count|sched_getaffinity")
    found = [path.relative_to(package) for path in package.rglob("*.py") if counters.search(path.read_text())]
    assert found == [Path("system/device.py")]
