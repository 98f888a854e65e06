"""What `mt probe` asks; imports nothing heavy."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ProbeRequest:
    """Which cached features to probe, how, on which draws, and where to read and write.

    models, datasets: all that the cache holds, if empty.
    fractions, shots: 1, 10 and 100 % of the labels, if both are empty.  seeds: draws per budget.
    draw_file: read the draws from this file if it exists, else write them to it.
    bag: the column whose value is the case of a row, or "group"; None for what imported instances say.
    pool: how the rows of a case become one: "mean", "max", "mean+std", "mean+max", or "attention".
    select: "folds" chooses settings inside the budget, "val" on the validation split, whose labels are then counted.
    metrics: each dataset's headline metric, if empty; "all" for all of its task.
    by: a metadata column, to score each of its values apart.  level: one prediction per "row" or per "group".
    files: only these feature files, where newer ones must not take their place.
    test_dataset: test on this dataset instead.  save: a folder for the fitted probes.
    everything: use superseded, limited and random-weight features too.
    """

    cache_dir: str | os.PathLike[str] | None = None
    models: Sequence[str] = ()
    datasets: Sequence[str] = ()
    fractions: Sequence[float] = ()
    shots: Sequence[int] = ()
    seeds: int = 5
    draw_file: str | os.PathLike[str] | None = None
    protocol: str = "default"
    solver: str = "torch"
    bag: str | None = None
    pool: str | None = None
    select: str = "folds"
    metrics: Sequence[str] = ()
    by: str | None = None
    level: str = "row"
    test_dataset: str | None = None
    save: str | os.PathLike[str] | None = None
    scores: str | os.PathLike[str] | None = None
    everything: bool = False
    files: frozenset[Path] | None = None
    device: str = "auto"
