"""The request of `mt featurize`: one frozen object, from the command line or from Python."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mt.cache.feature_file.shards import Shard
from mt.datasets import Dataset, DatasetSettings
from mt.datasets.registry import OnError
from mt.errors import InputError
from mt.system.device import device_names

PRECISIONS = ("float32", "tf32", "bfloat16", "float16")
DTYPES = ("float32", "float16")


@dataclass(frozen=True)
class Compute:
    """How embeddings are computed and stored; `None` means the device's default.

    device: `auto`, `cpu`, `cuda`, `mps`, or several (`cuda:0,1`).  precision: arithmetic of the network; one of
    `PRECISIONS`.  dtype: type of the stored embeddings; one of `DTYPES`.  batch_size: images per batch.  workers:
    threads that decode.  on_error: `raise` at an unreadable image, or `skip` it (its row stays, marked).
    overwrite: compute complete files again.  allow_mixed: resume a file that another device or other versions began.
    wait: seconds to wait for another writer.  engine: `local`, `ray` or `ray:ADDRESS`; each Ray worker takes `ray_gpus`
    GPUs and `ray_cpus` cores.
    """

    device: str = "auto"
    precision: str = "float32"
    dtype: str = "float32"
    batch_size: int | None = None
    workers: int | None = None
    on_error: OnError = "raise"
    overwrite: bool = False
    allow_mixed: bool = False
    wait: float = 0.0
    engine: str = "local"
    ray_gpus: float | None = None
    ray_cpus: int | None = None

    @property
    def by_workers(self) -> bool:
        """Whether workers compute, each in a process of its own."""
        return self.engine != "local" or len(device_names(self.device)) > 1

    def check(self) -> None:
        """Raise InputError for unknown values and for settings that contradict each other."""
        for option, value, known in (
            ("--precision", self.precision, PRECISIONS),
            ("--dtype", self.dtype, DTYPES),
        ):
            if value not in known:
                raise InputError(f"{option} takes one of {', '.join(known)}; got '{value}'.")
        for option, number in (
            ("--batch-size", self.batch_size),
            ("--workers", self.workers),
            ("--ray-cpus", self.ray_cpus),
        ):
            if number is not None and number < 1:
                raise InputError(f"{option} takes a number of at least 1, got {number}.")
        _check_engine(self)


def _check_engine(compute: Compute) -> None:
    """Raise InputError for an unknown engine, and for settings that it does not have."""
    kind = compute.engine.partition(":")[0]
    if compute.engine != "local" and kind != "ray":
        raise InputError(f"No engine '{compute.engine}'. Use --engine local, ray or ray:HOST:PORT.")
    if compute.ray_gpus is not None and compute.ray_gpus < 0:
        raise InputError(f"--ray-gpus takes a number of at least 0, got {compute.ray_gpus:g}.")
    if kind != "ray":
        for option, value in (("--ray-gpus", compute.ray_gpus), ("--ray-cpus", compute.ray_cpus)):
            if value is not None:
                raise InputError(f"{option} requires --engine ray.")
    elif compute.ray_gpus is not None and compute.device == ("cpu" if compute.ray_gpus else "cuda"):
        raise InputError(f"--ray-gpus {compute.ray_gpus:g} and --device {compute.device} exclude each other.")
    elif compute.device not in ("auto", "cpu", "cuda"):
        raise InputError(f"--engine ray takes --device auto, cpu or cuda; got '{compute.device}'. Size: --ray-gpus.")


@dataclass(frozen=True)
class FeaturizeRequest:
    """Which images go through which backbones, and how.

    datasets: names that `load_dataset` knows, or loaded datasets; `data_dir`, `download` and `settings` load the named
    ones.  models: backbone names; several share one pass over the images.
    splits: the splits to featurize; all if empty.  cache_dir: folder of feature files.
    weights: `random`, FILE, or MODEL=FILE.  image_size: side in pixels that the networks see; their own if None.
    limit: at most this many rows per split.  embeddings: embedding rules; each model is used with each of them.
    trust_remote_code: repositories of `hf:` models whose own code may be run.
    views: which views of an image the embeddings are averaged over: flips, fivecrop or d4; the image alone if None.
    shard: compute only this part of each file, into a file of its own; `mt cache merge` joins the parts.
    compute: device, precision, batch size and engine.
    """

    datasets: Sequence[Dataset | str]
    models: Sequence[str]
    splits: Sequence[str] = ()
    data_dir: Path | None = None
    download: bool = False
    settings: DatasetSettings = field(default_factory=DatasetSettings)
    cache_dir: Path | None = None
    weights: Sequence[str] = ()
    image_size: int | None = None
    limit: int | None = None
    embeddings: Sequence[str] = ()
    views: str | None = None
    trust_remote_code: Sequence[str] = ()
    shard: Shard | None = None
    compute: Compute = field(default_factory=Compute)

    def __post_init__(self) -> None:
        for name in ("datasets", "models", "splits", "weights", "embeddings", "trust_remote_code"):
            if isinstance(value := getattr(self, name), str):
                raise InputError(f"{name} takes a list, got the text '{value}'. Write {name}=['{value}'].")
