"""Embedding rules and views: which activations are an embedding, of which views, and the names that say so.

`MODEL[:RULE][:VIEWS]`.  Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mt.errors import InputError

POOLED = "pooled"
# The rules that `--embedding` takes; `MODEL:RULE` names a model with one of them.
RULES: dict[str, str] = {
    POOLED: "what the model calls its pooled output",
    "cls": "the class token after the last block",
    "mean": "the mean of the patch tokens, registers omitted",
    "cls+mean": "the class token and the mean patch token, concatenated",
    "cls4": "the class tokens of the last four blocks, each through the final norm, concatenated oldest first",
}
# Views of an image whose embeddings `--views` averages (the sets that ttach calls flip, five-crop and d4 transforms).
VIEWS: dict[str, str] = {
    "flips": "the image, mirrored, upside down, and both",
    "fivecrop": "the centre and the four corners",
    "d4": "the four rotations by 90 degrees, each also mirrored",
}
CLASS_RULES = ("cls", "cls+mean", "cls4")  # those that need a class token


def with_rule(name: str, rule: str) -> str:
    """Return the name of a model with an embedding rule: `dino` and `mean` give `dino:mean`.

    Raises:
        InputError: no such rule.
    """
    if rule not in RULES:
        raise InputError(f"--embedding takes one of {', '.join(RULES)}; got '{rule}'.")
    return f"{name}:{rule}"


def split_rule(name: str) -> tuple[str, str | None]:
    """Return a model's name without its embedding rule, and the rule; None where the name has none."""
    return _split(name, RULES)


def with_views(name: str, views: str) -> str:
    """Return the name of a model whose embeddings are averaged over views: `dino` and `d4` give `dino:d4`.

    Raises:
        InputError: no such views, or a name that has some already.
    """
    if views not in VIEWS:
        raise InputError(f"--views takes one of {', '.join(VIEWS)}; got '{views}'.")
    model, other = split_views(name)
    if other not in (None, views):
        raise InputError(f"'{name}' averages {other} already. Write --model {model} --views {views}.")
    return f"{model}:{views}"


def split_views(name: str) -> tuple[str, str | None]:
    """Return a model's name without its views, and the views; None where the name has none."""
    return _split(name, VIEWS)


def _split(name: str, known: Mapping[str, str]) -> tuple[str, str | None]:
    """Return a name without its last word, and the word, if it is known and not a function of the user's."""
    model, _, word = name.rpartition(":")
    function = model.startswith("module:") and model.endswith(".py")
    return (model, word) if model and word in known and not function else (name, None)


def unfitting(name: str, rule: str, fitting: Sequence[str]) -> InputError:
    """Return the error for a rule that a model's output does not fit; it names those that fit."""
    model = split_rule(split_views(name)[0])[0]
    if not fitting:
        return InputError(f"'{model}' gives neither a pooled output nor tokens: no embedding rule fits. See: mt models")
    several = "rules that fit: " if len(fitting) > 1 else "rule that fits: "
    what = f"'{model}' has no pooled features" if rule == POOLED else f"--embedding {rule} does not fit '{model}'"
    return InputError(f"{what}; {several}{', '.join(fitting)}. Choose with --embedding {fitting[0]}.")
