"""Every stage on a GPU against what the card could do at best: `python -m benchmarks.gpu`, under five minutes.

It writes data of its own, prints card, cores, versions and each ratio as it is measured, and ends with a table for
`docs/benchmarks.md`.  The bare forward pass is eager, channels-last, under the same autocast, on one batch that lies on
the device.  `--small` runs the same code at a small size, also on the CPU: its ratios say nothing, it shows that
everything runs.
"""

from __future__ import annotations

import argparse
import itertools
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks import unfreeze
from benchmarks._pairs import machine
from benchmarks.featurize import write_pcam
from mt import extract, fit_dvme
from mt.backbones import Backbone, load_backbone
from mt.datasets.images import decode
from mt.featurize.request import Compute, FeaturizeRequest
from mt.probe.solver.api import solve_folds
from mt.probe.solver.request import LogisticRequest
from mt.system.device import decoders, pick_device, tf32

AUTOCAST = {"bfloat16": torch.bfloat16, "float16": torch.float16}
PACKAGES = ("torch", "torchvision", "timm", "numpy", "pillow", "h5py")


@dataclass(frozen=True)
class Sizes:
    """How much of everything is measured.  solver: rows and columns; its first `on_cpu` sizes run on the CPU too."""

    models: tuple[str, ...]
    patches: int
    photographs: int
    scans: int
    side: int
    batch: int
    dvme: tuple[tuple[int, int], ...]
    solver: tuple[tuple[int, int], ...]
    on_cpu: int


FULL = Sizes(
    ("dino", "supervised", "swav", "dinov2-vits14"), 40_960, 8_192, 1_024, 1024, 256, ((126, 1280), (1_000, 1280)),
    ((2_621, 1536), (20_000, 1536), (262_144, 1536)), on_cpu=2,
)  # fmt: skip
SMALL = Sizes(
    ("timm:test_vit", "timm:test_resnet"), 64, 24, 12, 96, 8, ((60, 24),), ((200, 24), (400, 24)), on_cpu=1
)  # fmt: skip


@dataclass(frozen=True)
class Line:
    """One measured ratio: ours to the best possible, and what it must reach."""

    what: str
    ratio: float
    reach: str
    note: str

    def __str__(self) -> str:
        return f"| {self.what} | {self.ratio:.2f} | {self.reach} | {self.note} |"


