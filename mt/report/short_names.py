"""Short names of rows on several models, and the key to them: `concat: a + b + c` is `concat of 3`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from mt.report.panels import Panel
from mt.terminal.tables import letters

_AND = " + "
_END = r"(?= (?!\+ )|[,:]|$)"  # of a list of models: not in the middle of a longer list, or of a longer name


@dataclass(frozen=True)
class ShortNames:
    """The same short names on all pages, charts and tables of a report.

    words: of models that are joined by plus signs, what replaces them: `3`, or `2 A` where several sets have two.
    """

    words: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, panels: Iterable[Panel]) -> ShortNames:
        """Return the names for all rows of these panels.  Rows on one model keep their names."""
        cells = (cell for panel in panels for cell in (*panel.cells, *panel.oracles))
        sets = dict.fromkeys(cell.method.model for cell in cells if _AND in cell.method.model)
        sizes = {joined: joined.count(_AND) + 1 for joined in sets}
        words = {}
        for joined, size in sizes.items():
            same = [other for other, n in sizes.items() if n == size]
            words[joined] = f"{size} {letters(same.index(joined)).upper()}" if len(same) > 1 else f"{size}"
        return cls(words)

    def __call__(self, text: str) -> str:
        """Return a text in which each `method: a + b` is `method of 2`; what else it says stays."""
        return self._long.sub(lambda found: f" of {self.words[found[1]]}", text) if self.words else text

    def key(self, texts: Iterable[str]) -> list[tuple[str, str]]:
        """Return (`… of 2`, `a + b`) for every set of models that these texts name."""
        used = {found for text in texts for found in self._long.findall(text)} if self.words else set()
        return [(f"… of {word}", joined) for joined, word in self.words.items() if joined in used]

    @cached_property
    def _long(self) -> re.Pattern[str]:
        return re.compile(f": ({'|'.join(map(re.escape, self.words))}){_END}")


def in_words(key: Sequence[tuple[str, str]]) -> str:
    """Return the key as one line; empty without short names."""
    return " ".join(f"“{short}”: {joined}." for short, joined in key)
