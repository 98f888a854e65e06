"""Readers of tables and pages get words for every flag that the documents describe."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mt.results.flag_words import in_words

DOCS = Path(__file__).parents[2] / "docs"


def documented() -> list[str]:
    """Return the flags with an underscore or one word that the table of flags and the page of DVME name."""
    table = (DOCS / "protocols.md").read_text(encoding="utf-8").partition("| flag | meaning |")[2].partition("\n\n")[0]
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    found = re.findall(r"`([a-z]+_[a-zA-Z_]+|unconverged|collapsed)`", " ".join(cells))
    return [*found, "too_few_to_train", "start_kept", "training_failed", "fixed_schedule"]


def test_the_table_of_flags_is_read() -> None:
    assert {"fixed_C", "fixed_k", "missing_class", "collapsed"} <= set(documented())


@pytest.mark.parametrize("flag", documented())
def test_a_flag_is_shown_in_words(flag: str) -> None:
    assert " " in in_words(flag)
    assert "_" not in in_words(flag)


def test_words_stay_as_they_are() -> None:
    assert in_words("cases assumed independent") == "cases assumed independent"
