"""Ray actors on two nodes make the file of a plain run, byte for byte, even if nodes and workers die."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mt import doctor
from mt.errors import DatasetError, InputError, MtError
from mt.featurize.embed import Embedder
from mt.featurize.engines import opening, ray_check
from mt.featurize.engines.crew import Answered
from mt.featurize.request import Compute
from tests.featurize.engines import sources
from tests.featurize.extracting import CPU, featurize, same

pytest.importorskip("ray", reason="Ray is not installed")
import ray
from ray.cluster_utils import Cluster

from mt.featurize.engines import ray_link
from mt.featurize.engines.ray_crew import RayCrew

pytestmark = [pytest.mark.usefixtures("small_blocks"), pytest.mark.slow]
ROOT = Path(__file__).parents[3]
HOST = socket.gethostname()


SMALL: dict[str, Any] = {"object_store_memory": 80 << 20}


@pytest.fixture(scope="module")
def shared() -> Iterator[Cluster]:
    """Start a cluster whose head computes nothing; its workers find this checkout."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")  # other tests would starve them
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **SMALL})
        try:
            yield made
        finally:
            ray.shutdown()
            made.shutdown()  # type: ignore[no-untyped-call]


@pytest.fixture
def cluster(shared: Cluster) -> Cluster:
    """Return the cluster with two nodes of one core each."""
    while len(shared.worker_nodes) < 2:
        shared.add_node(num_cpus=1, **SMALL)
    return shared


@pytest.fixture
def on_ray(cluster: Cluster) -> Compute:
    return replace(CPU, engine=f"ray:{cluster.address}")


