"""Embeddings as other programs write them, and the import of them."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mt.cache.catalog import Catalog
from mt.cache.feature_file.read import FeatureFile
from mt.importing.request import ImportRequest, LabelRules
from mt.importing.run import Imported, import_features

N, DIM = 24, 6


def matrix(n: int = N, dim: int = DIM, *, seed: int = 0, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(dtype)


def ids(n: int = N) -> list[str]:
    return [f"case {number}" for number in range(n)]


def labels(n: int = N) -> list[str]:
    return ["tumour" if number % 3 == 0 else "benign" for number in range(n)]


def splits(n: int = N) -> list[str]:
    return ["test" if number % 4 == 3 else "train" for number in range(n)]


def write_table(path: Path, columns: dict[str, Sequence[Any]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


def label_table(path: Path, **columns: Sequence[Any]) -> Path:
    """Write a table of the sample's ids, labels and splits, with columns changed or added."""
    return write_table(path, {"id": ids(), "label": labels(), "split": splits(), **columns})


def slide(path: Path, rows: np.ndarray, **more: np.ndarray) -> Path:
    """Write one slide's tiles as TRIDENT and CLAM do: `features` and `coords`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["features"] = rows
        file["coords"] = np.zeros((len(rows), 2), dtype=np.int32)
        for name, values in more.items():
            file[name] = values
    return path


def imported(cache: Path, *files: Path | str, rules: LabelRules | None = None, **asked: Any) -> list[Imported]:
    given = {"dataset": "moles", "model": "uni", **asked}
    given["labels"] = [str(one) for one in given.get("labels", ())]
    return import_features(
        ImportRequest([str(file) for file in files], cache_dir=cache, rules=rules or LabelRules(), **given)
    )


def opened(cache: Path, split: str = "train", **asked: Any) -> FeatureFile:
    """Open the one feature file of a split."""
    (entry,) = Catalog(cache).entries(splits=[split], **asked)
    return entry.open(verify=True)


def by_id(cache: Path) -> dict[str, np.ndarray]:
    """Return the embedding of every id of all splits."""
    files = [entry.open(verify=True) for entry in Catalog(cache).entries()]
    return {name: row for file in files for name, row in zip(file.ids, file.embeddings, strict=True)}
