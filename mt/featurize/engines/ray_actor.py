"""A worker as a Ray actor.  Ray is imported only on the cluster's side: `RayCrew` makes the actor from this class."""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from mt.featurize.engines.worker import Answer, PassTerms, Unit, UnitStream, WorkerFacts, WorkerSetup, in_words, started

AT_ONCE = 8  # calls that run in an actor at a time: the units that it holds, so that it decodes ahead


@dataclass(frozen=True)
class Refusal:
    """Why a worker cannot do its work, in one line, and where it is."""

    host: str
    text: str


class ActorWorker:
    """Computes units; errors are returned as `Refusal`, since Ray would raise them with a traceback."""

    def __init__(self, setup: WorkerSetup, device: str) -> None:
        self._problem: Refusal | None = None
        self._facts: WorkerFacts | None = None
        self._waiting: dict[int, Future[Answer | Refusal]] = {}
        self._lock = threading.Lock()
        self._terms: PassTerms | None = None
        try:
            engine, self._facts = started(setup, device)
        except BaseException as error:
            self._problem = Refusal(socket.gethostname(), in_words(error))
            return
        self._stream = UnitStream(engine, self._answered)
        threading.Thread(target=self._compute, name="compute", daemon=True).start()

    def facts(self) -> WorkerFacts | Refusal | None:
        """Return the worker's facts, or why it cannot work."""
        return self._facts or self._problem

    def embed(self, number_of_pass: int, terms: Sequence[Any], unit: Unit) -> Answer | Refusal | None:
        """Return a unit's results.  terms: a reference to those of its pass, which are fetched once."""
        with self._lock:
            if self._problem is None and (self._terms is None or self._terms.number != number_of_pass):
                try:
                    self._terms = _fetched(terms[0])
                except Exception as error:  # a source that opens its file when it arrives
                    self._problem = Refusal(socket.gethostname(), in_words(error.__cause__ or error))
            if self._problem is not None or self._terms is None:
                return self._problem
            waiting = self._waiting[unit.number] = Future()
            self._stream.put(self._terms, unit)
        return waiting.result()

    def _answered(self, answer: Answer) -> None:
        with self._lock:
            waiting = self._waiting.pop(answer.unit)
        waiting.set_result(answer)

    def _compute(self) -> None:
        try:
            self._stream.run()
        except BaseException as error:
            with self._lock:
                self._problem = Refusal(socket.gethostname(), in_words(error))
                for waiting in self._waiting.values():
                    waiting.set_result(self._problem)


def _fetched(reference: Any) -> PassTerms:
    import ray

    terms: PassTerms = ray.get(reference)
    return terms
