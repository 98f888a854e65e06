"""End-to-end `extract` of a ResNet-50 against the bare forward pass, and against a plain PyTorch loop.

The whole call counts: listing the dataset, hashing it, loading the network, decoding, computing, writing, renaming.
The bare forward pass is the fastest of eager and channels-last in inference mode on one batch that lies in memory.
`python -m benchmarks.featurize --against FOLDER` compares this code with that of another checkout instead.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import h5py
import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import datasets, models, transforms

from benchmarks import _against
from benchmarks._pairs import machine, paired, row, seconds
from mt import extract
from mt.featurize.request import Compute, FeaturizeRequest

IMAGES = 640
BATCH = 32
ROUNDS = 3
OFFICIAL = transforms.Compose(
    [
        transforms.Resize(256),
        transforms.CenterCrop(224),
        transforms.ToTensor(),
        transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ]
)


def main(arguments: Sequence[str] = ()) -> None:
    """Print the ratios for JPEG files and for a file in PCam's layout."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", type=Path, metavar="FOLDER", help="another checkout, compared with this one")
    parser.add_argument("--images", type=int, default=IMAGES, help="images of a run with --against")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="pairs of runs with --against")
    given = parser.parse_args(arguments)
    if given.against is not None:
        against(given.against.absolute(), given.images, given.rounds)
        return
    print(f"  {machine()}; {torch.get_num_threads()} threads, float32, batch {BATCH}, {IMAGES} images")
    bare = fastest_forward(models.resnet50().eval())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_jpegs(folder / "photos")
        write_pcam(folder / "pcam")
        photos = itertools.count()
        compare(
            "224x224 JPEG",
            bare,
            lambda: ours(f"folder:{folder / 'photos'}", None, folder / f"cache{next(photos)}", split="train"),
            lambda: plain_loop(datasets.ImageFolder(folder / "photos" / "train", OFFICIAL), folder / "out.pt"),
        )
        compare(
            "96x96 in PCam's HDF5",
            bare,
            lambda: ours("pcam", folder / "pcam", folder / f"cache{next(photos)}", split="train"),
            lambda: plain_loop(pcam(folder), folder / "out.pt"),
        )


def against(other: Path, images: int, rounds: int) -> None:
    """Print the ratios to another checkout's code: small files, large files, PCam, and two backbones in one pass."""
    print(f"  {machine()}; batch {BATCH}, {images} images, {rounds} pairs of runs in turn")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_jpegs(folder / "photos", images)
        write_jpegs(folder / "large", images // 2, side=1024)
        write_pcam(folder / "pcam", images)
        photos, large = (("--dataset", f"folder:{folder / place}") for place in ("photos", "large"))
        patches = ("--dataset", "pcam", "--data-dir", str(folder / "pcam"))
        rest = ("--split", "train", "--weights", "random", "--batch-size", str(BATCH))
        light, heavy = ("--model", "efficientnet-lite0", *rest), ("--model", "supervised", *rest)
        for what, words in (
            ("224x224 JPEG", (*photos, *heavy)),
            ("224x224 JPEG, a light network", (*photos, *light)),
            ("1024x1024 JPEG, a light network", (*large, *light)),
            ("PCam's HDF5", (*patches, *heavy)),
            ("PCam's HDF5, two backbones", (*patches, "--model", "efficientnet-lite0", *heavy)),
            ("224x224 JPEG, bfloat16", (*photos, *heavy, "--precision", "bfloat16")),
        ):
            _against.compare(what, words, other, folder, rounds=rounds)


def compare(what: str, bare: Callable[[], None], ours: Callable[[], None], loop: Callable[[], None]) -> None:
    """Print ours against the bare forward pass and against the plain loop."""
    _, _, ratio = paired(ours, bare, rounds=ROUNDS)
    row(f"{what}: extract / bare forward pass (throughput)", ratio, reach=">= 0.93")
    _, _, ratio = paired(ours, loop, rounds=ROUNDS)
    row(f"{what}: extract / plain loop (throughput)", ratio, reach=">= 1.2")


def ours(dataset: str, data_dir: Path | None, cache: Path, *, split: str) -> None:
    """Featurize one split with the project."""
    extract(
        FeaturizeRequest(
            [dataset],
            ["supervised"],
            [split],
            data_dir=data_dir,
            cache_dir=cache,
            weights=["random"],
            compute=Compute(device="cpu", batch_size=BATCH),
        )
    )
    shutil.rmtree(cache)


def fastest_forward(network: torch.nn.Module) -> Callable[[], None]:
    """Return a function that runs the forward pass on the same number of images, in the faster memory format."""

    def run(memory_format: torch.memory_format) -> Callable[[], None]:
        images = torch.randn(BATCH, 3, 224, 224).to(memory_format=memory_format)

        def forward() -> None:
            network.to(memory_format=memory_format)
            with torch.inference_mode():
                for _ in range(IMAGES // BATCH):
                    network(images)

        return forward

    candidates = {f: run(f) for f in (torch.contiguous_format, torch.channels_last)}
    times = {f: min(seconds(forward) for _ in range(2)) for f, forward in candidates.items()}
    best = min(times, key=times.__getitem__)
    print("  bare forward pass: " + ", ".join(f"{f} {IMAGES / s:.1f} images/s" for f, s in times.items()))
    return candidates[best]


def plain_loop(dataset: object, out: Path) -> None:
    """Do what a script does: a DataLoader with two workers, an eager forward pass, `torch.save` at the end."""
    network = models.resnet50().eval()
    network.fc = torch.nn.Identity()
    features = []
    with torch.no_grad():
        for images, _ in DataLoader(dataset, batch_size=BATCH, num_workers=2):  # type: ignore[arg-type]
            features.append(network(images))
    torch.save(torch.cat(features), out)


def pcam(folder: Path) -> datasets.PCAM:
    """Return torchvision's reader of the same file, where it expects it."""
    return datasets.PCAM(str(folder), split="train", transform=OFFICIAL)


def write_jpegs(folder: Path, images: int = IMAGES, side: int = 224) -> None:
    """Write smooth colour images as square JPEG, in two classes of two splits."""
    rng = np.random.default_rng(0)
    for split, count in (("train", images), ("test", 8)):
        for number in range(count):
            path = folder / split / ("cat", "dog")[number % 2] / f"{number:04}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            coarse = Image.fromarray(rng.integers(0, 255, (28, 28, 3), dtype=np.uint8))
            coarse.resize((side, side), Image.Resampling.BICUBIC).save(path, quality=90)


def write_pcam(folder: Path, count: int = IMAGES) -> None:
    """Write PCam's files: `count` patches to train on, contiguous; tiny valid and test splits."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split, rows in (("train", count), ("valid", 8), ("test", 8)):
        stem = folder / f"camelyonpatch_level_2_split_{split}"
        with h5py.File(f"{stem}_x.h5", "w") as file:
            file["x"] = rng.integers(0, 255, (rows, 96, 96, 3), dtype=np.uint8)
        with h5py.File(f"{stem}_y.h5", "w") as file:
            file["y"] = (np.arange(rows) % 2).astype(np.uint8).reshape(-1, 1, 1, 1)


if __name__ == "__main__":
    main(sys.argv[1:])