class Bench:
    """The device, the sizes and a folder of data; collects lines."""

    def __init__(self, device: torch.device, sizes: Sizes, folder: Path) -> None:
        self.device, self.sizes, self.folder = device, sizes, folder
        self.lines: list[Line] = []
        self._caches = itertools.count()

    def add(self, what: str, ratio: float, reach: str, note: str = "") -> None:
        self.lines.append(Line(what, ratio, reach, note))
        print(f"  {what:<58} {ratio:8.2f}   must reach {reach:<8} {note}", flush=True)

    def seconds(self, work: Callable[[], object]) -> float:
        """Return how long a call takes until the device is done."""
        self.wait()
        began = time.perf_counter()
        work()
        self.wait()
        return time.perf_counter() - began

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def featurized(self, dataset: str, models: Sequence[str], precision: str, data_dir: Path | None = None) -> float:
        """Return the images per second of a pass over the train split."""
        cache = self.folder / f"cache-{next(self._caches)}"
        request = FeaturizeRequest(
            [dataset], models, ["train"], data_dir=data_dir, cache_dir=cache, weights=["random"],
            compute=Compute(device=str(self.device), precision=precision, batch_size=self.sizes.batch),
        )  # fmt: skip
        speeds = [result.images_per_second or 0.0 for result in extract(request)]
        shutil.rmtree(cache)
        return min(speeds)

    def bare(self, backbone: Backbone, precision: str) -> float:
        """Return the images per second of the forward pass alone, on a batch that lies on the device."""
        side = backbone.preprocess.crop
        images = torch.randn(self.sizes.batch, 3, side, side, device=self.device)
        images = images.to(memory_format=torch.channels_last)
        network = backbone.model.to(self.device)
        passes = max(2, min(40, self.sizes.patches // self.sizes.batch))
        dtype = AUTOCAST.get(precision)

        def run(count: int) -> None:
            with (
                torch.inference_mode(), tf32(precision == "tf32"),
                torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None),
            ):  # fmt: skip
                for _ in range(count):
                    network(images)

        run(2)
        return passes * self.sizes.batch / self.seconds(lambda: run(passes))


def main(arguments: Sequence[str] | None = None) -> None:
    """Print every ratio, then the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="a small size, to see that everything runs")
    parser.add_argument("--device", default="auto")
    given = parser.parse_args(arguments)
    device, began = pick_device(given.device), time.perf_counter()
    print(f"  {card(device)}; {machine()}; {', '.join(f'{name} {version(name)}' for name in PACKAGES)}")
    with tempfile.TemporaryDirectory() as name, own_home(Path(name)):
        bench = Bench(device, SMALL if given.small else FULL, Path(name))
        for stage in (patches, photographs, fusion, end_to_end, solver):
            stage(bench)
    print(f"\n{card(device)}, {len(os.sched_getaffinity(0))} cores, {time.perf_counter() - began:.0f} s in all\n")
    print("| what | measured | must reach | |\n|---|---|---|---|")
    print("\n".join(map(str, bench.lines)))


def card(device: torch.device) -> str:
    """Return the device's name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} ({platform.machine()})"


@contextmanager
def own_home(folder: Path) -> Iterator[None]:
    """Keep hashes and weights of a run apart from the user's."""
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(folder / "user")
    try:
        yield
    finally:
        os.environ.pop("XDG_CACHE_HOME")
        if before is not None:
            os.environ["XDG_CACHE_HOME"] = before


def patches(bench: Bench) -> None:
    """PCam's HDF5 through each network in each precision, and through all of them in one pass."""
    folder = bench.folder / "pcam"
    write_pcam(folder, bench.sizes.patches)
    alone: dict[str, float] = {}
    for number, model in enumerate(bench.sizes.models):
        backbone = load_backbone(model, "random", device=bench.device)
        for precision in ("float32", "tf32", "bfloat16") if number < 2 else ("bfloat16",):
            bare = bench.bare(backbone, precision)
            alone[model] = bare
            if number < 2:
                ours = bench.featurized("pcam", [model], precision, folder)
                reach = ">= 0.90" if precision == "bfloat16" else ">= 0.95"
                note = f"{ours:.0f} of {bare:.0f} images/s"
                bench.add(f"PCam, {model}, {precision} / bare forward pass", ours / bare, reach, note)
    together = bench.featurized("pcam", bench.sizes.models, "bfloat16", folder)
    in_a_row = 1 / sum(1 / speed for speed in alone.values())
    bench.add(f"PCam, {len(alone)} backbones in one pass / in a row", together / in_a_row, ">= 0.90")
    first = bench.featurized("pcam", bench.sizes.models[:1], "bfloat16", folder)
    bench.add("a whole PCam (327,680 images), seconds", 327_680 / first, "< 25", "content hashes known")


def photographs(bench: Bench) -> None:
    """JPEG and PNG files, against the bare forward pass and against the decoder alone on all cores."""
    model, sizes = bench.sizes.models[0], bench.sizes
    bare = bench.bare(load_backbone(model, "random", device=bench.device), "bfloat16")
    for name, side, count, suffix, reach in (
        ("small JPEG", 224 if sizes is FULL else 32, sizes.photographs, ".jpg", ">= 0.75 of bare, or 0.9 of decoder"),
        ("large JPEG", sizes.side, sizes.scans, ".jpg", ">= 0.9 of decoder"),
        ("large PNG", sizes.side, sizes.scans, ".png", ">= 0.9 of decoder"),
    ):
        folder = bench.folder / name.replace(" ", "-")
        files = write_photographs(folder, side, count, suffix)
        decoder = decoded_per_second(files)
        ours = bench.featurized(f"folder:{folder}", [model], "bfloat16")
        note = f"{ours:.0f} images/s; bare {bare:.0f}, decoder alone {decoder:.0f}"
        bench.add(f"{name}, {side} pixels, {model} / the lesser of both", ours / min(bare, decoder), reach, note)


def fusion(bench: Bench) -> None:
    """A fit of DVME on three models' features, on this device and on the CPU."""
    for rows, dim in bench.sizes.dvme:
        rng = np.random.default_rng(0)
        y = rng.integers(0, 3, rows)
        X = [(rng.normal(size=(3, dim))[y] + 3 * rng.normal(size=(rows, dim))).astype(np.float32) for _ in range(3)]
        fit = partial(fit_dvme, X, y, task="multiclass", n_classes=3)
        here, cpu = partial(fit, device=str(bench.device)), partial(fit, device="cpu")
        here()
        times = bench.seconds(here), bench.seconds(cpu)
        note = f"{times[0]:.2f} s, CPU {times[1]:.2f} s"
        bench.add(f"DVME, {rows} rows, 3 x {dim}: CPU / device", times[1] / times[0], "-", note)


def end_to_end(bench: Bench) -> None:
    """A training step against the bare forward and backward pass under the same autocast."""
    backbone = bench.sizes.models[1]
    bare, ours = unfreeze.times("right-angles", backbone=backbone, device=str(bench.device), precision="bfloat16")
    images = unfreeze.BATCH * unfreeze.STEPS
    bench.add(f"end-to-end step, {backbone} / bare AMP step", bare / ours, ">= 0.9", f"{images / ours:.0f} images/s")


def solver(bench: Bench) -> None:
    """13 values of C in five folds, on this device and, at the first sizes, on the CPU."""
    rng = np.random.default_rng(0)
    for number, (rows, dim) in enumerate(bench.sizes.solver):
        X = rng.normal(size=(rows, dim)).astype(np.float32)
        y = (X[:, :8].sum(axis=1) + 3 * rng.normal(size=rows) > 0).astype(np.int64)
        many = (X[:, :14] + 2 * rng.normal(size=(rows, 14)) > 1).astype(np.int64)
        fold = rng.integers(0, 5, rows)
        for task, labels in (("binary", y), ("multilabel", many)) if number < 2 else (("binary", y),):
            folds = [
                LogisticRequest(X, labels, np.logspace(-3, 3, 13), task=task, device=where)
                for where in (str(bench.device), "cpu")
            ]
            here = bench.seconds(partial(solve_folds, folds[:1], [fold]))
            if number >= bench.sizes.on_cpu:
                bench.add(f"solver, {rows} x {dim}, {task}, seconds", here, "-")
                continue
            cpu = bench.seconds(partial(solve_folds, folds[1:], [fold]))
            note = f"{here:.2f} s, CPU {cpu:.2f} s"
            bench.add(f"solver, {rows} x {dim}, {task}: CPU / device", cpu / here, "-", note)


def write_photographs(folder: Path, side: int, count: int, suffix: str) -> list[Path]:
    """Write smooth pictures with some noise in two classes; few contents, each under many names."""
    rng = np.random.default_rng(0)
    files = []
    for number in range(count + 4):
        split = "train" if number < count else "test"
        path = folder / split / ("cat", "dog")[number % 2] / f"{number:05}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if number < 16 or split == "test":
            coarse = Image.fromarray(rng.integers(0, 255, (max(2, side // 32),) * 2 + (3,), dtype=np.uint8))
            smooth = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), dtype=float)
            noisy = np.clip(smooth + rng.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(path, **({"quality": 90} if suffix == ".jpg" else {}))
        else:
            path.write_bytes(files[number % 16].read_bytes())
        if split == "train":
            files.append(path)
    return files


def decoded_per_second(files: Sequence[Path]) -> float:
    """Return the pictures per second that all cores decode and do nothing else with."""
    with ThreadPoolExecutor(decoders()) as pool:
        began = time.perf_counter()
        list(pool.map(decode, files))
        return len(files) / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
