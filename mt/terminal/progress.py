"""Progress on stderr: a bar on a terminal, a line every 30 seconds elsewhere; and counts in words."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, runtime_checkable

EVERY = 30.0  # seconds between two lines off a terminal
SLOW = 0.5  # units per second below which a rate is said per minute


class Advance(Protocol):
    """Called with the number of further units that are done."""

    def __call__(self, amount: int, /) -> None: ...


@runtime_checkable
class Overview(Protocol):
    """A stderr that shows the bars of a larger work's parts inside its own bar."""

    def part(self, label: str, total: int, *, unit: str, done: int) -> AbstractContextManager[Advance]:
        """Show how far a part is; yields a function that advances it."""


@contextmanager
def bar(
    label: str,
    total: int,
    *,
    unit: str = "images",
    done: int = 0,
    clock: Callable[[], float] = time.monotonic,
    more: Callable[[], str] = str,
) -> Iterator[Advance]:
    """Show one bar with count, rate and time left; yields a function that advances it.

    more: returns further text to show, such as the rate of each of several workers.
    Off a terminal one line is printed every `EVERY` seconds of `clock`, and none for work that takes less.
    """
    if isinstance(sys.stderr, Overview):
        with sys.stderr.part(label, total, unit=unit, done=done) as advance_part:
            yield advance_part
        return
    if not sys.stderr.isatty():
        lines = _Lines(label, total, unit, done, clock, more)
        with lines.watched():
            yield lines.advance
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[more]}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(label, total=total, completed=done, rate="", more="")

        def advance(amount: int) -> None:
            speed = progress.tasks[0].speed
            progress.update(task, advance=amount, rate=f"{speed:.1f}/s" if speed else "", more=more())

        yield advance


class _Lines:
    """Progress in a log: one line every `EVERY` seconds, also while a single unit takes longer than that.

    total: 0 where it is not known.
    """

    def __init__(
        self, label: str, total: int, unit: str, done: int, clock: Callable[[], float], more: Callable[[], str] = str
    ) -> None:
        self._label, self._total, self._unit, self._done, self._clock = label, total, unit, done, clock
        self._more = more
        self._began = self._said = clock()
        self._before = done
        self._lock, self._over = threading.Lock(), threading.Event()

    def advance(self, amount: int) -> None:
        with self._lock:
            self._done += amount
        self.say()

    def say(self) -> None:
        """Print a line, if it is time."""
        with self._lock:
            now = self._clock()
            if now - self._said < EVERY or 0 < self._total <= self._done:
                return
            self._said = now
            rate = (self._done - self._before) / (now - self._began)
            of = f" of {self._total:,}" if self._total else ""
            speed = f", {rate:.1f}/s" if rate >= SLOW else f", {60 * rate:.1f}/min" if rate else ""
            left = f", {(self._total - self._done) / rate / 60:.0f} min left" if rate and self._total else ""
            more = f"; {more}" if (more := self._more()) else ""
            note(f"{self._label}: {self._done:,}{of} {self._unit}{speed}{left}{more}")

    @contextmanager
    def watched(self) -> Iterator[None]:
        """While inside, look at the clock in a separate thread."""
        thread = threading.Thread(target=self._watch, name=self._label, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    def _watch(self) -> None:
        while not self._over.wait(EVERY):
            self.say()


def note(message: str) -> None:
    """Print one line for people on stderr."""
    print(message, file=sys.stderr, flush=True)


def counted(number: int, one: str, many: str | None = None) -> str:
    """Return a number with its noun: `1 file`, `2,000 files`.  many: the plural, if it is not `one` and an s."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
