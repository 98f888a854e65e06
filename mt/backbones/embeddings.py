"""Embedding rules: which of a network's activations are its embedding, and the names that say so.  Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence

from mt.errors import InputError

POOLED = "pooled"
# The rules that `--embedding` takes; `MODEL:RULE` names a model with one of them.
RULES: dict[str, str] = {
    POOLED: "what the model calls its pooled output",
    "cls": "the class token after the last block",
    "mean": "the mean of the patch tokens, registers left out",
    "cls+mean": "the class token and the mean patch token, concatenated",
    "cls4": "the class tokens of the last four blocks, each through the final norm, concatenated oldest first",
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
    model, _, rule = name.rpartition(":")
    return (model, rule) if model and rule in RULES else (name, None)


def unfitting(name: str, rule: str, fitting: Sequence[str]) -> InputError:
    """Return the error for a rule that a model's output does not fit; it names those that fit."""
    model = split_rule(name)[0]
    if not fitting:
        return InputError(f"'{model}' gives neither a pooled output nor tokens: no embedding rule fits. See: mt models")
    several = "rules that fit: " if len(fitting) > 1 else "rule that fits: "
    what = f"'{model}' has no pooled features" if rule == POOLED else f"--embedding {rule} does not fit '{model}'"
    return InputError(f"{what}; {several}{', '.join(fitting)}. Choose with --embedding {fitting[0]}.")
