"""Fast workers get more units, late units go to a second worker, and waiting answers stay within a memory limit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from mt.cache.feature_file.format import Status
from mt.errors import MtError
from mt.featurize.engines import many
from mt.featurize.engines.base import Computed, Pass, RowBatch
from mt.featurize.engines.crew import Answered, Lost, Member, in_rates
from mt.featurize.engines.worker import Answer, PassTerms, Unit, WorkerFacts

FACTS = WorkerFacts("here", "cpu", {"device_name": "cpu"}, 4)


class Rows:
    """A source whose images are not files."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def load(self, start: int, stop: int) -> list[Any]:
        raise AssertionError("read in the process that writes")

    def content(self, index: Any) -> None:
        """Return nothing: the file's name does not depend on it."""


class PretendCrew:
    """Workers that answer at each wait; those in `stuck` never answer, and those in `die` end at their first unit."""

    def __init__(self, names: Sequence[str], stuck: Sequence[str] = (), die: Sequence[str] = ()) -> None:
        self.all = [Member(name, FACTS) for name in names]
        self.stuck, self.die = stuck, die
        self.given: list[tuple[Member, PassTerms, Unit]] = []
        self.counts = dict.fromkeys(names, 0)
        self.most = self.waits = 0

    def members(self) -> list[Member]:
        return self.all

    def give(self, member: Member, terms: PassTerms, unit: Unit) -> None:
        self.given.append((member, terms, unit))
        self.most = max(self.most, len(self.given))

    def wait(self, seconds: float) -> list[Answered | Lost]:
        self.waits += 1
        assert self.waits < 10_000, "units are waited for that nobody computes"
        for place, (member, terms, unit) in enumerate(self.given):
            if member.name in self.die:
                self.given = [one for one in self.given if one[0] is not member]
                if len(self.die) < len(self.all):
                    self.all.remove(member)
                return [Lost(member, "SIGKILL")]
            if member.name not in self.stuck:
                del self.given[place]
                self.counts[member.name] += 1
                batches: list[Any] = [
                    (
                        np.full(len(b.rows), Status.OK, np.uint8),
                        [],
                        {m: np.repeat(b.rows[:, None], 2, 1) for m in b.models},
                    )
                    for b in unit.batches
                ]
                return [Answered(member, Answer(terms.number, unit.number, batches))]
        return []

    def close(self) -> None:
        pass


def one_pass(n_batches: int = 40) -> Pass:
    work = [RowBatch(n, np.arange(4 * n, 4 * n + 4), ("dino",)) for n in range(n_batches)]
    return Pass(Rows(4 * n_batches), work, 4, 1)


def found(crew: PretendCrew, one: Pass) -> list[Computed]:
    engine = many.ManyWorkers(crew, {}, {"dino": 2}, torch.device("cpu"))
    return list(engine.computed(one))


def right(batches: Sequence[Computed], one: Pass) -> bool:
    """Return whether every batch is there once, with its own rows."""
    whole = sorted(batch.work.number for batch in batches) == [work.number for work in one.work]
    return whole and all((b.embeddings["dino"].rows(4)[:, 0] == b.work.rows).all() for b in batches)


def test_a_stuck_worker_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many, "EVERY", 0.0)
    one, crew = one_pass(), PretendCrew(["fast", "stuck"], stuck=["stuck"])
    assert right(found(crew, one), one)
    assert crew.counts["stuck"] == 0


def test_what_a_lost_worker_held_is_given_again() -> None:
    one, crew = one_pass(), PretendCrew(["a", "b", "c"], die=["b"])
    assert right(found(crew, one), one)
    assert crew.counts["b"] == 0


def test_a_unit_that_ends_every_worker_ends_the_run() -> None:
    with pytest.raises(MtError, match=r"3 workers ended while they computed the batches from row \d.*SIGKILL"):
        found(PretendCrew(["a"], die=["a"]), one_pass())


@pytest.mark.parametrize(("most", "given"), [(1, 3), (10 * 4 * 8, 10)])
def test_what_is_under_way_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch, most: int, given: int) -> None:
    monkeypatch.setattr(many, "MOST_BYTES", most)
    monkeypatch.setattr(many, "UNIT_ROWS", 4)
    crew = PretendCrew(["a", "b", "c"])
    one = one_pass(100)
    assert right(found(crew, one), one)
    assert crew.most == given


def test_passes_do_not_mix() -> None:
    crew = PretendCrew(["a", "b"])
    engine = many.ManyWorkers(crew, {}, {"dino": 2}, torch.device("cpu"))
    for one in (one_pass(), one_pass(7)):
        assert right(list(engine.computed(one)), one)


def test_rates_name_those_that_lag_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("mt.featurize.engines.crew.time.monotonic", lambda: now[0])
    members = [Member(f"host{number}") for number in range(6)]
    for member in members:
        member.ready(FACTS)
    now[0] = 10.0
    for number, member in enumerate(members):
        member.answered(100 if number == 3 else 1000)
    assert in_rates(members[:2]) == "host0 100.0/s, host1 100.0/s"
    assert in_rates(members) == "6 workers, 10.0 to 100.0/s each; slow: host3 10.0/s"
