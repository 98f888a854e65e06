"""Reaching a Ray cluster: what is missing or does not answer is said in one line, at once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from mt.errors import InputError, MissingExtraError
from mt.featurize.engines.ray_link import joined
from mt.featurize.request import Compute


def test_ray_that_is_not_installed_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'medical-transfer\[ray\]'"), joined("ray"):
        """Nothing is reached."""


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("127.0.0.1:1", r"No Ray cluster answers at 127\.0\.0\.1:1 \(Connection refused\).*ray start --head"),
        ("ray://127.0.0.1:1", r"No Ray cluster answers at ray://127\.0\.0\.1:1"),
        ("gpu-07", r"names no address: expected ray:HOST:PORT"),
    ],
)
def test_an_address_that_does_not_answer_is_named(address: str, said: str) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    with pytest.raises(InputError, match=said), joined(f"ray:{address}"):
        """Nothing is reached."""


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"engine": "spark"}, "No engine 'spark'. Use --engine local, ray or ray:HOST:PORT"),
        ({"ray_gpus": 1.0}, "--ray-gpus requires --engine ray"),
        ({"ray_cpus": 2}, "--ray-cpus requires --engine ray"),
        ({"engine": "ray", "ray_gpus": -1.0}, "--ray-gpus takes a number of at least 0"),
        ({"engine": "ray", "ray_cpus": 0}, "--ray-cpus takes a number of at least 1"),
        ({"engine": "ray", "device": "cpu", "ray_gpus": 1.0}, "--ray-gpus 1 and --device cpu exclude each other"),
        ({"engine": "ray", "device": "cuda:0,1"}, "--engine ray takes --device auto, cpu or cuda"),
    ],
)
def test_settings_that_no_engine_has_are_refused(settings: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        Compute(**settings).check()
