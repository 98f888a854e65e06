"""scikit-learn's 1,797 scanned digits (8 x 8): real images that are on every machine that has scikit-learn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from mt.cache.content import ContentIndex
from mt.datasets.base import Dataset, Json, Loaded, Split
from mt.datasets.decoding.row_hashes import of_packed
from mt.datasets.registry import DatasetRequest
from mt.datasets.splitting import draw_splits
from mt.errors import DatasetError
from mt.types import LabelledRows

FRACTIONS = {"train": 0.7, "test": 0.3}
SEED = 0


@dataclass(frozen=True)
class ImageRows:
    """A source of images held in memory: rows of `images`, uint8 (N, H, W, 3), that came from `file`."""

    images: np.ndarray
    file: Path
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def load(self, start: int, stop: int) -> list[Loaded]:
        return list(self.images[self.rows[start:stop]])

    def content(self, index: ContentIndex) -> Json:
        """Return the file's hash; the ids say which of its rows."""
        return {"file": index.sha256(self.file)}

    def row_hashes(self, index: ContentIndex, places: Sequence[int]) -> np.ndarray:
        return of_packed(self.load, places)


def load(request: DatasetRequest) -> Dataset:
    """Return the digits, grey values 0 ... 16 scaled to 0 ... 255, in a stratified 70/30 split that we draw."""
    file = _published_file()
    table = np.loadtxt(file, delimiter=",")
    grey = np.rint(table[:, :64].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    images, labels = np.repeat(grey[..., None], 3, axis=3), table[:, 64].astype(np.int64)
    ids = [f"{row:04d}" for row in range(len(labels))]
    parts, record = draw_splits(ids, labels, fractions=FRACTIONS, seed=SEED)
    splits = {
        name: Split(name, LabelledRows(None, labels, ids=ids).take(rows), ImageRows(images, file, rows))
        for name, rows in parts.items()
    }
    return Dataset(
        name="digits",
        location=None,
        task="multiclass",
        class_names=tuple("0123456789"),
        licence=request.spec.licence,
        kind="scan",
        splits=splits,
        drawn={"splits": record},
        warnings=("no writer grouping known: the same writer may be in train and test.",),
    )


def _published_file() -> Path:
    """Return the file inside scikit-learn, found without importing it."""
    spec = find_spec("sklearn")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        file = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if file.is_file():
            return file
    raise DatasetError("digits: scikit-learn's digits.csv.gz is not installed. Install it: pip install scikit-learn")
