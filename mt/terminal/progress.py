"""Progress on stderr: a bar where a person watches, silence where none does."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, runtime_checkable


class Advance(Protocol):
    """Called with how many more units are done."""

    def __call__(self, amount: int, /) -> None: ...


@runtime_checkable
class Overview(Protocol):
    """A stderr that shows the bars of the parts of a larger work inside its own."""

    def part(self, label: str, total: int, *, unit: str, done: int) -> AbstractContextManager[Advance]:
        """Show how far a part is; yields a function that advances it."""


@contextmanager
def bar(label: str, total: int, *, unit: str = "images", done: int = 0) -> Iterator[Advance]:
    """Show one bar with count, rate and time left; yields a function that advances it.  Silent off a terminal."""
    if isinstance(sys.stderr, Overview):
        with sys.stderr.part(label, total, unit=unit, done=done) as advance_part:
            yield advance_part
        return
    if not sys.stderr.isatty():
        yield lambda amount: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit),
        TextColumn("{task.fields[rate]}"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(label, total=total, completed=done, rate="")

        def advance(amount: int) -> None:
            speed = progress.tasks[0].speed
            progress.update(task, advance=amount, rate=f"{speed:.1f}/s" if speed else "")

        yield advance


def note(message: str) -> None:
    """Print one line for people on stderr."""
    print(message, file=sys.stderr, flush=True)
