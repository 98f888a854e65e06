"""`mt featurize`: embed the images of a dataset with frozen backbones, once."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mt.datasets.setting_options import dataset_settings
from mt.system.device import device_options
from mt.system.files import megabytes
from mt.terminal import options, progress
from mt.terminal.progress import counted

if TYPE_CHECKING:
    from mt.datasets import Dataset
    from mt.datasets.registry import OnError
    from mt.datasets.settings import DatasetSettings
    from mt.featurize.plan import Result, Target


class BatchSize(click.ParamType[int | None]):
    """A number of images, or `auto`."""

    name = "N|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        return None if value in (None, "auto") else click.INT.convert(value, param, ctx)


@click.command(epilog="Example: mt featurize --model dino --model swav --dataset folder:photos --device cuda")
@options.models
@options.datasets
@click.option("--split", "splits", multiple=True, metavar="NAME", help="A split (repeatable).  [default: all]")
@dataset_settings
@options.cache_dir
@click.option(
    "--weights",
    multiple=True,
    metavar="[MODEL=]FILE|random",
    help="Weights from a file, or seeded random ones (for tests).  [default: the published ones]",
)
@click.option(
    "--embedding",
    "embeddings",
    multiple=True,
    metavar="RULE",
    help="Embedding rule (repeatable): pooled, cls, mean, cls+mean or cls4.  [default: the model's own]",
)
@click.option(
    "--views",
    metavar="NAME",
    help="Average the embeddings of views: flips, fivecrop or d4.  [default: the image alone]",
)
@options.trust_remote_code
@click.option("--image-size", type=int, metavar="PIXELS", help="Side of the network's input.  [default: its own]")
@device_options
@click.option(
    "--precision",
    default="float32",
    show_default=True,
    help="Arithmetic of the network: float32, tf32, bfloat16 or float16.",
)
@click.option("--dtype", default="float32", show_default=True, help="Stored numbers: float32 or float16.")
@click.option("--batch-size", type=BatchSize(), default="auto", show_default=True, help="Images per batch.")
@click.option("--workers", type=int, help="Threads that decode images.  [default: one per core, at most 16]")
@click.option("--limit", type=int, metavar="N", help="At most N rows per split, for a trial run.")
@click.option(
    "--on-error",
    type=click.Choice(["raise", "skip"]),
    default="raise",
    show_default=True,
    help="An unreadable image: raise (stop) or skip (keep its row, marked).",
)
@click.option("--overwrite", is_flag=True, help="Compute complete files again.")
@click.option("--rehash", is_flag=True, help="Hash every file again, even if its size and times are unchanged.")
@click.option(
    "--allow-mixed",
    is_flag=True,
    help="Resume a file that another device or other versions began; the file records it.",
)
@click.option(
    "--wait",
    type=click.FloatRange(min=0),
    default=0.0,
    metavar="SECONDS",
    help="Seconds to wait for another writer.  [default: 0]",
)
@click.option(
    "--shard",
    metavar="I/N",
    help="Compute part I of N only, for arrays of jobs; join the parts with mt cache merge.",
)
@click.option("--dry-run", is_flag=True, help="Hash the images, print what would be computed, and stop.")
@options.engine
@click.option("--ray-gpus", type=float, metavar="N", help="GPUs per Ray worker, 0.5 for half.  [default: 1 if any]")
@click.option(
    "--ray-cpus", type=int, metavar="N", help="Cores per Ray worker.  [default: as torch uses; per GPU: its share]"
)
@options.as_json
def featurize(
    models: tuple[str, ...],
    datasets: tuple[str, ...],
    splits: tuple[str, ...],
    data_dir: str | None,
    download: bool,
    settings: DatasetSettings,
    cache_dir: str | None,
    weights: tuple[str, ...],
    embeddings: tuple[str, ...],
    views: str | None,
    trust_remote_code: tuple[str, ...],
    image_size: int | None,
    device: str,
    precision: str,
    dtype: str,
    batch_size: int | None,
    workers: int | None,
    limit: int | None,
    on_error: OnError,
    overwrite: bool,
    rehash: bool,
    allow_mixed: bool,
    wait: float,
    shard: str | None,
    dry_run: bool,
    engine: str,
    ray_gpus: float | None,
    ray_cpus: int | None,
    as_json: bool,
) -> None:
    """Embed a dataset's images with frozen backbones, once.

    Several models share one pass over the images.  Complete files are skipped, and the same command resumes an
    interrupted run.
    """
    from mt.cache.content import ContentIndex
    from mt.cache.feature_file.shards import Shard
    from mt.featurize.extraction import extractions, planned
    from mt.featurize.request import Compute, FeaturizeRequest

    options.required(models, "--model", see="mt models")
    options.required(datasets, "--dataset", see="mt datasets")
    compute = Compute(
        device=device,
        precision=precision,
        dtype=dtype,
        batch_size=batch_size,
        workers=workers,
        on_error=on_error,
        overwrite=overwrite,
        allow_mixed=allow_mixed,
        wait=wait,
        engine=engine,
        ray_gpus=ray_gpus,
        ray_cpus=ray_cpus,
    )
    request = FeaturizeRequest(
        datasets,
        models,
        splits,
        data_dir=Path(data_dir) if data_dir else None,
        download=download,
        settings=settings,
        cache_dir=Path(cache_dir) if cache_dir else None,
        weights=weights,
        image_size=image_size,
        limit=limit,
        embeddings=embeddings,
        views=views,
        trust_remote_code=trust_remote_code,
        shard=Shard.parse(shard) if shard else None,
        compute=compute,
    )
    if dry_run:
        for dataset, target in planned(request, index=ContentIndex(rehash=rehash)):
            click.echo(as_plan(dataset, target, dtype, as_json=as_json))
        return
    for dataset, results in extractions(request, index=ContentIndex(rehash=rehash)):
        for warning in (*dataset.warnings, *dataset.notes.lines()):
            progress.note(f"Warning: {warning}")
        for result in results:
            click.echo(as_line(result, as_json=as_json))


def as_plan(dataset: Dataset, target: Target, dtype: str, *, as_json: bool) -> str:
    """Return one line per feature file that would be made: its rows, its size, and whether it is there."""
    rows = len(dataset.splits[target.split])
    size = rows * target.dim * (4 if dtype == "float32" else 2)
    if as_json:
        facts = {"dataset": dataset.shown, "split": target.split, "model": target.model, "path": str(target.path)}
        return json.dumps(facts | {"rows": rows, "dim": target.dim, "bytes": size, "cached": target.complete})
    part = f", shard {target.shard} of them" if target.shard else ""
    state = "in the cache" if target.complete else "to compute"
    head = f"{dataset.shown} {target.split}  {target.model}"
    return f"{head}: {counted(rows, 'row')} x {target.dim} ({megabytes(size)}){part}, {state}\n  {target.path}"


def as_line(result: Result, *, as_json: bool) -> str:
    """Return one line per feature file: rows, seconds, images per second and its path."""
    if as_json:
        facts = asdict(result) | {"path": str(result.path), "cached": result.cached}
        return json.dumps(facts | {"images_per_second": result.images_per_second})
    skipped = f", {result.skipped} skipped" if result.skipped else ""
    if result.copied and result.computed:
        skipped += f", {result.copied:,} copied"
    if result.cached:
        how = "in the cache"
    elif result.images_per_second is None:
        how = "all copied"
    else:
        how = f"{result.seconds:.1f} s, {result.images_per_second:.1f} images/s"
    head = f"{result.dataset} {result.split}  {result.model}"
    if not result.rows:
        return f"{head}: this shard has no rows"
    return f"{head}: {counted(result.rows, 'row')}{skipped}, {how}\n  {result.path}"
