"""NIH ChestX-ray14: 112,120 chest X-rays of 30,805 patients with fourteen findings, read from reports by software."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mt.datasets.base import Dataset
from mt.datasets.dicom.headers import whole_years
from mt.datasets.listing import list_images, some
from mt.datasets.location import dataset_folder, missing
from mt.datasets.readers.image_table import ImageTable, found_images, splits_of
from mt.datasets.registry import DatasetRequest
from mt.datasets.splitting import draw_splits
from mt.datasets.tabular.csv_file import read_csv
from mt.errors import DatasetError

FINDINGS = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
)
NO_FINDING = "No Finding"
FRACTIONS = {"train": 0.9, "val": 0.1}
SEED = 0
_COLUMNS = ("Image Index", "Finding Labels", "Patient ID", "Patient Age", "Patient Gender", "View Position")


def load(request: DatasetRequest) -> Dataset:
    """Return the official test split, and a patient-wise val drawn from the official train_val list."""
    folder = dataset_folder(request, ["nih-cxr14"], marker="Data_Entry_2017*.csv")
    file = sorted(folder.glob("Data_Entry_2017*.csv"))[-1]
    columns = read_csv(file, _COLUMNS)
    lists = {name: _list(request, folder, f"{name}_list.txt") for name in ("train_val", "test")}
    place = {id_: row for row, id_ in enumerate(columns["Image Index"])}
    listed = np.array([place.get(id_, -1) for ids in lists.values() for id_ in ids])
    if (listed < 0).any():
        unknown = [id_ for ids in lists.values() for id_ in ids if id_ not in place]
        raise DatasetError(f"{file} has no row for {len(unknown):,} listed images: {some(unknown)}.")
    kept = {name: [values[row] for row in listed] for name, values in columns.items() if name in _COLUMNS}
    ids, patients = kept["Image Index"], kept["Patient ID"]
    labels = _findings(kept["Finding Labels"], ids, file)
    images, warnings = found_images(request, ids, _files(folder), where=folder)
    count = len(lists["train_val"])
    rows, record = draw_splits(ids[:count], labels[:count], fractions=FRACTIONS, groups=patients[:count], seed=SEED)
    rows["test"] = np.arange(count, len(ids))
    metadata = {
        "sex": kept["Patient Gender"],
        "age": [whole_years(value) for value in kept["Patient Age"]],
        "view": kept["View Position"],
        "patient": patients,
    }
    return Dataset(
        name="nih-cxr14",
        location=str(folder),
        task="multilabel",
        class_names=FINDINGS,
        licence=request.spec.licence,
        kind="xray",
        splits=splits_of(ImageTable(ids, labels, images, patients, metadata), rows),
        grouping="patient",
        drawn={"val": record},
        warnings=tuple(warnings),
    )


def _list(request: DatasetRequest, folder: Path, name: str) -> list[str]:
    if not (folder / name).is_file():
        raise missing(request, name, [folder])
    return (folder / name).read_text(encoding="utf-8").split()


def _files(folder: Path) -> dict[str, str]:
    """Return the path of each image by its name, in `images_001/images/` to `images_012/images/` or in `images/`."""
    files: dict[str, str] = {}
    for part in sorted(folder.glob("images*")):
        for image in list_images(part, inside=folder, suffixes=frozenset((".png",))).images if part.is_dir() else ():
            name = image.rpartition("/")[2]
            if name in files:
                raise DatasetError(f"nih-cxr14: {name} is there twice, as {files[name]} and {part / image}.")
            files[name] = f"{part}/{image}"
    return files


def _findings(values: list[str], ids: list[str], file: Path) -> np.ndarray:
    """Return one column per finding from `Effusion|Mass`; `No Finding` is all zeros."""
    labels = np.zeros((len(values), len(FINDINGS)), dtype=np.int8)
    column = {name: number for number, name in enumerate(FINDINGS)}
    for row, value in enumerate(values):
        for name in value.split("|"):
            if name in column:
                labels[row, column[name]] = 1
            elif name != NO_FINDING:
                known = ", ".join((*FINDINGS, NO_FINDING))
                raise DatasetError(f"{file}: unknown label '{name}' for {ids[row]}, expected any of {known}.")
    return labels
