"""Colours and marks that colour-blind readers distinguish, in light and in dark."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

# Okabe and Ito, "Color Universal Design", 2008; its black is omitted, since pages are dark too, and its yellow, since
# they are light too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8F8F8F")
# Vega's name of a mark, and its outline for a legend of our own.
SHAPES = {
    "circle": "M-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0",
    "square": "M-4,-4h8v8h-8z",
    "triangle-up": "M0,-4.5L5,4.5H-5z",
    "diamond": "M0,-5.5L5,0L0,5.5L-5,0z",
    "cross": "M-1.7,-5h3.4v3.3h3.3v3.4h-3.3v3.3h-3.4v-3.3h-3.3v-3.4h3.3z",
    "triangle-down": "M0,4.5L5,-4.5H-5z",
}
DASHES = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3])


def colours_of_class(number: int) -> tuple[str, str]:
    """Return edge and filling of a class's points: full, then open, then pale, so that 21 classes differ."""
    colour = COLOURS[number % len(COLOURS)]
    return colour, (colour, "transparent", f"{colour}55")[number // len(COLOURS) % 3]


@dataclass(frozen=True)
class Look:
    """How one method is drawn: colour, mark and dash together are its own among the first 84 of a chart."""

    colour: str
    shape: str
    dash: list[int]

    @property
    def outline(self) -> str:
        """The mark as an SVG path."""
        return SHAPES[self.shape]


Looks = Mapping[str, Look]


def looks_of(names: Iterable[str]) -> dict[str, Look]:
    """Return a look per name; neighbouring names share neither colour nor mark."""
    shapes = list(SHAPES)
    return {
        name: Look(COLOURS[i % len(COLOURS)], shapes[i % len(shapes)], DASHES[i // len(COLOURS) % len(DASHES)])
        for i, name in enumerate(dict.fromkeys(names))
    }
