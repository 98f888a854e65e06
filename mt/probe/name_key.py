"""Short names for table rows that use several models, and the key that explains them."""

from __future__ import annotations

from collections.abc import Sequence

from mt.terminal.tables import letters

_AND = " + "


def shortened(rows: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Return a short name for each row, and the lines of the key.

    `dvme: a + b + c` becomes `dvme: all 3 models` if these are all models of the rows; other sets of models become
    `2 models A`, `2 models B` and so on.  What follows the models after a comma stays, as in
    `dvme: all 3 models, temperature`.  Rows of one model keep their names.
    """
    tails = {row: row.rpartition(": ")[2].partition(", ") for row in rows}
    several = {row: parts for row, (models, _, _) in tails.items() if len(parts := models.split(_AND)) > 1}
    sets = list(dict.fromkeys(_AND.join(parts) for parts in several.values()))
    every = {part for parts in several.values() for part in parts}
    words: dict[str, str] = {}
    for joined in sets:
        parts = joined.split(_AND)
        whole = set(parts) == every and f"all {len(parts)} models" not in words.values()
        letter = letters(sum(not word.startswith("all") for word in words.values())).upper()
        words[joined] = f"all {len(parts)} models" if whole else f"{len(parts)} models {letter}"
    names = {}
    for row in rows:
        head, colon, _ = row.rpartition(": ")
        short = f"{head}{colon}{words[_AND.join(several[row])]}{''.join(tails[row][1:])}" if row in several else row
        names[row] = short
    return names, [f"{word}: {joined.replace(_AND, ', ')}." for joined, word in words.items()]
