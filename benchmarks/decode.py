"""Decoding JPEG and PNG files, one core: the bare decoder against `mt`'s, and with resizing and cropping."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks._pairs import machine, paired, row, seconds
from mt.backbones.preprocess import Preprocess
from mt.datasets.image_file import decode
from mt.datasets.readers.synthetic import Patches

# Side in pixels -> how many files.
SIDES = {224: 200, 1024: 20}
ROUNDS = 7


def main() -> None:
    """Print images per second and the ratio for each size and format."""
    print(f"  {machine()}; one thread, files in the page cache")
    geometry = Preprocess(resize=256, crop=224).geometry
    for side, count in SIDES.items():
        for kind in ("jpg", "png"):
            with tempfile.TemporaryDirectory() as folder:
                files = write(Path(folder), side, count, kind)
                mine, other, ratio = paired(lambda: read(files), lambda: bare(files), rounds=ROUNDS)  # noqa: B023
                whole = seconds(lambda: [geometry(decode(file)) for file in files])  # noqa: B023
            rates = f"{count / mine:,.0f} against {count / other:,.0f} images/s, {count / whole:,.0f} resized, cropped"
            row(f"{kind} {side}x{side} / Pillow (rate)", ratio, reach=">= 0.9", note=rates)


def write(folder: Path, side: int, count: int, kind: str) -> list[Path]:
    """Write tissue-like images of a size."""
    files = []
    for number, patch in enumerate(Patches(seed=0, split=0, count=count).load(0, count)):
        image = Image.fromarray(np.asarray(patch)).resize((side, side), Image.Resampling.BICUBIC)
        files.append(folder / f"{number}.{kind}")
        image.save(files[-1])
    return files


def read(files: list[Path]) -> None:
    for file in files:
        decode(file)


def bare(files: list[Path]) -> None:
    for file in files:
        with Image.open(file) as image:
            image.load()


if __name__ == "__main__":
    main()
