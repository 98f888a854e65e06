"""The request of `mt cache import`; imports nothing heavy."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mt.types import Task


@dataclass(frozen=True)
class LabelRules:
    """How the label tables are read: their columns, and what missing and uncertain cells mean.

    task: inferred from the labels if None.  id_column, label_columns, group_column: found by common names if not given.
    missing_group: "own" makes each row without a group its own.  uncertain, blank: what -1 and an empty cell mean.
    """

    task: Task | None = None
    id_column: str | None = None
    label_columns: tuple[str, ...] = ()
    group_column: str | None = None
    missing_group: Literal["own"] | None = None
    uncertain: Literal["ignore", "0", "1"] | None = None
    blank: Literal["ignore", "0"] | None = None


@dataclass(frozen=True)
class ImportRequest:
    """Which files to import, as which dataset and model, with which labels.

    files, labels: paths, or `SPLIT=PATH`.  split: the split of files that name none.
    key: the array or the columns that hold the embeddings, if a file has several.
    bag: the column that names each row's case, or `file` for one case per file.  pool: how the rows of a case become
    one; None keeps them as instances.
    dtype: "float32" or "float16"; as in the files if None.
    shared: omit ids that only the embeddings or only the labels have.  skip_bad: keep rows with NaN as skipped.
    seed: draws a test split if nothing names the splits.  cache_dir: folder of feature files.
    """

    files: Sequence[str]
    dataset: str
    model: str
    labels: Sequence[str] = ()
    split: str | None = None
    key: str | None = None
    bag: str | None = None
    pool: str | None = None
    dtype: str | None = None
    shared: bool = False
    skip_bad: bool = False
    seed: int = 0
    rules: LabelRules = LabelRules()
    cache_dir: str | os.PathLike[str] | None = None
