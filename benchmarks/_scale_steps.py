"""One step of `benchmarks.scale`, in a process of its own: prints the seconds of its parts and its peak memory."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mt.cache.catalog import Catalog
from mt.cache.content import ContentIndex
from mt.cache.feature_file.format import Status
from mt.cache.feature_file.write import FeatureWriter
from mt.datasets import Dataset, load_dataset
from mt.featurize import plan

DIM, BLOCK_ROWS = 8, 256


@dataclass(frozen=True)
class Nothing:
    """A stand-in for a backbone: only the attributes that a plan reads."""

    name: str = "nothing"
    dim: int = DIM
    fingerprint: str = "0" * 64
    description: dict[str, Any] = field(default_factory=dict)
    random_weights: bool = False


class Clock:
    """Seconds by part."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - began


def main(step: str, table: Path) -> None:
    """Do one step and print what it took."""
    clock = Clock()
    with clock.part("all"):
        STEPS[step](table, clock)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1024 if sys.platform == "linux" else 1)
    print(json.dumps({"seconds": clock.seconds, "peak": peak}))


def _imports(table: Path, clock: Clock) -> None:
    """Nothing but the imports, numpy's and h5py's among them."""
    import h5py

    assert h5py.version


def _list(table: Path, clock: Clock) -> None:
    load_dataset(f"table:{table}")


def _planned(table: Path, clock: Clock) -> tuple[Dataset, list[plan.Target], ContentIndex]:
    index = ContentIndex()
    with clock.part("list"):
        dataset = load_dataset(f"table:{table}", index=index)
    with clock.part("plan"):
        found = plan.targets(dataset, list(dataset.splits), [Nothing()], cache_dir=table.parent / "cache", index=index)
    return dataset, found, index


def _featurize(table: Path, clock: Clock) -> None:
    """Plan with no hash known, and write what a network would give through the real writer."""
    dataset, targets, index = _planned(table, clock)
    for target in targets:
        split = dataset.splits[target.split]
        manifest = {
            "dataset": dataset.name,
            "location": dataset.location,
            "split": target.split,
            "backbone": target.model,
            "task": dataset.task,
            "class_names": list(dataset.class_names),
            "metric": dataset.metric,
            "budget_unit": dataset.budget_unit,
            "grouping": dataset.grouping,
            "licence": dataset.licence,
            "fingerprints": dict(target.fingerprints),
            "inputs": {"backbone": {}, "dataset": dataset.describe(index)},
            "decoding": dataset.decoding,
            "limit": None,
            "random_weights": False,
            "compute": {"batch_size": BLOCK_ROWS, "threads": 1},
            "command": "mt featurize",
            "warnings": [],
        }
        with clock.part(f"row hashes of {target.split}"):
            hashes = split.row_hashes(index)
        with clock.part(f"create {target.split}"):
            writer = FeatureWriter.open(
                target.path, split.rows, manifest, dim=DIM, dtype="float16", block_rows=BLOCK_ROWS, content=hashes
            )
        with clock.part(f"write {target.split}"), writer:
            noise = np.random.default_rng(0)
            for block in list(writer.missing):
                n = min(BLOCK_ROWS, writer.n_rows - block * BLOCK_ROWS)
                writer.write_block(
                    block, noise.standard_normal((n, DIM), dtype=np.float32), np.full(n, Status.OK, np.uint8)
                )
            writer.finish()


def _recognise(table: Path, clock: Clock) -> None:
    _, targets, _ = _planned(table, clock)
    assert all(target.complete for target in targets)


def _read(table: Path, clock: Clock) -> None:
    for entry in Catalog(table.parent / "cache").entries():
        with clock.part(f"open {entry.split}"):
            features = entry.open()
        with clock.part(f"rows of {entry.split}"):
            assert len(features.ids) == len(features.labels) == len(features.groups or ()) == features.n_ok


def _catalog(table: Path, clock: Clock) -> None:
    assert len(Catalog(table.parent / "cache").entries()) == 2


def _probe(table: Path, clock: Clock) -> None:
    """`mt probe --shots 10`, a first time, which fits, and a second one, which reads the scores."""
    from mt.cli import group

    words = ["probe", "--cache-dir", str(table.parent / "cache"), "--shots", "10", "--scores"]
    for part in ("first", "again"):
        with clock.part(part):
            status = group.main([*words, str(table.parent / "scores.sqlite")], standalone_mode=False)
            assert not status


STEPS = {
    "imports": _imports,
    "list": _list,
    "featurize": _featurize,
    "recognise": _recognise,
    "read": _read,
    "catalog": _catalog,
    "probe": _probe,
}

if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
