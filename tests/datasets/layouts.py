"""Small datasets in exactly the publishers' layouts: names, columns, keys and shapes as they come."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mt.datasets.readers.medmnist_table import PUBLISHED
from mt.datasets.readers.nih import FINDINGS

PCAM_ROWS = {"train": 24, "valid": 8, "test": 12}


def pixels(seed: int, height: int = 12, width: int = 16) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def write_image(path: Path, seed: int, *, grey: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels(seed))
    (image.convert("L") if grey else image).save(path)
    return path


def pcam_images(split: str) -> np.ndarray:
    seed = list(PCAM_ROWS).index(split)
    return np.random.default_rng(seed).integers(0, 256, (PCAM_ROWS[split], 96, 96, 3), dtype=np.uint8)


def pcam_labels(split: str) -> np.ndarray:
    return np.arange(PCAM_ROWS[split]) % 3 % 2


def write_pcam(folder: Path, *, packed: bool = False, meta: bool = True, **storage: Any) -> Path:
    """`storage` goes to h5py for `x`: chunks, compression, shuffle."""
    import h5py

    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in PCAM_ROWS.items():
        stem = f"camelyonpatch_level_2_split_{split}"
        with h5py.File(folder / f"{stem}_x.h5", "w") as file:
            file.create_dataset("x", data=pcam_images(split), **storage)
        with h5py.File(folder / f"{stem}_y.h5", "w") as file:
            file.create_dataset("y", data=pcam_labels(split).astype(np.uint8).reshape(rows, 1, 1, 1))
        if meta:
            lines = [",coord_y,coord_x,tumor_patch,center_tumor_patch,wsi"]
            lines += [f"{i},{i * 96},{i},False,False,camelyon16_{split}_normal_{i // 4:03d}" for i in range(rows)]
            (folder / f"{stem}_meta.csv").write_text("\n".join(lines) + "\n")
        for part in "xy" if packed else "":
            plain = folder / f"{stem}_{part}.h5"
            with gzip.open(f"{plain}.gz", "wb") as file:
                file.write(plain.read_bytes())
            plain.unlink()
    return folder


def write_aptos(folder: Path, count: int = 60) -> Path:
    """Grades cycle 0 to 4; the images 0, 7 and 14 are one file, with conflicting grades."""
    lines = ["id_code,diagnosis"]
    for number in range(count):
        id_ = f"{number * 7919:012x}"
        write_image(folder / "train_images" / f"{id_}.png", 0 if number in (7, 14) else number)
        lines.append(f"{id_},{number % 5}")
    (folder / "train.csv").write_text("\n".join(lines) + "\n")
    (folder / "test.csv").write_text("id_code\n0005cfc8afb6\n")
    return folder


def pneumonia_names(version: int) -> dict[str, list[str]]:
    """The published naming: version 2 numbers persons again in test, version 3 has no val."""
    if version == 3:
        return {
            "train/NORMAL": [f"NORMAL-{1000000 + n // 2}-000{n % 2 + 1}" for n in range(16)],
            "train/PNEUMONIA": [f"BACTERIA-{1000000 + n // 2}-000{n % 2 + 1}" for n in range(12)]
            + [f"VIRUS-{1000000 + n // 2}-000{n % 2 + 1}" for n in range(12)],
            "test/NORMAL": [f"NORMAL-{2000000 + n}-0001" for n in range(4)],
            "test/PNEUMONIA": [f"VIRUS-{2000000 + n}-0001" for n in range(4)],
        }
    return {
        "train/NORMAL": [f"IM-{115 + n // 2:04d}-000{n % 2 + 1}" for n in range(12)]
        + ["IM-0187-0001-0001", "IM-0187-0001-0002", "NORMAL2-IM-0383-0001", "NORMAL2-IM-0115-0001"],
        "train/PNEUMONIA": [f"person{n // 3}_bacteria_{n}" for n in range(18)]
        + [f"person{n}_virus_{n}" for n in range(6)],
        "val/NORMAL": ["NORMAL2-IM-1427-0001", "NORMAL2-IM-1430-0001"],
        "val/PNEUMONIA": ["person1946_bacteria_4874", "person1_bacteria_9999"],
        "test/NORMAL": ["IM-0001-0001", "IM-0115-0001", "NORMAL2-IM-0007-0001"],
        "test/PNEUMONIA": ["person100_bacteria_475", "person1_virus_11", "person1_virus_12"],
    }


def write_pneumonia(folder: Path, version: int = 2) -> Path:
    seed = 0
    for place, names in pneumonia_names(version).items():
        for name in names:
            seed += 1
            write_image(folder / "chest_xray" / place / f"{name}.jpeg", seed, grey=True)
    return folder


NIH_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
)


def nih_rows(patients: int = 36) -> list[tuple[str, str, int, str]]:
    """Return (image, findings, patient, line): two or three images per patient, findings joined by `|`."""
    rows = []
    for patient in range(1, patients + 1):
        for visit in range(2 + patient % 2):
            name = f"{patient:08d}_{visit:03d}.png"
            number = patient * 3 + visit
            pair = f"{FINDINGS[number % 14]}|{FINDINGS[(number + 5) % 14]}"
            findings = "No Finding" if number % 4 == 0 else pair if number % 4 == 1 else FINDINGS[number % 14]
            sex, view = "MF"[patient % 2], ("PA", "AP")[visit % 2]
            line = f"{name},{findings},{visit},{patient},{20 + patient},{sex},{view},2682,2749,0.143,0.143,"
            rows.append((name, findings, patient, line))
    return rows


def write_nih(folder: Path, *, csv_name: str = "Data_Entry_2017_v2020.csv") -> Path:
    """Twelve image folders; the last six patients are the official test list."""
    rows = nih_rows()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / csv_name).write_text("\n".join([NIH_HEADER, *(line for *_, line in rows)]) + "\n")
    for number, (name, *_) in enumerate(rows):
        write_image(folder / f"images_{number % 12 + 1:03d}" / "images" / name, number, grey=True)
    (folder / "train_val_list.txt").write_text("\n".join(name for name, _, patient, _ in rows if patient <= 30))
    (folder / "test_list.txt").write_text("\n".join(name for name, _, patient, _ in rows if patient > 30))
    return folder


def write_medmnist(
    folder: Path, name: str, *, size: int = 28, grey: bool = False, rows: Sequence[int] = (20, 6, 8)
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    published = PUBLISHED[name]
    classes = len(published.class_names)
    arrays: dict[str, np.ndarray] = {}
    for seed, (split, count) in enumerate(zip(("train", "val", "test"), rows, strict=True)):
        rng = np.random.default_rng(seed)
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, size, size) + (() if grey else (3,)), dtype=np.uint8)
        multilabel = published.task == "multilabel"
        labels = rng.integers(0, 2, (count, classes)) if multilabel else (np.arange(count) % classes)[:, None]
        arrays[f"{split}_labels"] = labels.astype(np.uint8)
    path = folder / (f"{name}.npz" if size == 28 else f"{name}_{size}.npz")
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]
    return path


def write_folder(
    folder: Path, classes: Sequence[str] = ("cat", "dog"), count: int = 10, *, splits: Sequence[str] = ()
) -> Path:
    seed = 0
    for split in splits or ("",):
        for name in classes:
            for number in range(count):
                seed += 1
                write_image(folder / split / name / f"p{number // 2}_{number}.png", seed)
    return folder
