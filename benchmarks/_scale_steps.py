"""One step of `benchmarks.scale`, run in its own process: prints the seconds of its parts and its peak memory."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mt.cache.catalog import Catalog
from mt.cache.content import ContentIndex
from mt.datasets import Dataset, Split, load_dataset
from mt.datasets.decoding.row_hashes import HASH_BYTES
from mt.datasets.images import ImageFiles
from mt.datasets.splitting import draw_splits
from mt.featurize import FeaturizeRequest, extract
from mt.featurize.plan import Result
from mt.featurize.request import Compute
from mt.types import LabelledRows, Texts

DIM = 8
CLASSES = ("benign", "malignant")
BACKBONE = f"""
import torch
import mt


def backbone():
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, {DIM}))
    return network, mt.Preprocess(resize=8, crop=8), {DIM}
"""


@dataclass(frozen=True)
class Blank:
    """Images of a single grey value each; `files`, if given, are listed and hashed but not decoded."""

    rows: int
    files: ImageFiles | None = None

    def __len__(self) -> int:
        return self.rows

    def load(self, start: int, stop: int) -> list[Any]:
        return [np.full((8, 8, 3), row * 7919 % 251, np.uint8) for row in range(start, min(stop, self.rows))]

    def content(self, index: ContentIndex) -> Any:
        return {"grey": self.rows} if self.files is None else self.files.content(index)

    def row_hashes(self, index: ContentIndex, places: Sequence[int]) -> np.ndarray:
        if self.files is not None:
            return self.files.row_hashes(index, places)
        hashes = np.zeros((len(places), HASH_BYTES), np.uint8)
        hashes[:, :8] = (np.asarray(places, np.int64) + 1)[:, None].view(np.uint8)
        return hashes


def generated(rows: int) -> Dataset:
    """Return the rows that `benchmarks.scale.made` would list, without a table and without files."""
    numbers = np.arange(rows)
    ids = Texts.of(f"tile-{row:08}.png" for row in range(rows))
    labels = (numbers * 7919 % 13 > 8).astype(np.int64)
    groups = Texts(Texts.of(f"P{number:07}" for number in range(-(-rows // 20))).encoded[numbers // 20])
    columns = {"patient": groups, "sex": Texts(np.array([b"F", b"M"])[numbers % 2])}
    whole = LabelledRows(None, labels, groups, ids, columns)
    chosen, record = draw_splits(ids, labels, fractions={"train": 0.8, "test": 0.2}, groups=groups, seed=0)
    splits = {name: Split(name, whole.take(places), Blank(len(places))) for name, places in chosen.items()}
    return Dataset(
        "generated", None, "binary", CLASSES, "none", "patch", splits, grouping="patient", drawn={"splits": record}
    )


def listed(folder: Path, rows: int, index: ContentIndex) -> Dataset:
    """Return the dataset of the folder's table, whose images are not decoded; without a table, a generated one."""
    table = folder / "tiles.csv"
    if not table.exists():
        return generated(rows)
    found = load_dataset(f"table:{table}", index=index)
    splits = {}
    for name, split in found.splits.items():
        assert isinstance(split.images, ImageFiles)
        splits[name] = replace(split, images=Blank(len(split), split.images))
    return replace(found, splits=splits)


def featurized(folder: Path, dataset: Dataset, index: ContentIndex) -> list[Result]:
    """Featurize with a tiny network into the folder's cache, skipping finished files; return one result per file."""
    network = folder / "tiny.py"
    if not network.exists():
        network.write_text(BACKBONE, encoding="utf-8")
    request = FeaturizeRequest(
        [dataset],
        [f"module:{network}:backbone"],
        cache_dir=folder / "cache",
        compute=Compute(device="cpu", dtype="float16", batch_size=256, workers=1),
    )
    return extract(request, index=index)


class Clock:
    """Wall seconds and CPU seconds of each part."""

    def __init__(self) -> None:
        self.seconds: dict[str, tuple[float, float]] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        began, cpu = time.perf_counter(), time.process_time()
        yield
        self.seconds[name] = time.perf_counter() - began, time.process_time() - cpu


def main(step: str, folder: Path, rows: int) -> None:
    """Do one step; print its seconds and its peak memory as JSON."""
    clock = Clock()
    with clock.part("all"):
        STEPS[step](folder, rows, clock)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1024 if sys.platform == "linux" else 1)
    print(json.dumps({"seconds": clock.seconds, "peak": peak}))


def _list(folder: Path, rows: int, clock: Clock) -> None:
    listed(folder, rows, ContentIndex())


def _featurize(folder: Path, rows: int, clock: Clock) -> None:
    """List, hash, plan and compute as `mt featurize` does, with a tiny network."""
    index = ContentIndex()
    with clock.part("list"):
        dataset = listed(folder, rows, index)
    with clock.part("hash"):
        dataset.fingerprint(index)
    with clock.part("compute"):
        assert all(not result.cached for result in featurized(folder, dataset, index))


def _recognise(folder: Path, rows: int, clock: Clock) -> None:
    index = ContentIndex()
    with clock.part("list"):
        dataset = listed(folder, rows, index)
    with clock.part("recognise"):
        assert all(result.cached for result in featurized(folder, dataset, index))
    assert "torch" not in sys.modules


def _catalog(folder: Path, rows: int, clock: Clock) -> None:
    assert len(Catalog(folder / "cache").entries()) == 2


def _read(folder: Path, rows: int, clock: Clock) -> None:
    for entry in Catalog(folder / "cache").entries():
        with clock.part(f"open {entry.split}"):
            features = entry.open()
        with clock.part(f"rows of {entry.split}"):
            assert len(features.ids) == len(features.labels) == len(features.groups or ()) == features.n_ok


def _probe(folder: Path, rows: int, clock: Clock) -> None:
    """Run `mt probe --shots 10` twice: the first run fits, the second reads the stored scores."""
    from mt.cli import group

    words = ["probe", "--cache-dir", str(folder / "cache"), "--shots", "10", "--scores", str(folder / "scores.sqlite")]
    for part in ("first", "again"):
        with clock.part(part):
            status = group.main(words, standalone_mode=False)
            assert not status


STEPS = {
    "list": _list,
    "featurize": _featurize,
    "recognise": _recognise,
    "read": _read,
    "catalog": _catalog,
    "probe": _probe,
}

if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