def test_two_nodes_make_the_file_of_one_process(
    photos: Path, tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = featurize(photos, tmp_path / "plain")
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    monkeypatch.setattr(Embedder, "__call__", None)  # nothing is embedded in this process
    assert same(featurize(photos, tmp_path / "ray", compute=replace(CPU, engine="ray")), plain)


def test_a_process_stays_in_the_cluster_that_it_joined(
    photos: Path, tmp_path: Path, on_ray: Compute, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = []
    for name in ("a", "b"):
        featurize(photos, tmp_path / name, splits=["train"], compute=on_ray)
        jobs.append(ray.get_runtime_context().get_job_id())
    assert jobs[0] == jobs[1]
    with pytest.raises(InputError, match=rf"joined --engine {on_ray.engine}, .*: --engine ray:127.0.0.1:1 needs"):
        ray_link.join("ray:127.0.0.1:1")
    monkeypatch.setattr(ray_link, "_ASKED", {})  # as if the user had joined it
    assert ray_link.join("ray:127.0.0.1:1") is ray


def test_a_worker_that_is_killed_and_one_that_hangs_cost_their_units_time_alone(
    photos: Path, tmp_path: Path, on_ray: Compute
) -> None:
    plain = featurize(photos, tmp_path / "plain", splits=["train"])
    dataset = sources.elsewhere(photos, sources.dies_then_hangs, tmp_path / "died")
    assert same(featurize(dataset, tmp_path / "ray", splits=["train"], compute=on_ray), plain)
    assert (tmp_path / "died.hung").exists()


def test_nodes_that_go_are_done_without_and_a_node_that_comes_is_used(
    photos: Path, tmp_path: Path, cluster: Cluster, on_ray: Compute, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = featurize(photos, tmp_path / "plain", splits=["train"])
    honest, old = RayCrew.wait, list(cluster.worker_nodes)

    def changing(self: RayCrew, seconds: float) -> list[Any]:
        found = honest(self, seconds)
        while old and any(isinstance(event, Answered) for event in found):
            cluster.remove_node(old.pop())
            if not old:
                cluster.add_node(num_cpus=1, **SMALL)
        return found

    monkeypatch.setattr(RayCrew, "wait", changing)
    assert same(featurize(photos, tmp_path / "ray", splits=["train"], compute=on_ray), plain)
    assert not old


def test_a_run_whose_driver_is_killed_resumes(photos: Path, tmp_path: Path, on_ray: Compute) -> None:
    plain = featurize(photos, tmp_path / "plain", splits=["train"])
    code = f"""
import os, signal
from dataclasses import replace
from pathlib import Path
from mt.cache.feature_file.write import FeatureWriter
from mt.featurize import run
from tests.featurize.extracting import CPU, featurize, same
run.BLOCK_ROWS, write = 8, FeatureWriter.write_block
def killed(self, *block):
    write(self, *block)
    os.kill(os.getpid(), signal.SIGKILL)
FeatureWriter.write_block = killed
featurize(Path({str(photos)!r}), Path({str(tmp_path / "ray")!r}), splits=["train"],
          compute=replace(CPU, engine={on_ray.engine!r}))
"""
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == -signal.SIGKILL, ran.stderr
    assert list((tmp_path / "ray").rglob("*.partial"))
    assert same(featurize(photos, tmp_path / "ray", splits=["train"], compute=on_ray), plain)


def test_a_worker_that_cannot_see_the_images_is_named_by_its_host(
    photos: Path, tmp_path: Path, on_ray: Compute
) -> None:
    dataset = sources.elsewhere(photos, sources.sees_nothing, tmp_path / "flag")
    with pytest.raises(DatasetError, match=rf"Worker {HOST}.* cannot read image.*folder that all machines share"):
        featurize(dataset, tmp_path / "cache", splits=["train"], compute=replace(on_ray, on_error="skip"))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("versions", lambda: {"torch": "0.1"}, r"has other versions: torch .* \(the run has 0\.1\)"),
        ("_absolute", lambda weights: "/nowhere/dino.pth", r"/nowhere/dino\.pth.*folder that all machines share"),
        ("_samples", lambda images: ["/nowhere/1.png"], r"cannot read /nowhere/1\.png.*folder that all machines share"),
    ],
)
def test_a_worker_that_is_not_like_the_driver_is_named_by_its_host(
    photos: Path, tmp_path: Path, on_ray: Compute, monkeypatch: pytest.MonkeyPatch, name: str, value: Any, said: str
) -> None:
    monkeypatch.setattr(opening, name, value)
    with pytest.raises(MtError, match=f"^Worker {HOST}: .*{said}") as caught:
        featurize(photos, tmp_path / "cache", compute=on_ray)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "cache").rglob("*.partial"))


def test_workers_that_no_node_holds_are_refused(photos: Path, tmp_path: Path, on_ray: Compute) -> None:
    with pytest.raises(InputError, match=r"No node of the Ray cluster has 9 CPUs.*It has .*: 1 CPU"):
        featurize(photos, tmp_path / "cache", compute=replace(on_ray, ray_cpus=9))
    with pytest.raises(InputError, match=r"No node of the Ray cluster has a GPU.*--device cpu"):
        featurize(photos, tmp_path / "cache", compute=replace(on_ray, device="auto", ray_gpus=1.0))


def test_the_doctor_looks_at_every_node(tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["--engine", f"ray:{cluster.address}", "--cache-dir", str(tmp_path), "--json"]
    nodes = [one for one in findings(arguments) if one["what"].startswith("node ")]
    assert [one["what"] for one in nodes] == [f"node {HOST}"] * 3
    assert {one["state"] for one in nodes} == {"ok"}
    assert "reads " in nodes[0]["found"]
    monkeypatch.setattr(ray_check, "installed", lambda: {"torch": "0.1"})
    other = [one for one in findings(arguments) if one["what"].startswith("node ")]
    assert {one["state"] for one in other} == {"bad"}
    assert "(here 0.1)" in other[0]["found"]


def findings(arguments: list[str]) -> list[dict[str, str]]:
    ran = CliRunner().invoke(doctor.doctor, arguments)
    return [json.loads(line) for line in ran.stdout.splitlines()]
