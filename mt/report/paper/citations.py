"""References beside the statistical methods that a stored note on an interval names."""

from __future__ import annotations

import re

_NAMED = {
    "Wilson": "@wilson1927probable",
    "Obuchowski": "@obuchowski1997nonparametric",
    "DeLong": "@delong1988comparing",
    "Newcombe": "@newcombe2006confidence; @hanley1982meaning",  # his interval, with their variance
    "binormal": "@hanley1982meaning",
    "Fisher": "@fisher1915frequency",
    "MOVER": "@zou2008construction",
    "bootstrap": "@efron1979bootstrap",
    "jackknife": "@efron1979bootstrap",
}
_NAME = re.compile(rf"\b({'|'.join(_NAMED)})\b(?:'s)?(?: z\b)?")


def with_references(note: str) -> str:
    """Return a note with the keys of references after each method that it names; the note is Markdown already."""
    return _NAME.sub(lambda found: f"{found[0]} [{_NAMED[found[1]]}]", note)


def effective_size(note: str) -> bool:
    """Return whether Wilson's interval in this note has an effective number of cases instead of a plain count."""
    return "Wilson" in note and ("variance" in note or "groups" in note)
