"""MedMNIST: twelve 2D datasets as `.npz` files, 28 to 224 pixels, with their official splits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mt.cache.content import ContentIndex
from mt.datasets.base import Dataset, Json, Loaded, Split
from mt.datasets.decoding.row_hashes import of_packed
from mt.datasets.location import missing
from mt.datasets.packed.npz import NpzRows, read_member
from mt.datasets.readers.medmnist_table import PUBLISHED, SIZES, MedMNIST
from mt.datasets.registry import DatasetRequest
from mt.errors import DatasetError, InputError, unknown
from mt.types import LabelledRows

URL = "https://zenodo.org/records/10519652/files/{file}?download=1"
_SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class NpzImages:
    """A source of the images in one array of an `.npz`, grey or RGB."""

    rows: NpzRows

    def __len__(self) -> int:
        return len(self.rows)

    def load(self, start: int, stop: int) -> list[Loaded]:
        images = self.rows.read(start, stop)
        return list(images if images.ndim == 4 else np.repeat(images[..., None], 3, axis=3))

    def content(self, index: ContentIndex) -> Json:
        """Return the hash of the published file and the name of the array."""
        return {"file": index.sha256(self.rows.path), "array": self.rows.key}

    def row_hashes(self, index: ContentIndex, places: Sequence[int]) -> np.ndarray:
        return of_packed(self.load, places)


def load(request: DatasetRequest) -> Dataset:
    """Return `medmnist:NAME` at 28 pixels, or `medmnist:NAME@SIZE`."""
    name, size = _name_and_size(request)
    published = PUBLISHED[name]
    file = f"{name}.npz" if size == SIZES[0] else f"{name}_{size}.npz"
    path = _found(request, file, published.md5[SIZES.index(size)])
    return Dataset(
        name=f"medmnist:{name}" if size == SIZES[0] else f"medmnist:{name}@{size}",
        location=str(path),
        task=published.task,
        class_names=published.class_names,
        licence=published.licence,
        kind=published.kind,
        splits={split: _split(path, split, size, published) for split in _SPLITS},
    )


def _name_and_size(request: DatasetRequest) -> tuple[str, int]:
    name, at, size = request.argument.partition("@")
    if name not in PUBLISHED:
        raise unknown("MedMNIST dataset", name, PUBLISHED, see="docs/datasets.md (" + ", ".join(PUBLISHED) + ")")
    if at and size not in map(str, SIZES):
        raise InputError(f"'{request.name}': no size '{size}'. Expected {', '.join(map(str, SIZES))}.")
    return name, int(size) if at else SIZES[0]


def _found(request: DatasetRequest, file: str, md5: str) -> Path:
    places = [request.data_dir / "medmnist", request.data_dir]
    for place in places:
        if (place / file).exists():
            return place / file
    if not request.download:
        raise missing(request, file, places)
    from mt.system.download import download

    download(URL.format(file=file), places[0] / file, known_hash=f"md5:{md5}")
    return places[0] / file


def _split(path: Path, split: str, size: int, published: MedMNIST) -> Split:
    images = NpzRows(path, f"{split}_images")
    if images.dtype != np.uint8 or images.shape[1:] not in ((size, size), (size, size, 3)):
        raise DatasetError(
            f"{path}: '{images.key}' is {images.dtype} {images.shape}, expected uint8 (N, {size}, {size}) or (..., 3)."
        )
    labels = read_member(path, f"{split}_labels")
    columns = len(published.class_names) if published.task == "multilabel" else 1
    if labels.shape != (len(images), columns):
        raise DatasetError(f"{path}: '{split}_labels' is {labels.shape}, expected {(len(images), columns)}.")
    top = 1 if published.task == "multilabel" else len(published.class_names) - 1
    if labels.size and (labels.min() < 0 or labels.max() > top):
        raise DatasetError(f"{path}: '{split}_labels' holds an unknown label, expected 0 to {top}.")
    values = labels.astype(np.int8) if published.task == "multilabel" else labels[:, 0].astype(np.int64)
    rows = LabelledRows(None, values, ids=[f"{split}-{row:06d}" for row in range(len(images))])
    return Split(split, rows, NpzImages(images))
