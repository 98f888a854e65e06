"""Short names of rows, and the key to them: `concat: a + b + c` is `concat of 3`, and `hf:owner/name` is `name`."""

from __future__ import annotations

import re
from collections import Counter
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
    plain: of models from a hub, a folder or a file, what replaces them: what follows the last slash, if it is unique.
    """

    words: Mapping[str, str] = field(default_factory=dict)
    plain: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, panels: Iterable[Panel]) -> ShortNames:
        """Return the names for all rows of these panels."""
        every = dict.fromkeys(cell.method.model for panel in panels for cell in (*panel.cells, *panel.oracles))
        sets = [model for model in every if _AND in model]
        sizes = {joined: joined.count(_AND) + 1 for joined in sets}
        words = {}
        for joined, size in sizes.items():
            same = [other for other, n in sizes.items() if n == size]
            words[joined] = f"{size} {letters(same.index(joined)).upper()}" if len(same) > 1 else f"{size}"
        return cls(words, _without_owners(dict.fromkeys(one for model in every for one in model.split(_AND))))

    def __call__(self, text: str) -> str:
        """Return a text in which each `method: a + b` is `method of 2`, and `hf:a/b` is `b`; the rest stays."""
        text = self.of_sets(text)
        return self._owned.sub(lambda found: self.plain[found[0]], text) if self.plain else text

    def of_sets(self, text: str) -> str:
        """Return a text in which sets of models have their short names, and models their own."""
        return self._long.sub(lambda found: f" of {self.words[found[1]]}", text) if self.words else text

    def key(self, texts: Iterable[str]) -> list[tuple[str, str]]:
        """Return (`… of 2`, `a + b`) for every set of models that these texts name, then (`b`, `hf:a/b`)."""
        texts = list(texts)
        used = {found for text in texts for found in self._long.findall(text)} if self.words else set()
        sets = [(f"… of {word}", joined) for joined, word in self.words.items() if joined in used]
        named = {found for text in texts for found in self._owned.findall(self.of_sets(text))} if self.plain else set()
        return [*sets, *((short, model) for model, short in self.plain.items() if model in named)]

    @cached_property
    def _long(self) -> re.Pattern[str]:
        return re.compile(f": ({'|'.join(map(re.escape, self.words))}){_END}")

    @cached_property
    def _owned(self) -> re.Pattern[str]:
        longest_first = sorted(self.plain, key=len, reverse=True)
        return re.compile(rf"(?<![\w/:.-])(?:{'|'.join(map(re.escape, longest_first))})(?![\w/:@-])")


def _without_owners(models: Iterable[str]) -> dict[str, str]:
    """Return what follows the last slash of each model's name, where no other model would have the same name."""
    short = {model: model.rpartition("/")[2] or model for model in models}
    times = Counter(short.values())
    return {model: name for model, name in short.items() if name != model and times[name] == 1}


def in_words(key: Sequence[tuple[str, str]]) -> str:
    """Return the key as one line; empty without short names."""
    return " ".join(f"“{short}”: {joined}." for short, joined in key)
