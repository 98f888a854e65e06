"""Which engine computes a request."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from mt.backbones.weights import RANDOM
from mt.datasets.decoding import nvjpeg
from mt.datasets.images import ImageFiles
from mt.featurize.embed import AUTO_BATCH_SIZE, Embedder, versions
from mt.featurize.engines.base import Engine
from mt.featurize.engines.crew import Crew
from mt.featurize.engines.many import ManyWorkers
from mt.featurize.engines.one_device import OneDevice
from mt.featurize.engines.processes import ProcessCrew
from mt.featurize.engines.worker import WorkerSetup
from mt.system.device import decoders, device_names, pick_device

if TYPE_CHECKING:
    from mt.datasets import Dataset
    from mt.featurize.loaded import LoadedBackbones
    from mt.featurize.request import FeaturizeRequest

FOR_WORKERS = ("MT_", "HF_", "TORCH_HOME", "XDG_CACHE_HOME")  # beginnings of environment variables sent to workers
SAMPLES = 3  # files per split that every worker must be able to read before it starts


def open_engine(request: FeaturizeRequest, dataset: Dataset, loaded: LoadedBackbones, models: Sequence[str]) -> Engine:
    """Return the engine that computes these models of the request for a dataset, ready to compute.

    Raises:
        InputError: a device that does not exist.
        MtError: a worker that cannot do its work.
    """
    compute = request.compute
    if compute.engine != "local":
        return _on_ray(request, dataset, loaded, models)
    devices = device_names(compute.device)
    if compute.by_workers:
        each = max(1, decoders() // len(devices))
        crew = ProcessCrew(_setup(request, dataset, loaded, models, workers=compute.workers or each), devices)
        return many_workers(crew, torch.device(devices[0].partition(":")[0]), request, loaded, models)
    device = pick_device(devices[0])
    if dataset.settings.decoder == "device":
        nvjpeg.require(device)  # before any file is made
    return OneDevice(
        {model: loaded.load(model) for model in models},
        device,
        precision=compute.precision,
        batch_size=compute.batch_size,
        workers=compute.workers or decoders(),
    )


def _on_ray(request: FeaturizeRequest, dataset: Dataset, loaded: LoadedBackbones, models: Sequence[str]) -> ManyWorkers:
    from mt.featurize.engines.ray_crew import RayCrew, size_of_workers
    from mt.featurize.engines.ray_link import join

    compute = request.compute
    ray = join(compute.engine)
    size = size_of_workers(
        ray, compute.device, cpus=compute.ray_cpus, gpus=compute.ray_gpus, threads=torch.get_num_threads()
    )
    crew = RayCrew(ray, _setup(request, dataset, loaded, models, workers=compute.workers or size.cpus), size)
    return many_workers(crew, torch.device("cuda" if size.gpus else "cpu"), request, loaded, models)


def many_workers(
    crew: Crew, device: torch.device, request: FeaturizeRequest, loaded: LoadedBackbones, models: Sequence[str]
) -> ManyWorkers:
    """Return the engine of a crew; if it computes on CPUs, this process can compare the bits of batch sizes itself."""
    backbones = [loaded.load(model) for model in models]
    embedders = {
        backbone.name: Embedder(
            backbone, device, precision=request.compute.precision, batch_size=AUTO_BATCH_SIZE["cpu"]
        )
        for backbone in backbones
        if device.type == "cpu"
    }
    return ManyWorkers(crew, embedders, {backbone.name: backbone.dim for backbone in backbones}, device)


def _setup(
    request: FeaturizeRequest, dataset: Dataset, loaded: LoadedBackbones, models: Sequence[str], *, workers: int
) -> WorkerSetup:
    return WorkerSetup(
        {model: (_absolute(loaded.weights[model]), loaded.load(model).fingerprint) for model in models},
        request.image_size,
        tuple(request.trust_remote_code),
        request.compute.precision,
        request.compute.batch_size,
        workers,
        os.getcwd(),
        tuple(path for split in dataset.splits.values() for path in _samples(split.images)),
        versions(),
        dataset.settings.decoder == "device",
        {name: value for name, value in os.environ.items() if name.startswith(FOR_WORKERS)},
    )


def _absolute(weights: str | None) -> str | None:
    return weights if weights in (None, RANDOM) else str(Path(weights).expanduser().absolute())


def _samples(images: object) -> list[str]:
    """Return some files that this process reads: the first, one in the middle, the last."""
    if not isinstance(images, ImageFiles):
        return []
    places = {0, len(images) // 2, len(images) - 1} - images.absent
    found = [os.path.abspath(images.paths[place]) for place in sorted(places)]
    return [path for path in found if os.access(path, os.R_OK)][:SAMPLES]
