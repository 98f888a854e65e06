"""Workers on a Ray cluster: `--engine ray[:ADDRESS]`, one actor per GPU or per group of cores."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from mt.errors import InputError, MtError
from mt.featurize.engines.crew import Answered, Lost, Member
from mt.featurize.engines.ray_actor import AT_ONCE, ActorWorker, Refusal
from mt.featurize.engines.worker import Answer, PassTerms, Unit, WorkerFacts, WorkerSetup
from mt.terminal import progress

LOOK = 2.0  # seconds between two checks of the cluster's nodes
QUIET = 20.0  # seconds without any worker, after which a line says what the run waits for
TOGETHER = 30.0  # seconds that the first worker waits for the others before the run begins
MOST_STARTS = 3  # workers in a row that ended before they were ready, after which the run stops


@dataclass(frozen=True)
class WorkerSize:
    """The resources of one worker.  gpus may be a fraction; 0 computes on the CPU."""

    cpus: int
    gpus: float

    def __str__(self) -> str:
        cpus = f"{self.cpus} CPU{'s' if self.cpus > 1 else ''}"
        return f"{cpus} and {self.gpus:g} GPU{'s' if self.gpus > 1 else ''}" if self.gpus else cpus

    def fits(self, resources: Mapping[str, float]) -> int:
        """Return the number of workers that fit on a node with these resources."""
        by_cpus = int(resources.get("CPU", 0) // self.cpus)
        return min(by_cpus, int(resources.get("GPU", 0) // self.gpus)) if self.gpus else by_cpus


@dataclass(eq=False)
class ActorMember(Member):
    """A worker that is a Ray actor."""

    actor: Any = None


class RayCrew:
    """As many actors as the cluster has room for; their number follows the nodes that leave and join.

    ray: the module, joined to a cluster.
    """

    def __init__(self, ray: Any, setup: WorkerSetup, size: WorkerSize) -> None:
        self._ray, self._size = ray, size
        self._setup = ray.put(setup)
        self._class = ray.remote(ActorWorker)
        self._all: list[ActorMember] = []
        self._refs: dict[Any, ActorMember] = {}
        self._terms: tuple[int, Any] = (-1, None)
        self._failed_starts, self._unlike, self._looked, self._heard = 0, 0, 0.0, time.monotonic()
        try:
            if not self._room():
                raise InputError(f"No node of the Ray cluster has {size}, which a worker takes. {_in_words(ray)}")
            began = time.monotonic()
            while not self.members() or (self._starting() and time.monotonic() - began < TOGETHER):
                self.wait(1.0)
        except BaseException:
            self.close()
            raise

    def members(self) -> Sequence[Member]:
        return [member for member in self._all if member.facts is not None]

    def give(self, member: Member, terms: PassTerms, unit: Unit) -> None:
        assert isinstance(member, ActorMember)
        if self._terms[0] != terms.number:
            self._terms = terms.number, self._ray.put(terms)
        self._refs[member.actor.embed.remote(terms.number, [self._terms[1]], unit)] = member

    def wait(self, seconds: float) -> list[Answered | Lost]:
        self._look()
        if not self._refs:
            time.sleep(min(seconds, LOOK))
            return []
        refs = list(self._refs)
        if not self._ray.wait(refs, timeout=seconds)[0]:
            return []
        ready, _ = self._ray.wait(refs, num_returns=len(refs), timeout=0)
        return [event for ref in ready if (event := self._event(ref)) is not None]

    def close(self) -> None:
        for member in self._all:
            self._ray.kill(member.actor)
        self._all, self._refs = [], {}

    def _starting(self) -> int:
        return sum(member.facts is None for member in self._all)

    def _room(self) -> int:
        nodes = [node for node in self._ray.nodes() if node["Alive"]]
        return sum(self._size.fits(node["Resources"]) for node in nodes)

    def _look(self) -> None:
        """Start workers on all room that the cluster has left."""
        now = time.monotonic()
        if self.members():
            self._heard = now
        elif now - self._heard > QUIET:
            self._heard = now
            progress.note(f"Waiting for the Ray cluster to start a worker on {self._size}.")
        if now - self._looked < LOOK:
            return
        self._looked = now
        for _ in range(self._room() - self._unlike - len(self._all)):
            actor = self._class.options(
                num_cpus=self._size.cpus, num_gpus=self._size.gpus, max_concurrency=AT_ONCE
            ).remote(self._setup, "cuda" if self._size.gpus else "cpu")
            member = ActorMember("", actor=actor)
            self._all.append(member)
            self._refs[actor.facts.remote()] = member

    def _event(self, ref: Any) -> Answered | Lost | None:
        """Return the event of a finished call, None if the call is not about units.

        Raises:
            MtError: the worker cannot do its work.
        """
        member = self._refs.pop(ref, None)
        if member is None:  # one of several calls of a worker that ended
            return None
        try:
            value = self._ray.get(ref)
        except self._ray.exceptions.RayError as error:
            return self._ended(member, error)
        if isinstance(value, Refusal):
            raise MtError(f"Worker {member.name or value.host}: {value.text}")
        if isinstance(value, Answer):
            return Answered(member, value)
        self._welcome(member, value)
        return None

    def _welcome(self, member: ActorMember, facts: WorkerFacts) -> None:
        """Accept a worker if its device is of the others' model; otherwise the last bits of embeddings would differ."""
        model = facts.compute["device_name"]
        first = next((one for one in self._all if one.facts is not None), None)
        if first is not None and first.facts is not None and first.facts.compute["device_name"] != model:
            other = f"{facts.host} computes on {model}, {first.name} on {first.facts.compute['device_name']}"
            if self._terms[0] < 0:  # nothing was given out yet
                raise MtError(f"The workers' devices are not of one model: {other}. Use nodes of one kind.")
            progress.note(f"Not used: {other}.")
            self._unlike += 1
            self._all.remove(member)
            self._ray.kill(member.actor)
            return
        taken = {one.name for one in self._all}
        names = (f"{facts.host} ({number})" if number > 1 else facts.host for number in count(1))
        member.name = next(name for name in names if name not in taken)
        self._failed_starts = 0
        member.ready(facts)

    def _ended(self, member: ActorMember, error: Exception) -> Lost | None:
        self._all.remove(member)
        self._refs = {ref: other for ref, other in self._refs.items() if other is not member}
        why = _first_line(error)
        if member.facts is not None:
            return Lost(Member(member.name, held=dict(member.held)), why)
        self._failed_starts += 1
        if self._failed_starts >= MOST_STARTS:
            raise MtError(f"Workers on the Ray cluster do not start: {why}. Look at every node: mt doctor --engine ray")
        return None


