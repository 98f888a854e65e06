"""One run of `benchmarks.scale --writer`: simulated workers, whose network computes nothing, fill one feature file.

Only the workers are simulated.  The code that hands out units, collects answers, gathers blocks and writes them is that
of `mt featurize`.  Each answer is a fresh copy, as an answer through a pipe would be.  Prints JSON: seconds, CPU
seconds, bytes written and memory added.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mt.cache.feature_file.format import Status
from mt.cache.feature_file.write import FeatureWriter
from mt.cache.known_rows import nothing_known
from mt.datasets import Split
from mt.featurize.engines.crew import Answered, Lost, Member
from mt.featurize.engines.many import ManyWorkers
from mt.featurize.engines.worker import Answer, PassTerms, Unit, WorkerFacts
from mt.featurize.pipeline import Job, run_pass
from mt.types import LabelledRows

ROWS = 256  # per block, per batch and per unit
MODEL = "nothing"


class NoImages:
    """An image source that must never be read."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def load(self, start: int, stop: int) -> list[Any]:
        raise AssertionError("simulated workers read no image")

    def content(self, index: object) -> None:
        """Return nothing: the file's name does not depend on it."""


class SimulatedCrew:
    """Workers that finish a unit as soon as they receive it."""

    def __init__(self, workers: int, dim: int) -> None:
        facts = WorkerFacts("here", "cpu", {"device_name": "cpu"}, ROWS)
        self._all = [Member(f"worker {number}", facts) for number in range(1, workers + 1)]
        self._noise = np.random.default_rng(0).standard_normal((ROWS, dim), dtype=np.float32)
        self._given: deque[tuple[Member, PassTerms, Unit]] = deque()

    def members(self) -> Sequence[Member]:
        return self._all

    def give(self, member: Member, terms: PassTerms, unit: Unit) -> None:
        self._given.append((member, terms, unit))

    def wait(self, seconds: float) -> list[Answered | Lost]:
        answers: list[Answered | Lost] = []
        for _ in range(min(len(self._given), len(self._all))):
            member, terms, unit = self._given.popleft()
            answer = Answer(terms.number, unit.number, [])
            for _ in unit.batches:
                answer.batches.append((np.full(ROWS, Status.OK, np.uint8), [], {MODEL: self._noise.copy()}))
            answers.append(Answered(member, answer))
        return answers

    def close(self) -> None:
        """Do nothing: no process was started."""


def written(path: Path, *, blocks: int, dim: int, dtype: str, workers: int) -> dict[str, float]:
    """Write a file of `blocks` blocks; return the seconds of the pass, its size and the memory that it added."""
    n = blocks * ROWS
    rows = LabelledRows(None, np.zeros(n, np.int64), ids=[f"tile-{row:08}" for row in range(n)])
    names = ("backbone", "dataset", "split", "file")
    manifest: dict[str, Any] = {
        "dataset": "none",
        "split": "train",
        "backbone": MODEL,
        "task": "binary",
        "class_names": ["a", "b"],
        "fingerprints": dict.fromkeys(names, "0" * 64),
        "compute": {"batch_size": ROWS, "threads": 1},
        "command": "python -m benchmarks.scale --writer",
    }
    engine = ManyWorkers(SimulatedCrew(workers, dim), {}, {MODEL: dim}, torch.device("cpu"))
    with FeatureWriter.open(path, rows, manifest, dim=dim, dtype=dtype, block_rows=ROWS) as writer:
        job = Job(MODEL, writer, ROWS, 1, nothing_known(n, dim))
        before = _memory(reset=True)
        began, cpu = time.perf_counter(), time.process_time()
        run_pass(engine, Split("train", rows, NoImages(n)), [job], on_error="raise", advance=lambda images: None)
        writer.finish()
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    return {"seconds": seconds, "cpu": cpu, "bytes": path.stat().st_size, "added": _memory() - before}


def _memory(*, reset: bool = False) -> float:
    """Return the peak resident memory since the last reset, in bytes; `reset` sets the peak to the present size."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (peak,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    return int(peak) * 1024.0


def main() -> None:
    """Write one file; print its seconds, size and memory as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("path", type=Path)
    parser.add_argument("blocks", type=int)
    parser.add_argument("dim", type=int)
    parser.add_argument("dtype")
    parser.add_argument("workers", type=int)
    asked = parser.parse_args()
    print(json.dumps(written(asked.path, **{name: value for name, value in vars(asked).items() if name != "path"})))


if __name__ == "__main__":
    main()
