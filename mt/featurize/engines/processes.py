"""A process per device of this machine: `--device cuda:0,1`, `cuda:all`, or `cpu,cpu`."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import Any

from mt.errors import MtError
from mt.featurize.engines.crew import Answered, Lost, Member
from mt.featurize.engines.worker import PassTerms, Unit, WorkerSetup
from mt.featurize.engines.worker_process import CODE

MOST_STARTS = 3  # starts of one process in a row after which the run stops, if it computed nothing


@dataclass(eq=False)
class ProcessMember(Member):
    """A worker process.  starts: the number of starts since its last answer."""

    device: str = ""
    starts: int = 0
    process: subprocess.Popen[bytes] | None = None
    link: Connection[Any, Any] | None = None


class ProcessCrew:
    """One worker process per device; one that ends is started again."""

    def __init__(self, setup: WorkerSetup, devices: Sequence[str]) -> None:
        self._setup = setup
        several = len(set(devices)) < len(devices)
        self._all = [
            ProcessMember(f"{device} ({number})" if several else device, device=device)
            for number, device in enumerate(devices, 1)
        ]
        try:
            for member in self._all:
                self._start(member)
            while any(member.facts is None for member in self._all):
                self.wait(60)
            refuse_other_devices(self._all)
        except BaseException:
            self.close()
            raise

    def members(self) -> Sequence[Member]:
        return [member for member in self._all if member.facts is not None]

    def give(self, member: Member, terms: PassTerms, unit: Unit) -> None:
        assert isinstance(member, ProcessMember)
        assert member.link is not None
        with suppress(OSError):  # where the worker ended, reading from it says so
            if member.terms_known != terms.number:
                member.link.send(("pass", terms))
                member.terms_known = terms.number
            member.link.send(("unit", unit))

    def wait(self, seconds: float) -> list[Answered | Lost]:
        links = {member.link: member for member in self._all if member.link is not None}
        found: list[Answered | Lost] = []
        for link in wait(list(links), seconds):
            event = self._heard(links[link])  # type: ignore[index]
            if event is not None:
                found.append(event)
        return found

    def close(self) -> None:
        for member in self._all:
            if member.process is not None:
                member.process.kill()
        for member in self._all:
            if member.process is not None:
                member.process.wait()
            if member.link is not None:
                member.link.close()
            member.process = member.link = member.facts = None

    def _start(self, member: ProcessMember) -> None:
        here, there = Pipe()
        with there:
            member.process = subprocess.Popen(
                [sys.executable, "-c", CODE, str(there.fileno()), json.dumps(sys.path)],
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr.fileno() if _has_descriptor() else subprocess.DEVNULL,
                pass_fds=[there.fileno()],
                start_new_session=True,  # Ctrl-C interrupts the process that writes, and that one ends its workers
            )
        member.link, member.terms_known = here, -1
        member.starts += 1
        here.send((self._setup, member.device))

    def _heard(self, member: ProcessMember) -> Answered | Lost | None:
        """Read one message of a worker; return the event, None if the message is not about units.

        Raises:
            MtError: it cannot do its work.
        """
        assert member.link is not None
        try:
            kind, value = member.link.recv()
        except (EOFError, OSError):
            return self._ended(member)
        if kind == "failed":
            raise MtError(f"Worker {member.name}: {value}")
        if kind == "ready":
            member.ready(value)
            return None
        member.starts = 0
        return Answered(member, value)

    def _ended(self, member: ProcessMember) -> Lost:
        assert member.process is not None
        assert member.link is not None
        member.link.close()
        code = member.process.wait()
        why = signal.Signals(-code).name if code < 0 else f"status {code}"
        if member.starts >= MOST_STARTS:
            raise MtError(f"Worker {member.name} ended {member.starts} times in a row, by {why}. Is memory short?")
        lost = Lost(Member(member.name, held=dict(member.held)), why)
        member.held.clear()
        member.facts = None
        self._start(member)
        return lost


def refuse_other_devices(members: Sequence[Member]) -> None:
    """Raise MtError unless all devices are of one model: their numbers differ in the last bits."""
    names = {str(member.facts.compute["device_name"]): member.name for member in members if member.facts is not None}
    if len(names) > 1:
        which = ", ".join(f"{place} is {name}" for name, place in names.items())
        raise MtError(f"The devices are not of one model: {which}. Name those of one model with --device.")


def _has_descriptor() -> bool:
    try:
        sys.stderr.fileno()
    except (OSError, ValueError):
        return False
    return True
