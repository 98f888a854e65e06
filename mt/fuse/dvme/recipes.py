"""Recipes: how a DVME is started and trained.  One is chosen inside the budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from mt.cache.names import JSON
from mt.errors import unknown


@dataclass(frozen=True)
class Recipe:
    """One way to train DVME; every field changes numbers.

    start: the concatenation's logistic regression, random votes, or torch's initialisation of every layer (plain).
    epochs: at most this many; 0 keeps the start.
    patience: a fold stops after this many epochs without a lower loss.
    decay: AdamW's weight decay; for a logistic start towards the start instead of zero (L2-SP, Li et al., ICML 2018).
    batch: rows per step.  dropout: of the concatenated tokens.  input_dropout: of the embeddings.
    residual: whether tokens are added to the attended ones.  uniform: fix the attention at 1/M.
    """

    name: str
    start: Literal["logistic", "random", "plain"] = "logistic"
    epochs: int = 12
    patience: int = 4
    learning_rate: float = 1e-3
    decay: float = 0.05
    batch: int = 64
    dropout: float = 0.0
    input_dropout: float = 0.5
    residual: bool = True
    uniform: bool = False

    @property
    def form(self) -> tuple[object, ...]:
        """What networks must share to train side by side."""
        return self.residual, self.uniform, self.dropout, self.batch

    def settings(self) -> dict[str, JSON]:
        """Return every field, as it is kept with a score."""
        return asdict(self)


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("start", epochs=0),
        Recipe("blend", epochs=0),  # not a network: blend over all models; see `mt.fuse.blend_start`
        Recipe("gentle", learning_rate=3e-4),
        Recipe("bold", input_dropout=0.1),
        Recipe("random", start="random", epochs=30, patience=6),
        Recipe("random-bold", start="random", epochs=30, patience=6, input_dropout=0.1),
        Recipe("plain", start="plain", epochs=30, patience=6, decay=0.01, input_dropout=0.0, residual=False),
        Recipe("uniform", uniform=True),
    )
}
BLEND = RECIPES["blend"]
# What a method chooses among; the first is kept unless another is clearly better on held-out rows of the budget.
CHOICES: dict[str, tuple[str, ...]] = {
    "dvme": ("start", "blend", "gentle", "bold"),
    "dvme-random": ("random", "random-bold"),
    "dvme-plain": ("plain",),
    "dvme-uniform": ("start", "uniform"),
}


def recipes_of(names: Sequence[str]) -> tuple[Recipe, ...]:
    """Return the recipes of these names.  Raises InputError for an unknown one."""
    for name in names:
        if name not in RECIPES:
            raise unknown("recipe", name, RECIPES, see="mt fuse --help")
    return tuple(RECIPES[name] for name in names)
