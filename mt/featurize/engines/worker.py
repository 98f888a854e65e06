"""A worker of any engine: the backbones on one device, and a stream of units that it computes.

A worker loads the backbones itself, from the same folders as the writing process.  Versions and fingerprints must
agree, so that its numbers are the same.
"""

from __future__ import annotations

import os
import queue
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mt.backbones.load import load_backbone
from mt.cache.content import ContentIndex
from mt.datasets.decoding import nvjpeg
from mt.datasets.decoding.notes import Notes
from mt.errors import DatasetError, MtError, WeightsError
from mt.featurize.embed import versions
from mt.featurize.engines.base import Computed, RowBatch
from mt.featurize.engines.one_device import Arriving, OneDevice
from mt.system.device import cap_from_environment, pick_device

if TYPE_CHECKING:
    from mt.datasets.base import ImageSource

SHARED = "Every worker reads images and weights itself: put them in a folder that all machines share, under one path."
_ANSWERS = 8  # computed batches that wait for their embeddings' copy


@dataclass(frozen=True)
class WorkerSetup:
    """What a worker needs to compute the same numbers as the writing process.

    models: weights and fingerprint by name.  workers: threads that decode.  folder: the folder of relative paths.
    samples: files that it must be able to read.  versions: versions of the packages that affect embeddings.
    on_device: whether the device decodes JPEG files.  environment: variables that say where weights are.
    """

    models: Mapping[str, tuple[str | None, str]]
    image_size: int | None
    trust_remote_code: tuple[str, ...]
    precision: str
    batch_size: int | None
    workers: int
    folder: str
    samples: tuple[str, ...]
    versions: Mapping[str, str]
    on_device: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class WorkerFacts:
    """A worker's description of itself.  compute: as files record it.  batch_size: the largest that fits."""

    host: str
    device: str
    compute: Mapping[str, Any]
    batch_size: int


@dataclass(frozen=True)
class PassTerms:
    """What all units of a pass share; images: None if every unit brings its own."""

    number: int
    images: ImageSource | None
    models: tuple[str, ...]
    batch_size: int
    threads: int


@dataclass(frozen=True)
class Unit:
    """Batches that one worker computes; images: the source of their rows, None for that of the pass."""

    number: int
    images: ImageSource | None
    batches: tuple[RowBatch, ...]

    @property
    def rows(self) -> int:
        """The number of rows in the batches."""
        return sum(len(batch.rows) for batch in self.batches)


@dataclass
class Answer:
    """A unit's results per batch: the rows' status, message and status per unreadable image, embeddings by model."""

    number_of_pass: int
    unit: int
    batches: list[tuple[np.ndarray, list[tuple[str, int]], dict[str, np.ndarray]]]
    notes: Notes | None = None


def started(setup: WorkerSetup, device: str) -> tuple[OneDevice, WorkerFacts]:
    """Load the backbones of a worker; return its engine and facts.

    Raises:
        MtError: versions differ, files or weights cannot be read here, or the weights differ.
    """
    agree(setup.versions, versions())
    os.environ.update(setup.environment)
    if os.path.isdir(setup.folder):
        os.chdir(setup.folder)
    for path in setup.samples:
        try:
            with open(path, "rb") as file:
                file.read(1)
        except OSError as error:
            raise DatasetError(f"cannot read {path} ({error.strerror}), which the run reads. {SHARED}") from error
    where = pick_device(device)
    if where.index is not None and where.type == "cuda":
        torch.cuda.set_device(where)
    cap_from_environment(where)
    if setup.on_device:
        nvjpeg.require(where)
    index = ContentIndex()
    backbones = {}
    for model, (weights, fingerprint) in setup.models.items():
        try:
            backbones[model] = load_backbone(
                model,
                weights,
                where,
                setup.image_size,
                precision=setup.precision,
                index=index,
                trust_remote_code=setup.trust_remote_code,
            )
        except WeightsError as error:
            raise WeightsError(f"{error} {SHARED}") from error
        if backbones[model].fingerprint != fingerprint:
            raise WeightsError(f"the weights of '{model}' here are not those that the run read. {SHARED}")
    engine = OneDevice(backbones, where, precision=setup.precision, batch_size=setup.batch_size, workers=setup.workers)
    return engine, WorkerFacts(socket.gethostname(), str(where), engine.describe(0), engine.batch_size)