def size_of_workers(ray: Any, device: str, *, cpus: int | None, gpus: float | None, threads: int) -> WorkerSize:
    """Return each worker's resources: as asked for, else one GPU with its share of the cores, or `threads` cores.

    Raises:
        InputError: GPUs are asked for, and the cluster has none.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    with_gpus = [one for one in nodes if one.get("GPU", 0)]
    if device == "auto":
        gpus = (1.0 if with_gpus else 0.0) if gpus is None else gpus
    elif device == "cpu":
        gpus = 0.0
    else:
        gpus = 1.0 if gpus is None else gpus
    if gpus and not with_gpus:
        raise InputError(f"No node of the Ray cluster has a GPU. {_in_words(ray)} To compute on CPUs: --device cpu")
    most = int(max((one.get("CPU", 0) for one in nodes), default=1))
    if gpus:
        share = min(int(one.get("CPU", 0) * gpus // one["GPU"]) for one in with_gpus)
        return WorkerSize(cpus or max(1, min(16, share)), gpus)
    return WorkerSize(cpus or max(1, min(threads, most)), 0.0)


def _in_words(ray: Any) -> str:
    """Return the sentence that lists the resources of the cluster's nodes."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    has = [(node["NodeManagerHostname"], node["Resources"]) for node in nodes]
    each = [f"{host}: {WorkerSize(int(its.get('CPU', 0)), its.get('GPU', 0.0))}" for host, its in has]
    return f"It has {', '.join(each)}."


def _first_line(error: Exception) -> str:
    """Return Ray's reason for the end of a worker, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = [line for line in lines if "Error" in line or "exit" in line.lower() or "died" in line.lower()]
    return (named or lines or [type(error).__name__])[-1 if named and "Error" in named[-1] else 0].rstrip(".")[:200]
