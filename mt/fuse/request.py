"""The request of `mt fuse` on cached features; imports nothing heavy."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mt.errors import InputError
from mt.fuse.rivals import check_of_dvme, rows_of
from mt.probe.request import checked_folds


@dataclass(frozen=True)
class FuseRequest:
    """Which cached features to fuse, by which methods, on which draws, and where to read and write.

    models, datasets: all that the cache holds, if empty.
    methods: "concat", "average", "blend", "dvme" (which adds the best single model and concatenation); all if empty.
    fractions, shots: 1, 10 and 100 % of the labels, if both are empty.  seeds: draws per budget.
    draw: "stratified", "random" or "random-groups".  draw_file: read the draws from here.
    metrics: each dataset's headline metric, if empty.  primary: "METRIC@BUDGET", as `mt probe` takes it.
    ablations: also uniform attention, a random start, the paper's plain form, and DVME without each model.
    test_folds: instead of a test split, test every image once by K folds of all splits; repeats: of the folds.
    files: use only these feature files, even if there are newer ones.
    save: a folder for the fitted models.  scores: the score database.  device: `auto`, `cpu`, `cuda` or `mps`.
    everything: use superseded, limited and random-weight features too.
    threshold, prevalence, calibrate: as in `mt.ProbeRequest`.
    memory: bytes that a fit may need; what is available, if None.
    """

    cache_dir: str | os.PathLike[str] | None = None
    models: Sequence[str] = ()
    datasets: Sequence[str] = ()
    methods: Sequence[str] = ()
    fractions: Sequence[float] = ()
    shots: Sequence[int] = ()
    seeds: int = 5
    metrics: Sequence[str] = ()
    draw_file: str | os.PathLike[str] | None = None
    ablations: bool = False
    save: str | os.PathLike[str] | None = None
    scores: str | os.PathLike[str] | None = None
    device: str = "auto"
    everything: bool = False
    files: frozenset[Path] | None = None
    draw: str = "stratified"
    threshold: str | None = None
    primary: str | None = None
    prevalence: float | None = None
    calibrate: str | None = None
    test_folds: int | None = None
    repeats: int = 1
    memory: int | None = None

    @property
    def rows(self) -> tuple[str, ...]:
        """The table rows on several models that the methods add."""
        return rows_of(self.methods)

    def checked_folds(self) -> int:
        """Return the number of test folds.  Raises InputError for options that do not go with them."""
        return checked_folds(
            self.test_folds,
            self.repeats,
            {
                "--draw-file": self.draw_file,
                "--save": self.save,
                "--threshold": self.threshold,
                "--calibrate": self.calibrate,
            },
        )

    def check(self) -> None:
        """Raise InputError for models or options that do not go together."""
        check_models(self.models)
        rows_of(self.methods)
        if self.ablations:
            check_of_dvme(self.methods, "--ablations")


def check_models(models: Sequence[str], *, several: bool = True) -> None:
    """Refuse a model that is named twice and, if `several` are needed, one alone."""
    twice = sorted({name for name in models if models.count(name) > 1})
    if twice:
        raise InputError(f"--model {twice[0]} is named twice. Name each model once; see: mt models")
    if several and len(models) == 1:
        raise InputError(
            f"Fusion needs at least two models, found one ({models[0]}). One model is a probe: "
            f"mt probe --model {models[0]}; to fuse, add another: --model NAME; to fine-tune it: --unfreeze"
        )