def agree(there: Mapping[str, str], here: Mapping[str, str]) -> None:
    """Raise MtError if versions differ from those of the writing process."""
    differing = [
        f"{name} {here.get(name)} (the run has {there[name]})" for name in there if here.get(name) != there[name]
    ]
    if differing:
        raise MtError(f"has other versions: {', '.join(differing)}. Install the same ones on every machine.")


def in_words(error: BaseException) -> str:
    """Return an error's message in one line, with its class if it is not one of mt's own."""
    return str(error) if isinstance(error, MtError) else f"{type(error).__name__}: {' '.join(str(error).split())}"


class UnitStream:
    """Computes units in turn; decoding, copies and the network of successive units overlap.

    answer: called, in another thread, with the results of each unit.
    """

    def __init__(self, engine: OneDevice, answer: Callable[[Answer], None]) -> None:
        self._engine, self._answer = engine, answer
        self._inbox: queue.SimpleQueue[tuple[PassTerms, Unit] | None] = queue.SimpleQueue()
        self._next: tuple[PassTerms, Unit] | None = None
        self._begun: deque[tuple[PassTerms, Unit]] = deque()
        self._open = 0  # batches that were read from the inbox and not computed yet
        self._closed = False
        self._error: BaseException | None = None

    def put(self, terms: PassTerms, unit: Unit) -> None:
        """Hand over a unit."""
        self._inbox.put((terms, unit))

    def fail(self, error: BaseException) -> None:
        """Let `run` raise an error that another thread met."""
        self._error = error
        self._inbox.put(None)

    def run(self) -> None:
        """Compute units as long as the process lives.  Raises what computing raises."""
        with _Answering(self._answer, self.fail) as sink:
            while not self._closed:
                self._next = self._next or self._received()
                if self._next is None:
                    continue
                terms = self._next[0]
                torch.set_num_threads(terms.threads)
                for computed in self._engine.stream(self._arriving(terms), terms.models, terms.batch_size):
                    self._open -= 1
                    sink.put(*self._begun[0], computed)
                    if computed.work is self._begun[0][1].batches[-1]:
                        self._begun.popleft()
        if self._error is not None:
            raise self._error

    def _received(self, *, wait: bool = True) -> tuple[PassTerms, Unit] | None:
        """Return the next unit; None if there is none yet, or the stream is closed."""
        try:
            item = self._inbox.get(block=wait)
        except queue.Empty:
            return None
        self._closed = item is None
        return item

    def _arriving(self, terms: PassTerms) -> Iterator[Arriving]:
        """Yield the batches of units as they arrive, None while there are none; stop at a unit of another pass."""
        while True:
            item, self._next = self._next or self._received(wait=not self._open), None
            if self._closed:
                return
            if item is None:
                yield None
                continue
            if item[0] is not terms and item[0].number != terms.number:
                self._next = item
                return
            images = item[1].images or terms.images
            assert images is not None
            self._begun.append(item)
            self._open += len(item[1].batches)
            for batch in item[1].batches:
                yield images, batch


class _Answering:
    """A thread that waits for embeddings to be copied from the device, and answers when a unit is complete."""

    def __init__(self, answer: Callable[[Answer], None], fail: Callable[[BaseException], None]) -> None:
        self._answer, self._fail = answer, fail
        self._queue: queue.Queue[tuple[PassTerms, Unit, Computed] | None] = queue.Queue(_ANSWERS)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="answer", daemon=True)

    def put(self, terms: PassTerms, unit: Unit, computed: Computed) -> None:
        if self._error is not None:
            raise self._error
        self._queue.put((terms, unit, computed))

    def __enter__(self) -> _Answering:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        found: list[tuple[np.ndarray, list[tuple[str, int]], dict[str, np.ndarray]]] = []
        while (item := self._queue.get()) is not None:
            if self._error is not None:
                continue
            terms, unit, computed = item
            try:
                count = len(computed.status)
                errors = [(str(error), int(error.status)) for error in computed.errors]
                rows = {model: embedded.rows(count) for model, embedded in computed.embeddings.items()}
                found.append((computed.status, errors, rows))
                if computed.work is unit.batches[-1]:
                    self._answer(Answer(terms.number, unit.number, found, getattr(unit.images, "notes", None)))
                    found = []
            except BaseException as error:
                self._error = error
                self._fail(error)
