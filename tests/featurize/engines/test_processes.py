"""One process per device makes the file of a plain run, byte for byte, even if processes die."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mt.errors import DatasetError, InputError, MtError
from mt.featurize.embed import Embedder
from mt.featurize.engines import processes, worker
from mt.featurize.engines.crew import Member
from mt.featurize.request import Compute
from mt.system.device import device_names
from tests.featurize.conftest import TINY
from tests.featurize.engines import sources
from tests.featurize.extracting import CPU, featurize, same

pytestmark = pytest.mark.usefixtures("small_blocks")
TWO = replace(CPU, device="cpu,cpu")


@pytest.fixture
def nothing_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail if this process embeds an image: only workers may."""

    def refused(self: Embedder, pixels: Any) -> None:
        raise AssertionError("embedded in the process that writes")

    monkeypatch.setattr(Embedder, "__call__", refused)


def test_two_processes_make_the_file_of_one(photos: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    (photos / "train" / "tumour" / "007.png").write_bytes(b"")
    plain = featurize(photos, tmp_path / "plain", compute=replace(CPU, on_error="skip", dtype="float16"))
    request.getfixturevalue("nothing_here")
    workers = featurize(photos, tmp_path / "workers", compute=replace(TWO, on_error="skip", dtype="float16"))
    assert [result.skipped for result in workers] == [1, 0]
    assert same(workers, plain)


def test_a_process_that_is_killed_and_one_that_hangs_cost_their_units_time_alone(photos: Path, tmp_path: Path) -> None:
    plain = featurize(photos, tmp_path / "plain", splits=["train"])
    dataset = sources.elsewhere(photos, sources.dies_then_hangs, tmp_path / "died")
    workers = featurize(dataset, tmp_path / "workers", splits=["train"], compute=TWO)
    assert (tmp_path / "died.hung").exists()
    assert same(workers, plain)


@pytest.mark.slow
def test_images_that_kill_every_process_are_named_and_what_was_done_stays(photos: Path, tmp_path: Path) -> None:
    dataset = sources.elsewhere(photos, sources.dies, tmp_path / "died")
    with pytest.raises(MtError, match=r"SIGKILL.*memory"):
        featurize(dataset, tmp_path / "cache", splits=["train"], compute=TWO)
    plain = featurize(photos, tmp_path / "plain", splits=["train"])
    assert same(featurize(photos, tmp_path / "cache", splits=["train"]), plain)


@pytest.mark.parametrize(
    ("deed", "error", "said"),
    [
        (sources.sees_nothing, DatasetError, r"Worker cpu \([12]\) cannot read image.*folder that all machines share"),
        (sources.fails, MtError, r"Worker cpu \([12]\): ValueError: no such colour"),
    ],
)
def test_a_worker_that_fails_is_named_in_one_line(
    photos: Path, tmp_path: Path, deed: Any, error: Any, said: str
) -> None:
    dataset = sources.elsewhere(photos, deed, tmp_path / "flag")
    with pytest.raises(error, match=said) as caught:
        featurize(dataset, tmp_path / "cache", splits=["train"], compute=replace(TWO, on_error="skip"))
    assert "\n" not in str(caught.value)


def test_a_worker_checks_what_it_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a worker stays in the run's folder; here that is undone
    setup = worker.WorkerSetup(
        {TINY: ("random", "another fingerprint")}, 32, (), "float32", 4, 1, str(tmp_path), (), {}
    )
    with pytest.raises(MtError, match=f"weights of '{TINY}' here are not those"):
        worker.started(setup, "cpu")
    with pytest.raises(MtError, match=r"has other versions: torch .* \(the run has 0\.1\)"):
        worker.started(replace(setup, versions={"torch": "0.1"}), "cpu")
    with pytest.raises(DatasetError, match=r"cannot read .*gone\.png .*folder that all machines share"):
        worker.started(replace(setup, samples=(str(tmp_path / "gone.png"),)), "cpu")


@pytest.mark.parametrize("names", ["cpu,cuda:0", "cpu,", "cuda:0,cpu"])
def test_devices_are_of_one_kind(photos: Path, tmp_path: Path, names: str) -> None:
    with pytest.raises(InputError, match="devices of one kind"):
        featurize(photos, tmp_path / "cache", compute=replace(CPU, device=names))


@pytest.mark.parametrize(
    ("asked", "cards", "names"),
    [
        ("cuda:all", 3, ["cuda:0", "cuda:1", "cuda:2"]),
        ("cuda:all", 1, ["cuda"]),
        ("cuda:1,3", 4, ["cuda:1", "cuda:3"]),
        ("cuda:0,cuda:2", 4, ["cuda:0", "cuda:2"]),
        ("cpu,cpu", 0, ["cpu", "cpu"]),
        ("mps", 0, ["mps"]),
    ],
)
def test_device_names(asked: str, cards: int, names: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: cards)
    assert device_names(asked) == names
    assert Compute(device=asked).by_workers == (len(names) > 1)


def test_devices_of_two_models_are_refused() -> None:
    members = [
        Member(f"cuda:{number}", worker.WorkerFacts("here", f"cuda:{number}", {"device_name": name}, 4))
        for number, name in enumerate(("H100", "A100"))
    ]
    with pytest.raises(MtError, match=r"cuda:0 is H100, cuda:1 is A100\. .*--device"):
        processes.refuse_other_devices(members)
    processes.refuse_other_devices(members[:1])
