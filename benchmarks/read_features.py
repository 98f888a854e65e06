"""Reading a 1 GB feature file, with and without checksums, against `numpy.fromfile` of as many bytes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks._pairs import machine, paired, row
from mt import open_features
from mt.cache.feature_file.format import Status
from mt.cache.feature_file.write import FeatureWriter
from mt.types import LabelledRows

DIM = 2048
ROWS = 2**30 // (4 * DIM)
BLOCK = 256
ROUNDS = 5


def main() -> None:
    """Print the ratios, from the page cache."""
    print(f"  {machine()}; {ROWS} x {DIM} float32")
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / "features.h5")
        plain = Path(folder) / "plain.bin"
        np.array(open_features(path).embeddings).tofile(plain)
        for what, verify, use, reach in (
            ("read and add up in place", False, np.sum, ">= 0.9"),
            ("verify, read and add up in place", True, np.sum, "reported"),
            ("copy out of the map", False, np.array, "reported"),
        ):
            use_plain = np.sum if use is np.sum else np.asarray  # fromfile's own array is a copy already
            _, other, ratio = paired(
                partial(read, path, use, verify=verify), partial(read_plain, plain, use_plain), rounds=ROUNDS
            )
            row(f"{what} / the same with numpy.fromfile (rate)", ratio, reach=reach, note=f"{1.07 / other:.1f} GB/s")


def read(path: Path, use: Callable[[np.ndarray], object], *, verify: bool) -> None:
    use(open_features(path, verify=verify).embeddings)


def read_plain(path: Path, use: Callable[[np.ndarray], object]) -> None:
    use(np.fromfile(path, np.float32))


def write(path: Path) -> Path:
    """Return a complete feature file of random numbers."""
    rows = LabelledRows(None, np.zeros(ROWS, np.int64), ids=[f"row{i}" for i in range(ROWS)])
    manifest = {
        "dataset": "benchmark",
        "location": None,
        "split": "train",
        "backbone": "none",
        "task": "binary",
        "class_names": ["a", "b"],
        "metric": "roc_auc",
        "budget_unit": "row",
        "grouping": None,
        "licence": "none",
        "fingerprints": dict.fromkeys(("backbone", "dataset", "split", "file"), "0" * 64),
        "inputs": {},
        "limit": None,
        "random_weights": False,
        "compute": {},
        "command": "",
        "warnings": [],
    }
    rng = np.random.default_rng(0)
    with FeatureWriter.open(path, rows, manifest, dim=DIM, block_rows=BLOCK) as writer:
        for block in writer.missing:
            count = min(BLOCK, ROWS - block * BLOCK)
            embeddings = rng.standard_normal((count, DIM), dtype=np.float32)
            writer.write_block(block, embeddings, np.full(count, Status.OK, np.uint8))
        return writer.finish()


if __name__ == "__main__":
    main()
