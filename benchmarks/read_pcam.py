"""Reading PCam-layout HDF5 against `torchvision.datasets.PCAM` through a DataLoader with as many workers."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._pairs import machine, paired, row
from mt.datasets.packed.hdf5 import Hdf5Rows
from mt.datasets.readers.synthetic import Patches
from mt.featurize.reading import TASK_ROWS

ROWS = 4000
WORKERS = 2
BATCH = 64
STEM = "camelyonpatch_level_2_split_test"
# How `x` is stored -> its settings, the ratio to reach, rounds, and how many rows are read in a round.
STORAGE: dict[str, tuple[dict[str, Any], str, int, int]] = {
    "contiguous": ({}, ">= 100", 5, ROWS),
    "gzip, chunks of 64 rows": ({"chunks": (64, 96, 96, 3), "compression": "gzip"}, ">= 20", 2, ROWS // 2),
    "gzip, chunks that h5py chooses": ({"compression": "gzip"}, "reported", 1, ROWS // 10),
}


def main() -> None:
    """Print one ratio per storage layout, everything from the page cache; both sides read images and labels."""
    print(f"  {machine()}; {ROWS} patches 96x96, {WORKERS} workers on both sides")
    for kind, (storage, reach, rounds, count) in STORAGE.items():
        with pcam(storage) as folder:
            mine, other, ratio = paired(ours(folder, count), torchvisions(folder, count), rounds=rounds)
            note = f"{count / mine:,.0f} against {count / other:,.0f} images/s"
            row(f"{kind} / torchvision PCAM (rate)", ratio, reach=reach, note=note)


@contextmanager
def pcam(storage: dict[str, Any]) -> Iterator[Path]:
    """Yield a folder with the published test files, in tissue-like patches that compress as tissue does."""
    import h5py

    patches = np.stack(Patches(seed=0, split=0, count=ROWS // 8).load(0, ROWS // 8))  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "pcam"
        folder.mkdir()
        with h5py.File(folder / f"{STEM}_x.h5", "w") as file:
            file.create_dataset("x", data=np.tile(patches, (8, 1, 1, 1)), **storage)
        with h5py.File(folder / f"{STEM}_y.h5", "w") as file:
            file["y"] = np.zeros((ROWS, 1, 1, 1), dtype=np.uint8)
        yield folder


def ours(folder: Path, count: int) -> Callable[[], int]:
    """Return what opens the files and reads the first rows in ranges as `mt featurize` does, one share per thread."""

    def read() -> int:
        images, labels = (Hdf5Rows(folder / f"{STEM}_{part}.h5", part) for part in "xy")
        labels.read(0, count)
        share = -(-count // WORKERS)

        def rows_of(first: int) -> int:
            stop = min(first + share, count)
            return sum(len(images.read(row, min(row + TASK_ROWS, stop))) for row in range(first, stop, TASK_ROWS))

        with ThreadPoolExecutor(WORKERS) as pool:
            return sum(pool.map(rows_of, range(0, count, share)))

    return read


def torchvisions(folder: Path, count: int) -> Callable[[], int]:
    """Return what reads as many rows as its documentation shows."""
    from torch.utils.data import DataLoader, Subset
    from torchvision.datasets import PCAM
    from torchvision.transforms.functional import pil_to_tensor

    dataset = Subset(PCAM(str(folder.parent), split="test", transform=pil_to_tensor), range(count))
    loader = DataLoader(dataset, batch_size=BATCH, num_workers=WORKERS)
    return lambda: sum(len(images) for images, _ in loader)


if __name__ == "__main__":
    main()
