"""Progress without a terminal: one line every 30 seconds."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from mt.terminal import progress


def ticking(*seconds: float) -> Iterator[float]:
    yield from seconds


def test_off_a_terminal_a_line_is_printed_every_half_a_minute(capsys: pytest.CaptureFixture[str]) -> None:
    clock = ticking(0, 20, 40, 60, 80, 100)
    with progress.bar("pcam", 1000, clock=lambda: next(clock)) as advance:
        for _ in range(5):
            advance(100)
    assert capsys.readouterr().err.splitlines() == [
        "pcam: 200 of 1,000 images, 5.0/s, 3 min left",
        "pcam: 400 of 1,000 images, 5.0/s, 2 min left",
    ]


def test_what_is_quick_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    clock = ticking(0, 5, 29)
    with progress.bar("pcam", 2, clock=lambda: next(clock)) as advance:
        advance(1)
        advance(1)
    assert capsys.readouterr().err == ""


def test_one_unit_that_takes_long_is_said_too(capsys: pytest.CaptureFixture[str]) -> None:
    """A thread watches the clock, so that a fit of an hour still prints lines."""
    clock = ticking(0, 31, 62, 93, 124)
    lines = progress._Lines("probing", 3, "fits", 0, lambda: next(clock))
    lines.say()
    lines.advance(1)
    lines.say()
    assert capsys.readouterr().err.splitlines() == [
        "probing: 0 of 3 fits",
        "probing: 1 of 3 fits, 1.0/min, 2 min left",
        "probing: 1 of 3 fits, 0.6/min, 3 min left",
    ]
    with progress.bar("a long fit", 1):
        assert "a long fit" in {thread.name for thread in threading.enumerate()}
    assert "a long fit" not in {thread.name for thread in threading.enumerate()}


def test_a_total_that_is_not_known_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    clock = ticking(0, 40)
    with progress.bar("weights", 0, unit="bytes", clock=lambda: next(clock)) as advance:
        advance(4000)
    assert capsys.readouterr().err == "weights: 4,000 bytes, 100.0/s\n"


def test_what_else_is_known_of_the_work_stands_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    clock = ticking(0, 40)
    workers = "cuda:0 90.0/s, cuda:1 10.0/s"
    with progress.bar("pcam", 8000, clock=lambda: next(clock), more=lambda: workers) as advance:
        advance(4000)
    assert capsys.readouterr().err == f"pcam: 4,000 of 8,000 images, 100.0/s, 1 min left; {workers}\n"


@pytest.mark.parametrize(
    ("number", "words", "expected"),
    [
        (0, ("file",), "0 files"),
        (1, ("file",), "1 file"),
        (2000, ("file",), "2,000 files"),
        (1, ("case is", "cases are"), "1 case is"),
        (2, ("case is", "cases are"), "2 cases are"),
    ],
)
def test_a_count_agrees_with_its_noun(number: int, words: tuple[str, ...], expected: str) -> None:
    assert progress.counted(number, *words) == expected
