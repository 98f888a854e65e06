"""PatchCamelyon: 96 x 96 patches of lymph nodes in HDF5, labelled by whether their centre holds tumour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mt.cache.content import ContentIndex
from mt.datasets.base import Dataset, Json, Loaded, Split
from mt.datasets.decoding.row_hashes import of_packed
from mt.datasets.location import dataset_folder, gunzipped, missing
from mt.datasets.packed.hdf5 import Hdf5Rows
from mt.datasets.registry import DatasetRequest
from mt.datasets.tabular.csv_file import read_csv
from mt.errors import DatasetError
from mt.types import LabelledRows

# The publisher's name of each of our splits.
SPLITS = {"train": "train", "val": "valid", "test": "test"}
_STEM = "camelyonpatch_level_2_split"


@dataclass(frozen=True)
class Hdf5Images:
    """A source of the rows of one HDF5 dataset."""

    rows: Hdf5Rows

    def __len__(self) -> int:
        return len(self.rows)

    def load(self, start: int, stop: int) -> list[Loaded]:
        return list(self.rows.read(start, stop))

    def content(self, index: ContentIndex) -> Json:
        """Return the hash of the uncompressed file: the same whether it came as .h5 or .h5.gz."""
        return {"file": index.sha256(self.rows.path)}

    def row_hashes(self, index: ContentIndex, places: Sequence[int]) -> np.ndarray:
        return of_packed(self.load, places)


def load(request: DatasetRequest) -> Dataset:
    """Return PCam's three official splits; groups are slides where the `*_meta.csv` files are there."""
    folder = dataset_folder(request, ["pcam"], marker=f"{_STEM}_*_x.h5*")
    splits = {name: _split(request, folder, name, published) for name, published in SPLITS.items()}
    unknown = [name for name, split in splits.items() if split.groups is None]
    warning = f"no slides known for {', '.join(unknown)}: put the {_STEM}_*_meta.csv files beside the others"
    return Dataset(
        name="pcam",
        location=str(folder),
        task="binary",
        class_names=("normal", "tumour"),
        licence=request.spec.licence,
        kind="patch",
        splits=splits,
        grouping="slide" if len(unknown) < len(splits) else None,
        warnings=(warning,) if unknown else (),
    )


def _split(request: DatasetRequest, folder: Path, name: str, published: str) -> Split:
    images = Hdf5Rows(_file(request, folder, f"{_STEM}_{published}_x.h5"), "x")
    labels = Hdf5Rows(_file(request, folder, f"{_STEM}_{published}_y.h5"), "y")
    if images.dtype != np.uint8 or len(images.shape) != 4 or images.shape[3] != 3:
        raise DatasetError(f"{images.path}: 'x' is {images.dtype} {images.shape}, expected uint8 (N, 96, 96, 3).")
    values = labels.read(0, len(labels)).reshape(-1).astype(np.int64)
    if len(values) != len(images):
        raise DatasetError(f"{labels.path} holds {len(values):,} labels, {images.path.name} {len(images):,} images.")
    if not np.isin(values, (0, 1)).all():
        raise DatasetError(f"{labels.path}: unknown label {values[~np.isin(values, (0, 1))][0]}, expected 0 or 1.")
    slides = _slides(folder / f"{_STEM}_{published}_meta.csv", len(values))
    ids = [f"{published}-{row:06d}" for row in range(len(values))]
    rows = LabelledRows(None, values, slides, ids, {} if slides is None else {"slide": slides})
    return Split(name, rows, Hdf5Images(images))


def _slides(meta: Path, rows: int) -> list[str] | None:
    """Return the slide of each patch from the published table, None if it was not downloaded."""
    if not meta.exists():
        return None
    slides = read_csv(meta, ["wsi"])["wsi"]
    if len(slides) != rows:
        raise DatasetError(f"{meta} describes {len(slides):,} patches, expected {rows:,}.")
    return slides


def _file(request: DatasetRequest, folder: Path, name: str) -> Path:
    """Return a published file, decompressed where only its .gz is there."""
    if (folder / name).exists():
        return folder / name
    if (folder / f"{name}.gz").exists():
        return gunzipped(folder / f"{name}.gz")
    raise missing(request, f"{name} or {name}.gz", [folder])
