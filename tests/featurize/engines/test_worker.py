"""A worker answers every unit of its stream, in whatever order units arrive, on a device and on the CPU."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from mt import load_backbone, load_dataset
from mt.datasets import ImageError
from mt.datasets.images import ImageFiles
from mt.featurize.engines.base import RowBatch
from mt.featurize.engines.one_device import OneDevice
from mt.featurize.engines.worker import Answer, PassTerms, Unit, UnitStream
from tests.featurize.conftest import TINY


class Worker:
    """A stream that runs in a thread."""

    def __init__(self, device: torch.device) -> None:
        backbone = load_backbone(TINY, "random", device, image_size=32)
        engine = OneDevice({TINY: backbone}, device, precision="float32", batch_size=4, workers=2)
        self.answers: queue.Queue[Answer] = queue.Queue()
        self.error: BaseException | None = None
        self.stream = UnitStream(engine, self.answers.put)
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self) -> None:
        try:
            self.stream.run()
        except BaseException as error:
            self.error = error


@pytest.fixture(params=["cpu", "pretend"])
def worker(request: pytest.FixtureRequest) -> Iterator[Worker]:
    where = torch.device("cpu") if request.param == "cpu" else request.getfixturevalue("pretend")
    made = Worker(where)
    yield made
    made.stream.fail(KeyboardInterrupt())
    made.thread.join(60)


def unit(images: ImageFiles, number: int, rows: list[int]) -> Unit:
    """Return a unit of two batches."""
    places = np.arange(len(rows))
    batches = tuple(RowBatch(2 * number + n, part, (TINY,)) for n, part in enumerate(np.split(places, [4])))
    return Unit(number, images.only(rows), batches)


def test_each_unit_is_answered_as_it_comes_and_in_passes(photos: Path, worker: Worker) -> None:
    images = load_dataset(f"folder:{photos}").splits["train"].images
    assert isinstance(images, ImageFiles)
    backbone = load_backbone(TINY, "random", image_size=32)
    with torch.inference_mode():
        loaded = [one for one in images.load(0, 24) if not isinstance(one, ImageError)]
        plain = torch.stack([backbone.model(backbone.preprocess(one)[None])[0] for one in loaded]).numpy()
    for number_of_pass in (1, 2):
        terms = PassTerms(number_of_pass, None, (TINY,), 4, 1)
        for number in range(3):  # the next one is sent once this one is answered: nothing is held back
            worker.stream.put(terms, unit(images, number, list(range(8 * number, 8 * number + 7))))
            answer = worker.answers.get(timeout=60)
            assert (answer.number_of_pass, answer.unit) == (number_of_pass, number)
            rows = np.concatenate([rows[TINY] for _, _, rows in answer.batches])
            np.testing.assert_allclose(rows, plain[8 * number : 8 * number + 7], atol=1e-5)


def test_what_fails_in_another_thread_ends_the_stream(worker: Worker) -> None:
    worker.stream.fail(OSError("gone"))
    worker.thread.join(60)
    assert str(worker.error) == "gone"
