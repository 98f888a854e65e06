"""One progress bar over a whole study: what is done, what runs, and the time left."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from typing import TYPE_CHECKING

from mt.terminal.progress import Advance

if TYPE_CHECKING:
    from rich.progress import Progress


class Overall:
    """Shows how far a study is: one bar on a terminal, one line per step elsewhere.

    n_steps and work: steps, and units of work in all of them.
    """

    def __init__(self, n_steps: int, work: int) -> None:
        self.n_steps, self.work = n_steps, work
        self._step, self._done, self._began = 0, 0, time.monotonic()
        self._bar: Progress | None = None

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Show the bar while inside, if stderr is a terminal."""
        if not sys.stderr.isatty():
            yield
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("done, running"),
            TextColumn("{task.description}", markup=False),
            TimeRemainingColumn(),
            TextColumn("left"),
        )
        console = Console(file=sys.stderr, highlight=False)
        with Progress(*columns, console=console, transient=True, redirect_stderr=False) as self._bar:
            self._bar.add_task("", total=self.work)
            yield
        self._bar = None

    @contextmanager
    def running(self, what: str, work: int) -> Iterator[None]:
        """Show that a step runs; what the step itself prints goes above the bar, and its own bars move it."""
        self._step += 1
        if self._bar is None:
            gone = time.monotonic() - self._began
            self.note(f"[{self._step}/{self.n_steps}] {what} (after {gone:.0f} s)")
            yield
            return
        self.show(what, 0)
        with redirect_stderr(_Above(self, what, work)):
            yield
        self._done += work
        self.show(what, 0)

    def show(self, text: str, more: float) -> None:
        """Show what runs.  more: units done beyond those of finished steps; the bar never moves back."""
        if self._bar is not None:
            (task,) = self._bar.tasks
            self._bar.update(task.id, description=text, completed=max(task.completed, self._done + more))

    def note(self, line: str) -> None:
        """Print one line, above the bar where there is one."""
        if self._bar is None:
            print(line, file=sys.stderr, flush=True)
        else:
            self._bar.console.print(line, markup=False)


class _Above(io.TextIOBase):
    """A stderr that is not a terminal: it prints lines above a bar, and moves the bar with the step's own progress."""

    def __init__(self, shown: Overall, what: str, work: int) -> None:
        self._shown, self._what, self._work, self._rest = shown, what, work, ""

    @contextmanager
    def part(self, label: str, total: int, *, unit: str, done: int) -> Iterator[Advance]:
        """Show a bar of the step as words beside its name, and its share of the step's work on the bar."""
        count = done

        def advance(amount: int) -> None:
            nonlocal count
            count += amount
            text = f"{self._what}: {label} {count:,}/{total:,} {unit}"
            self._shown.show(text, self._work * min(1.0, count / max(1, total)))

        yield advance

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._shown.note(line)
        return len(text)
