"""Many workers as one engine: free workers get units, and the units of a lost worker are given to others.

Every worker computes the same numbers, so of a unit that was given twice the first answer is used.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mt.cache.feature_file.format import Status
from mt.datasets import ImageError
from mt.datasets.base import Divisible, ImageSource
from mt.datasets.decoding.notes import Notes
from mt.datasets.images import ImageFiles
from mt.errors import DatasetError, MtError
from mt.featurize.engines.base import Computed, Pass, RowBatch
from mt.featurize.engines.crew import Answered, Crew, Lost, Member, in_rates
from mt.featurize.engines.worker import SHARED, Answer, PassTerms, Unit
from mt.system.device import pick_device

if TYPE_CHECKING:
    from mt.featurize.embed import Embedder

UNIT_ROWS = 256
HELD_BATCHES = 6  # that a worker has at a time, so that it decodes some while it computes others
MOST_BYTES = 256 << 20  # of embeddings that workers may be computing or sending
EVERY = 0.5  # seconds between two checks for late units
LATE = 3.0  # multiple of a unit's mean time after which an idle worker is given the unit, too
MOST_LOST = 3  # workers that ended while they held a unit, after which the run stops


class ManyWorkers:
    """An engine of several workers.

    embedders: what computes each model in this process, if its device is of the workers' kind.
    widths: the widths of the models' embeddings.
    """

    def __init__(
        self, crew: Crew, embedders: Mapping[str, Embedder], widths: Mapping[str, int], device: torch.device
    ) -> None:
        self._crew, self._embedders, self._widths, self.device = crew, embedders, widths, device
        facts = [member.facts for member in crew.members() if member.facts is not None]
        self.batch_size = min(one.batch_size for one in facts)
        self._compute = dict(facts[0].compute)
        self._passes = 0

    def named_device(self) -> str | None:
        return None if self.device.type in ("cuda", pick_device("auto").type) else self.device.type

    def describe(self, batch_size: int) -> dict[str, Any]:
        return {**self._compute, "batch_size": batch_size, "threads": torch.get_num_threads()}

    def embedder(self, model: str) -> Embedder | None:
        return self._embedders.get(model)

    def computed(self, one: Pass) -> Iterator[Computed]:
        self._passes += 1
        return _Handout(self._crew, one, self._passes, self._widths).run()

    def shown(self) -> str:
        return in_rates(self._crew.members())

    def close(self) -> None:
        self._crew.close()


class _Handout:
    """One pass over its units."""

    def __init__(self, crew: Crew, one: Pass, number: int, widths: Mapping[str, int]) -> None:
        self._crew, self._pass = crew, one
        own = isinstance(one.images, Divisible)
        self._terms = PassTerms(number, None if own else one.images, one.models, one.batch_size, one.threads)
        self._work = _in_units(one, len(crew.members()))
        self._pending = deque(range(len(self._work)))
        self._open = set(self._pending)
        self._lost: Counter[int] = Counter()
        self._took: deque[float] = deque(maxlen=100)  # seconds that the latest units took
        row_bytes = 4 * sum(widths[model] for model in one.models)
        unit_rows = max((len(batch.rows) * len(unit) for unit in self._work for batch in unit[:1]), default=1)
        self._most_given = max(1, MOST_BYTES // (row_bytes * unit_rows or 1))
        self._most_held = max(2, -(-HELD_BATCHES // max(map(len, self._work), default=1)))

    def run(self) -> Iterator[Computed]:
        """Yield every batch once."""
        while self._open:
            self._give()
            for event in self._crew.wait(EVERY):
                if isinstance(event, Lost):
                    self._take_back(event)
                else:
                    yield from self._taken(event)

    def _give(self) -> None:
        """Give units to the workers with the fewest, while there are units and room for their embeddings."""
        members = list(self._crew.members())
        given = sum(len(member.held) for member in members)
        while self._pending and members and given < max(len(members), self._most_given):
            member = min(members, key=lambda one: len(one.held))
            if len(member.held) >= self._allowed(len(members)):
                return
            self._hand(member, self._pending.popleft())
            given += 1
        if not self._pending:
            self._give_late_ones_again([member for member in members if not member.held])

    def _allowed(self, n_members: int) -> int:
        """Return how many units a worker may hold: fewer towards the end, so that all end together."""
        return min(self._most_held, max(1, len(self._pending) // (2 * n_members)))

    def _give_late_ones_again(self, idle: Sequence[Member]) -> None:
        if not idle or not self._took:
            return
        late = time.monotonic() - max(EVERY, LATE * sum(self._took) / len(self._took))
        holders = {
            unit: [m for m in self._crew.members() if (self._terms.number, unit) in m.held] for unit in self._open
        }
        for unit, holding in sorted(holders.items()):
            if idle and len(holding) == 1 and holding[0].held[self._terms.number, unit] < late:
                self._hand(idle[0], unit)
                idle = idle[1:]

    def _hand(self, member: Member, number: int) -> None:
        member.held[self._terms.number, number] = time.monotonic()
        self._crew.give(member, self._terms, self._unit(number))

    def _unit(self, number: int) -> Unit:
        """Return a unit with the part of the source that it needs, if the source can be divided."""
        batches = self._work[number]
        if self._terms.images is not None:
            return Unit(number, None, batches)
        rows = np.concatenate([batch.rows for batch in batches])
        starts = np.cumsum([0, *(len(batch.rows) for batch in batches)])
        places = [np.arange(first, last) for first, last in pairwise(starts.tolist())]
        own = tuple(replace(batch, rows=at) for batch, at in zip(batches, places, strict=True))
        return Unit(number, _part(self._pass.images, rows.tolist()), own)

    def _take_back(self, event: Lost) -> None:
        """Put the units that a worker held when it ended back in the queue."""
        held = list(event.member.held)
        event.member.held.clear()
        for number_of_pass, unit in held:
            if number_of_pass != self._terms.number or unit not in self._open:
                continue
            self._lost[unit] += 1
            if self._lost[unit] >= MOST_LOST:
                rows = self._work[unit][0].rows
                raise MtError(
                    f"{self._lost[unit]} workers ended while they computed the batches from row {rows[0]:,} on; "
                    f"the last, {event.member.name}, by {event.why}. Is memory short? Try a smaller --batch-size."
                )
            if not any((number_of_pass, unit) in other.held for other in self._crew.members()):
                self._pending.appendleft(unit)

    def _taken(self, event: Answered) -> Iterator[Computed]:
        """Yield the batches of an answer, unless another worker was first."""
        answer, member = event.answer, event.member
        given = member.held.pop((answer.number_of_pass, answer.unit), None)
        if answer.number_of_pass != self._terms.number or answer.unit not in self._open:
            return
        self._open.discard(answer.unit)
        if answer.unit in self._pending:
            self._pending.remove(answer.unit)
        member.answered(sum(len(status) for status, _, _ in answer.batches))
        if given is not None:
            self._took.append(time.monotonic() - given)
        if answer.notes is not None and isinstance(self._pass.images, ImageFiles):
            self._pass.images.notes.merge(answer.notes)
        yield from self._batches(answer, member)

    def _batches(self, answer: Answer, member: Member) -> Iterator[Computed]:
        for batch, (status, errors, rows) in zip(self._work[answer.unit], answer.batches, strict=True):
            if errors:
                self._refuse_what_is_read_here(batch, status, member)
            found = [ImageError(text, Status(code)) for text, code in errors]
            yield Computed(batch, status, found, {model: Arrived(values) for model, values in rows.items()})

    def _refuse_what_is_read_here(self, batch: RowBatch, status: np.ndarray, member: Member) -> None:
        """Raise DatasetError if a worker could not read an image that this process can read."""
        for row in batch.rows[status != Status.OK].tolist():
            (here,) = self._pass.images.load(row, row + 1)
            if not isinstance(here, ImageError):
                named = f" {self._pass.images.paths[row]}" if isinstance(self._pass.images, ImageFiles) else ""
                raise DatasetError(f"Worker {member.name} cannot read image{named}, which this machine reads. {SHARED}")


class Arrived:
    """Embeddings that a worker sent."""

    def __init__(self, values: np.ndarray) -> None:
        self._values = values

    def rows(self, count: int) -> np.ndarray:
        return self._values[:count]


def _in_units(one: Pass, n_workers: int) -> list[tuple[RowBatch, ...]]:
    """Return the batches in units of UNIT_ROWS, or smaller ones if there would be fewer than four per worker."""
    least = max(1, len(one.work) // (4 * max(1, n_workers)))
    size = max(1, min(UNIT_ROWS // one.batch_size, least))
    return [tuple(one.work[start : start + size]) for start in range(0, len(one.work), size)]


def _part(images: ImageSource, places: list[int]) -> ImageSource:
    """Return some images of a source, with remarks of their own if the source counts remarks."""
    assert isinstance(images, Divisible)
    part = images.only(places)
    return replace(part, notes=Notes()) if isinstance(part, ImageFiles) else part
