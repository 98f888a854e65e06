"""`mt predict`: probabilities for new images from what `mt fuse --save` or `mt probe --save` kept."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from mt.errors import InputError
from mt.predict.request import PredictRequest
from mt.system import files
from mt.system.device import device_options
from mt.terminal import options

if TYPE_CHECKING:
    from mt.predict.predicted import Predictions


@click.command(epilog="Example: mt predict models images/ --out predictions.csv")
@click.argument("model", type=click.Path())
@click.argument("paths", nargs=-1, type=click.Path())
@click.option("--dataset", metavar="NAME", help="Predict for a dataset instead of image files. See: mt datasets")
@click.option("--split", default="test", show_default=True, metavar="NAME", help="Which split of the dataset.")
@click.option("--out", type=click.Path(dir_okay=False), metavar="FILE", help="Write here.  [default: stdout]")
@click.option("--weights", metavar="FILE|random", help="Weights of the backbones, if they were not the published ones.")
@options.trust_remote_code
@click.option(
    "--on-error",
    type=click.Choice(["raise", "skip"]),
    default="raise",
    show_default=True,
    help="For an unreadable image: raise (stop) or skip (write an empty row with the reason).",
)
@options.data_dir
@options.cache_dir
@device_options
@options.engine
def predict(
    model: str,
    paths: tuple[str, ...],
    dataset: str | None,
    split: str,
    out: str | None,
    weights: str | None,
    trust_remote_code: tuple[str, ...],
    on_error: Literal["raise", "skip"],
    data_dir: str | None,
    cache_dir: str | None,
    device: str,
    engine: str,
) -> None:
    """Predict with a saved MODEL: a folder with one model, or the .json of one.  Writes CSV.

    One row per image: its id, one probability per class, and the prediction.  PATHS are images, or folders of images.
    Features of a --dataset come from the cache; missing ones are featurized.
    """
    request = PredictRequest(
        model,
        paths,
        dataset,
        split,
        cache_dir=cache_dir,
        data_dir=data_dir,
        weights=weights,
        device=device,
        engine=engine,
        on_error=on_error,
        trust_remote_code=trust_remote_code,
    )
    if out and not Path(out).absolute().parent.is_dir():
        folder = Path(out).absolute().parent
        raise InputError(f"No folder {folder} for --out. Make it first: mkdir -p {folder}")
    if request.dataset:
        from mt.predict.dataset import predict_dataset

        found = predict_dataset(request)
    else:
        from mt.predict.images import predict_images

        found = predict_images(request)
    if out:
        _write(found, Path(out))
    else:
        found.write_csv(sys.stdout)


def _write(found: Predictions, output: Path) -> None:
    """Write aside and rename; a pipe or a device is written to as it is."""
    ordinary = output.is_file() or not output.exists()
    with (
        files.whole(output) if ordinary else nullcontext(output) as path,
        path.open("w", encoding="utf-8", newline="") as file,
    ):
        found.write_csv(file)
