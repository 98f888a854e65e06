"""The recipe of end-to-end training with one part of it changed, for `benchmarks.finetune --change`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from mt.fuse.end_to_end import loop
from mt.fuse.end_to_end.request import Settings
from mt.fuse.end_to_end.trainable import families

FIXED = Settings(fixed=True)


@dataclass(frozen=True)
class Change:
    """One part of the recipe, changed: in the settings, or in a constant of a module."""

    settings: Settings = FIXED
    constant: tuple[Any, str, Any] | None = None

    @contextmanager
    def made(self) -> Iterator[None]:
        """Set the constant meanwhile."""
        if self.constant is None:
            yield
            return
        where, name, value = self.constant
        before = getattr(where, name)
        setattr(where, name, value)
        try:
            yield
        finally:
            setattr(where, name, before)


CHANGES = {
    "as it is": Change(),
    "no label smoothing": Change(replace(FIXED, label_smoothing=0.0)),
    "no dropout": Change(replace(FIXED, dropout=0.0)),
    "no augmentation": Change(replace(FIXED, augment="none")),
    "last weights": Change(constant=(loop, "AVERAGED", 1e-9)),
    "batch norms learn": Change(replace(FIXED, train_batch_norm=True)),
    "layer decay 0.75": Change(constant=(families, "CONVOLUTIONAL", replace(families.CONVOLUTIONAL, layer_decay=0.75))),
    "last 4 blocks": Change(replace(FIXED, last=4)),
}
