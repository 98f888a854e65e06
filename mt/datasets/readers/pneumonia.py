"""Kermany's chest X-rays of children, normal or pneumonia, in versions 2 and 3; the patient is in the file name."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from mt.datasets.base import Dataset
from mt.datasets.listing import list_images
from mt.datasets.location import dataset_folder, missing
from mt.datasets.readers.image_table import ImageTable, splits_of
from mt.datasets.registry import DatasetRequest
from mt.datasets.splitting import draw_splits
from mt.errors import DatasetError

CLASSES = ("NORMAL", "PNEUMONIA")
FRACTIONS = {"train": 0.9, "val": 0.1}
SEED = 0

# Version 2: IM-0115-0001, NORMAL2-IM-0383-0001, IM-0187-0001-0002, person1000_virus_1681 (bacteria and virus of one
# person are one patient).  Version 3: NORMAL-1003233-0001, BACTERIA-1008087-0001, VIRUS-1005110-0001.
_PATIENT = re.compile(
    r"((?:NORMAL2-)?IM-\d+)-\d+(?:-\d+)?"
    r"|(person\d+)_(?:bacteria|virus)_\d+"
    r"|((?:NORMAL|BACTERIA|VIRUS)-\d+)-\d+"
)


def load(request: DatasetRequest) -> Dataset:
    """Return the official test split, and train + val drawn again, patient-wise, from the official train and val.

    The official val holds 16 images, too few to choose anything by.  Numbering restarts in the test folder, so a
    patient is known by folder and number.
    """
    names = [f"{outer}chest_xray" for outer in ("pneumonia/", "pneumonia/chest_xray/", "")]
    folder = dataset_folder(request, [*names, "pneumonia"], marker="train/NORMAL")
    learning = _images(request, folder, "train")
    if (folder / "val").is_dir():  # version 3 has none
        learning += _images(request, folder, "val")
    testing = _images(request, folder, "test")
    ids = learning + testing
    labels = np.array([CLASSES.index(id_.split("/")[1]) for id_ in ids], dtype=np.int64)
    patients = [_patient(id_) for id_ in ids]
    count = len(learning)
    rows, record = draw_splits(learning, labels[:count], fractions=FRACTIONS, groups=patients[:count], seed=SEED)
    rows["test"] = np.arange(count, len(ids))
    table = ImageTable(ids, labels, [str(folder / id_) for id_ in ids], patients, {"patient": patients})
    return Dataset(
        name="pneumonia",
        location=str(folder),
        task="binary",
        class_names=CLASSES,
        licence=request.spec.licence,
        kind="xray",
        splits=splits_of(table, rows),
        grouping="patient",
        drawn={"val": record},
    )


def _images(request: DatasetRequest, folder: Path, split: str) -> list[str]:
    """Return the images of one published folder as `split/class/name`."""
    found = []
    for name in CLASSES:
        place = folder / split / name
        if not place.is_dir():
            raise missing(request, f"folder {split}/{name}", [folder])
        listing = list_images(place, inside=folder, suffixes=frozenset((".jpeg", ".jpg")))
        found += [f"{split}/{name}/{image}" for image in listing.images]
    return found


def _patient(id_: str) -> str:
    """Return the patient, namespaced by train + val or test, since numbering restarts between them."""
    folder, _, name = id_.split("/", 2)
    match = _PATIENT.fullmatch(Path(name).stem)
    if match is None:
        raise DatasetError(
            f"pneumonia: no patient in the file name {id_}. Expected names such as IM-0115-0001.jpeg, "
            "NORMAL2-IM-0383-0001.jpeg, person1_bacteria_1.jpeg or VIRUS-1005110-0001.jpeg."
        )
    return f"{'test' if folder == 'test' else 'train'}/{match[match.lastindex or 0]}"
