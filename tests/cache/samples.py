"""A small split that the tests of the feature file write, interrupt, break and read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mt.cache import Existing, FeatureWriter, Status
from mt.types import LabelledRows

N, DIM, BLOCK = 11, 160, 4  # a row is 640 bytes, so that a block spans several sectors
SKIPPED = 5


def rows(n: int = N) -> LabelledRows[None]:
    ids = [f"bild-é{row}.png" for row in range(n)]
    columns: dict[str, list[Any]] = {
        "age": [20.5 + row for row in range(n)],
        "site/view": ["PA", "AP"] * (n // 2) + ["PA"] * (n % 2),
    }
    return LabelledRows(None, np.arange(n) % 2, [f"patient{row // 2}" for row in range(n)], ids, columns)


def manifest(**changes: Any) -> dict[str, Any]:
    return {
        "dataset": "folder:moles",
        "location": "/data/moles",
        "split": "train",
        "backbone": "dino",
        "task": "binary",
        "class_names": ["benign", "malignant"],
        "metric": "roc_auc",
        "budget_unit": "row",
        "grouping": "patient",
        "licence": "CC0",
        "fingerprints": {name: name[0] * 64 for name in ("backbone", "dataset", "split", "file")},
        "inputs": {"backbone": {}, "dataset": {}},
        "limit": None,
        "random_weights": False,
        "compute": {"device": "cpu", "batch_size": 4, "threads": 2, "versions": {"torch": "2.6"}},
        "command": "mt featurize --model dino --dataset folder:moles",
        "warnings": [],
    } | changes


def embeddings(n: int = N, dim: int = DIM) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((n, dim)).astype("f4")


def statuses(n: int = N) -> np.ndarray:
    status = np.full(n, Status.OK, dtype="u1")
    status[SKIPPED] = Status.TRUNCATED
    return status


def open_writer(path: Path, **options: Any) -> FeatureWriter:
    """Open a writer; options on an existing file go into its `Existing`."""
    existing = Existing(**{name: options.pop(name) for name in ("overwrite", "allow_mixed", "wait") if name in options})
    given: dict[str, Any] = {"rows": rows(), "manifest": manifest(), "dim": DIM, "block_rows": BLOCK} | options
    return FeatureWriter.open(path, given.pop("rows"), given.pop("manifest"), existing=existing, **given)


def fill(writer: FeatureWriter, blocks: list[int] | None = None) -> None:
    values, states = embeddings(), statuses()
    for block in list(writer.missing) if blocks is None else blocks:
        part = slice(block * BLOCK, (block + 1) * BLOCK)
        writer.write_block(block, values[part], states[part])


def write(path: Path, **options: Any) -> Path:
    """Write the whole file, or finish an unfinished one."""
    with open_writer(path, **options) as writer:
        fill(writer)
        return writer.finish()


def write_some(path: Path, blocks: list[int]) -> Path:
    """Write some blocks and stop, as an interrupted run does; return the partial file."""
    with open_writer(path) as writer:
        fill(writer, blocks)
    return path.with_suffix(".partial")
