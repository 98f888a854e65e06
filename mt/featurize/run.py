"""The computing part of `extract`: reserve every file of the run, then one pass over the images of each split."""

from __future__ import annotations

import shlex
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mt.backbones.load import Backbone, find_spec
from mt.backbones.weights import RANDOM
from mt.cache import status_counts
from mt.cache.catalog import cache_of
from mt.cache.content import ContentIndex
from mt.cache.feature_file.format import whole_path
from mt.cache.feature_file.lock import acquire
from mt.cache.feature_file.shards import BlockWriter
from mt.cache.feature_file.write import Existing, FeatureWriter
from mt.cache.names import data_dir_of, loadable_name
from mt.cache.salt import id_salt
from mt.datasets import Dataset
from mt.featurize import reuse
from mt.featurize.embed import even_batches
from mt.featurize.engines.base import Engine
from mt.featurize.loaded import LoadedBackbones
from mt.featurize.pipeline import Job, missing_rows, run_pass
from mt.featurize.plan import Result, Target
from mt.featurize.request import Compute
from mt.system import files
from mt.system.device import computes_bfloat16_fast
from mt.terminal import progress

# Rows per block, which share a checksum; a killed run computes at most its unfinished blocks again.
BLOCK_ROWS = 256
SHARD_WAIT = 600.0  # seconds to wait while other shards of a file reserve their space
MANY = 10_000  # images from which a note names the faster precision
BFLOAT16 = (
    "Note: --precision bfloat16 computes several times as many images per second on this device. Its embeddings differ "
    "slightly, so they go to files of their own."
)


def run(
    dataset: Dataset,
    targets: Sequence[Target],
    loaded: LoadedBackbones,
    compute: Compute,
    *,
    engine: Engine,
    limit: int | None,
    index: ContentIndex,
) -> dict[Path, Result]:
    """Compute the files of `targets` and return one result per path; an interrupted run keeps its finished blocks.

    Rows whose embeddings the cache holds are copied.  `engine` computes with the backbones in `loaded`; `index`
    remembers hashes.
    """
    content = dataset.describe(index)
    images = sum(len(dataset.splits[split]) for split in {target.split for target in targets})
    if compute.precision == "float32" and images >= MANY and computes_bfloat16_fast(engine.device):
        progress.note(BFLOAT16)
    results: dict[Path, Result] = {}
    with ExitStack() as open_files:
        manifests = [
            manifest(
                dataset,
                target,
                loaded.load(target.model),
                content=content,
                limit=limit,
                how=engine.describe(_batch_size(len(dataset.splits[target.split]), engine, compute)),
                again=command(dataset, target, compute, engine.named_device(), limit=limit, loaded=loaded),
            )
            for target in targets
        ]
        hashes = {split: dataset.splits[split].row_hashes(index) for split in {target.split for target in targets}}
        reuses = {
            target: reuse.planned(
                target,
                content,
                hashes[target.split],
                compute,
                engine.embedder(target.model),
                rows=len(dataset.splits[target.split]),
            )
            for target, content in zip(targets, manifests, strict=True)
        }
        writers = _reserve(dataset, reuses, compute, open_files)
        jobs = {target: _job(writer, reuses[target], target, compute) for target, writer in writers.items()}
        passes = _shared_passes(jobs)
        total = sum(missing_rows(list(group.values())) for group in passes)
        with progress.bar(dataset.name, total, more=engine.shown) as advance:
            for group in passes:
                results |= _one_pass(engine, dataset, group, compute, advance)
    return results


def _batch_size(rows: int, engine: Engine, compute: Compute) -> int:
    """Return the batch size of a split: on a CPU, unless one was asked for, the size that pads least."""
    most = engine.batch_size
    return even_batches(rows, most=most) if compute.batch_size is None and engine.device.type == "cpu" else most


def manifest(
    dataset: Dataset,
    target: Target,
    backbone: Backbone,
    *,
    content: Mapping[str, Any],
    limit: int | None,
    how: Mapping[str, Any],
    again: str,
) -> dict[str, Any]:
    """Return a feature file's description of itself, without times or anything else that a second run would change.

    `how` describes what computes it; `again` is the command that makes it.
    """
    return {
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
        "inputs": {"backbone": backbone.description, "dataset": dict(content)},
        "decoding": dataset.decoding,
        "limit": limit,
        "random_weights": backbone.random_weights,
        "compute": dict(how),
        "command": again,
        "warnings": list(dataset.warnings),
        **({"settings": changed} if (changed := dataset.settings.changed()) else {}),
    }


