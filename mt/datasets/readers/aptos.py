"""APTOS 2019: fundus photographs graded 0 to 4 for diabetic retinopathy; only the training labels were published."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from mt.cache.content import ContentIndex
from mt.datasets.base import Dataset
from mt.datasets.listing import list_images, some
from mt.datasets.location import dataset_folder, missing
from mt.datasets.readers.image_table import ImageTable, found_images, splits_of
from mt.datasets.registry import DatasetRequest
from mt.datasets.splitting import draw_splits
from mt.datasets.tabular.csv_file import read_csv
from mt.errors import DatasetError

GRADES = ("no retinopathy", "mild", "moderate", "severe", "proliferative")
FRACTIONS = {"train": 0.8, "test": 0.2}
SEED = 0


def load(request: DatasetRequest) -> Dataset:
    """Return the fixed, stratified 80/20 split of the labelled images; byte-identical files are one group."""
    folder = dataset_folder(request, ["aptos2019", "aptos2019-blindness-detection"], marker="train.csv")
    table = read_csv(folder / "train.csv", ["id_code", "diagnosis"])
    ids = table["id_code"]
    if len(set(ids)) < len(ids):
        repeated = [id_ for id_, count in Counter(ids).items() if count > 1]
        raise DatasetError(f"{folder / 'train.csv'} lists an image twice: {some(repeated)}.")
    labels = _grades(table["diagnosis"], ids, folder / "train.csv")
    images, warnings = found_images(
        request, ids, _files(request, folder / "train_images"), where=folder / "train_images", ending=".png"
    )
    groups = _identical_files(ids, images, request.index or ContentIndex())
    rows, record = draw_splits(ids, labels, fractions=FRACTIONS, groups=groups, seed=SEED)
    return Dataset(
        name="aptos2019",
        location=str(folder),
        task="ordinal",
        class_names=GRADES,
        licence=request.spec.licence,
        kind="fundus",
        splits=splits_of(ImageTable(ids, labels, images, groups), rows),
        grouping="identical file",
        warnings=(*warnings, "no patient grouping known: both eyes of a patient may be in train and test"),
        drawn={"splits": record},
    )


def _files(request: DatasetRequest, folder: Path) -> dict[str, str]:
    """Return the path of each image by its id."""
    if not folder.is_dir():
        raise missing(request, "folder train_images", [folder.parent])
    names = list_images(folder, inside=folder.parent, suffixes=frozenset((".png",))).images
    return {Path(name).stem: f"{folder}/{name}" for name in names}


def _grades(values: list[str], ids: list[str], file: Path) -> np.ndarray:
    known = [str(grade) for grade in range(len(GRADES))]
    for id_, value in zip(ids, values, strict=True):
        if value not in known:
            raise DatasetError(f"{file}: unknown label '{value}' for {id_}, expected one of {', '.join(known)}.")
    return np.array(values, dtype=np.int64)


def _identical_files(ids: list[str], images: list[str | None], index: ContentIndex) -> list[str]:
    """Return one group per image, the same for byte-identical files: the smallest of their ids."""
    present = [row for row, path in enumerate(images) if path is not None]
    hashes = index.sha256_many([Path(str(images[row])) for row in present], label="hashing images")
    first: dict[str, str] = {}
    for row, content in zip(present, hashes, strict=True):
        first[content] = min(first.get(content, ids[row]), ids[row])
    groups = list(ids)
    for row, content in zip(present, hashes, strict=True):
        groups[row] = first[content]
    return groups
