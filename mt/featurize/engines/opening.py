"""Which engine computes a request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mt.featurize.engines.base import Engine
from mt.system.device import decoders, pick_device

if TYPE_CHECKING:
    from mt.datasets import Dataset
    from mt.featurize.loaded import LoadedBackbones
    from mt.featurize.request import FeaturizeRequest


def open_engine(request: FeaturizeRequest, dataset: Dataset, loaded: LoadedBackbones, models: Sequence[str]) -> Engine:
    """Return what computes these models of the request for a dataset, ready to compute."""
    from mt.datasets.decoding import nvjpeg
    from mt.featurize.engines.one_device import OneDevice

    compute = request.compute
    device = pick_device(compute.device)
    if dataset.settings.decoder == "device":
        nvjpeg.require(device)  # before any file is made
    return OneDevice(
        {model: loaded.load(model) for model in models},
        device,
        precision=compute.precision,
        batch_size=compute.batch_size,
        workers=compute.workers or decoders(),
    )