def command(
    dataset: Dataset,
    target: Target,
    compute: Compute,
    device: str | None,
    *,
    limit: int | None,
    loaded: LoadedBackbones,
) -> str:
    """Return the command that makes or finishes a feature file in the default cache folder, on one device."""
    description, weights = loaded.load(target.model).description, loaded.weights[target.model]
    name, place = loadable_name(dataset.name, dataset.location), data_dir_of(dataset.name, dataset.location)
    words = ["mt", "featurize", "--model", target.model, "--dataset", name, "--split", target.split]
    if place:
        words += ["--data-dir", place]
    given = {
        "--image-size": description["image_size"],
        "--device": device,
        "--precision": None if compute.precision == "float32" else compute.precision,
        "--dtype": None if compute.dtype == "float32" else compute.dtype,
        "--weights": weights if weights in (None, RANDOM) else Path(weights).expanduser().absolute(),
        "--limit": limit,
        "--on-error": None if compute.on_error == "raise" else compute.on_error,
        "--trust-remote-code": (
            find_spec(target.model).code_place if (description.get("origin") or {}).get("remote_code") else None
        ),
    }
    words += [*dataset.settings.words(), *(str(w) for pair in given.items() if pair[1] is not None for w in pair)]
    return shlex.join(words)


def _reserve(
    dataset: Dataset,
    reuses: dict[Target, reuse.Reuse],
    compute: Compute,
    open_files: ExitStack,
) -> dict[Target, BlockWriter]:
    """Open every file of the run with all its space, or none, so that a full disk shows before any computing.

    What a shard takes from the other shards of its file replaces what was planned, in `reuses`.
    """
    writers: dict[Target, BlockWriter] = {}
    try:
        for target in reuses:
            with _other_shards_wait(target):
                writer, reuses[target] = _opened(dataset, target, reuses[target], compute)
            if writer:
                writers[target] = writer
                open_files.callback(writer.close)
    except BaseException:  # an interrupt, too
        for writer in writers.values():
            if writer.created:
                writer.discard()
        raise
    return writers


@contextmanager
def _other_shards_wait(target: Target) -> Iterator[None]:
    """Let no other shard of the file begin while inside, so that each of them sees what the first one settled."""
    if target.shard is None:
        yield
        return
    try:
        files.make_folder(target.path.parent)
        lock = acquire(whole_path(target.path), SHARD_WAIT)
    except OSError as error:
        raise files.explained(error, target.path) from error
    try:
        yield
    finally:
        lock.release()


def _opened(
    dataset: Dataset, target: Target, planned: reuse.Reuse, compute: Compute
) -> tuple[BlockWriter | None, reuse.Reuse]:
    """Open a file, and return its writer, None for a shard without rows, with what it copies."""
    existing = Existing(compute.overwrite, compute.allow_mixed, compute.wait)
    opened: Callable[..., BlockWriter | None] = partial(FeatureWriter.open, target.path)
    if target.shard:
        planned = reuse.as_other_shards(planned, target, compute, existing)
        opened = partial(target.shard.open, target.path)
    batch_size = planned.manifest["compute"]["batch_size"]
    writer = opened(
        dataset.splits[target.split].stored_rows(partial(id_salt, cache_of(target.path))),
        planned.manifest,
        dim=target.dim,
        dtype=compute.dtype,
        block_rows=-(-BLOCK_ROWS // batch_size) * batch_size,
        content=planned.content,
        existing=existing,
    )
    return writer, planned


def _job(writer: BlockWriter, planned: reuse.Reuse, target: Target, compute: Compute) -> Job:
    """Return the job that fills an opened file: as its manifest says, if an earlier run began it."""
    how = writer.resumed_manifest["compute"]
    settled = reuse.settled(planned, target, writer.resumed_manifest, compute, created=writer.created)
    if not target.shard:
        reuse.say(settled.known)
    return Job(target.model, writer, how["batch_size"], how["threads"], settled.known)


def _shared_passes(jobs: Mapping[Target, Job]) -> list[dict[Target, Job]]:
    """Return the jobs grouped by what one pass must share: split, block size, batch size, threads, rows to compute."""
    shared: dict[tuple[Any, ...], dict[Target, Job]] = defaultdict(dict)
    for target, job in jobs.items():
        known = job.known.mask.tobytes()
        shared[target.split, job.writer.block_rows, job.batch_size, job.threads, known][target] = job
    return list(shared.values())


def _one_pass(
    engine: Engine, dataset: Dataset, jobs: Mapping[Target, Job], compute: Compute, advance: progress.Advance
) -> dict[Path, Result]:
    """Run one pass with the number of threads that its files record, and give the finished files their names."""
    split = dataset.splits[next(iter(jobs)).split]
    computed = {target: missing_rows([job]) for target, job in jobs.items()}
    began = time.monotonic()
    try:
        run_pass(engine, split, list(jobs.values()), on_error=compute.on_error, advance=advance)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("Finished blocks are in the cache. Run the same command again to resume.") from None
    seconds = time.monotonic() - began
    return {target.path: _finish(dataset, target, job, computed[target], seconds) for target, job in jobs.items()}


def _finish(dataset: Dataset, target: Target, job: Job, computed: int, seconds: float) -> Result:
    """Give a complete file its final name and return what is in it."""
    path = job.writer.finish()
    counts = status_counts(path)
    rows = sum(counts.values())
    skipped = rows - counts.get("ok", 0)
    copied = int(np.count_nonzero(job.known.mask[job.writer.rows]))
    return Result(dataset.shown, target.split, target.model, path, rows, skipped, computed, seconds, copied)
