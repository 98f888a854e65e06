"""`mt demo`: the main job on real input, with nothing to download."""

from __future__ import annotations

import time
from pathlib import Path

import click

from mt import options, progress

MODELS = ("efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2")
DATASETS = ("digits", "synthetic")
FRACTIONS = (0.01, 0.1, 1.0)
IMAGE_SIZE = 96


@click.command(epilog="Example: mt demo --cache-dir ./features")
@options.cache_dir
def demo(cache_dir: str | None) -> None:
    """Featurize and probe real images, with nothing to download.

    scikit-learn's 1,797 scanned digits and generated tissue patches go through three EfficientNets with ImageNet
    weights from the package index; linear probes on 1 %, 10 % and 100 % of the labels show what few labels buy.
    """
    from mt.featurize.cli import as_line
    from mt.featurize.extraction import extract
    from mt.probe.cli import print_scores

    began = time.monotonic()
    cache = Path(cache_dir) if cache_dir else None
    for dataset in DATASETS:
        progress.note(f"mt featurize {_flags()} --dataset {dataset} --image-size {IMAGE_SIZE}")
        for result in extract(dataset, MODELS, cache_dir=cache, image_size=IMAGE_SIZE):
            click.echo(as_line(result, as_json=False))
    progress.note(f"mt probe {' '.join(f'--fraction {fraction:g}' for fraction in FRACTIONS)}")
    print_scores(cache_dir=cache, datasets=DATASETS, models=MODELS, fractions=FRACTIONS)
    progress.note(f"Done in {time.monotonic() - began:.0f} s.")


def _flags() -> str:
    return " ".join(f"--model {model}" for model in MODELS)
