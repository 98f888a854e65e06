"""One progress over a study: a bar where a person watches, lines elsewhere; what steps print is kept."""

from __future__ import annotations

import io
import sys

import pytest

from mt import progress
from mt.report.study_progress import Overall


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("screen", [Terminal(), io.StringIO()], ids=["terminal", "log"])
def test_steps_and_their_notes_are_shown(screen: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    shown = Overall(2, 5)
    with shown.watched():
        for what, work in (("featurize pcam", 2), ("probe pcam", 3)):
            with shown.running(what, work), progress.bar("inner", 10):
                progress.note(f"a note of [{what}]")
    said = screen.getvalue()
    for what in ("featurize pcam", "probe pcam"):
        assert what in said
        assert f"a note of [{what}]" in said
    assert "inner" not in said
    assert ("done, running" in said) == screen.isatty()
    assert sys.stderr is screen
