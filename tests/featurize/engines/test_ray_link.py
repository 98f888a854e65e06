"""A Ray cluster that is missing or does not answer gives one clear line at once."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mt.errors import InputError, MissingExtraError
from mt.featurize.engines.ray_crew import WorkerSize, size_of_workers
from mt.featurize.engines.ray_link import join
from mt.featurize.request import Compute


def test_ray_that_is_not_installed_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'medical-transfer\[ray\]'"):
        join("ray")


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("127.0.0.1:1", r"No Ray cluster answers at 127\.0\.0\.1:1 \(Connection refused\).*ray start --head"),
        ("ray://127.0.0.1:1", r"No Ray cluster answers at ray://127\.0\.0\.1:1"),
        ("gpu-07", r"names no address: expected ray:HOST:PORT"),
    ],
)
def test_an_address_that_does_not_answer_is_named(address: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    with pytest.raises(InputError, match=said):
        join(f"ray:{address}")
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(InputError, match=said):
        join("ray")


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


NODES = [{"CPU": 64.0, "GPU": 8.0}, {"CPU": 32.0, "GPU": 8.0}, {"CPU": 4.0}]


@pytest.mark.parametrize(
    ("nodes", "device", "asked", "size", "workers"),
    [
        (NODES, "auto", {}, WorkerSize(4, 1.0), 16),
        (NODES, "cuda", {"gpus": 0.5}, WorkerSize(2, 0.5), 32),
        (NODES, "auto", {"gpus": 2.0, "cpus": 16}, WorkerSize(16, 2.0), 6),
        (NODES, "cpu", {}, WorkerSize(6, 0.0), 15),
        (NODES, "auto", {"gpus": 0.0, "cpus": 4}, WorkerSize(4, 0.0), 25),
        (NODES[2:], "auto", {}, WorkerSize(4, 0.0), 1),
    ],
)
def test_a_worker_takes_a_gpu_and_its_share_of_the_cores_or_as_many_cores_as_threads(
    nodes: list[dict[str, float]], device: str, asked: dict[str, Any], size: WorkerSize, workers: int
) -> None:
    cluster = SimpleNamespace(
        nodes=lambda: [{"Alive": True, "NodeManagerHostname": "gpu-01", "Resources": one} for one in nodes]
    )
    found = size_of_workers(cluster, device, cpus=asked.get("cpus"), gpus=asked.get("gpus"), threads=6)
    assert found == size
    assert sum(size.fits(one) for one in nodes) == workers
