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

from benchmarks import _device_decoder, unfreeze
from benchmarks._pairs import machine
from benchmarks._paper_hours import PCAM, paper_hours
from benchmarks.featurize import write_pcam
from mt import extract, fit_dvme
from mt.backbones import Backbone, load_backbone
from mt.datasets import DatasetSettings
from mt.datasets.decoding import nvjpeg
from mt.datasets.image_file import decode
from mt.errors import InputError
from mt.featurize.request import Compute, FeaturizeRequest
from mt.probe.solver.api import solve_folds
from mt.probe.solver.request import LogisticRequest
from mt.system.device import decoders, pick_device, tf32

AUTOCAST = {"bfloat16": torch.bfloat16, "float16": torch.float16}
PACKAGES = ("torch", "torchvision", "timm", "numpy", "pillow", "h5py")


@dataclass(frozen=True)
class Sizes:
    """How much of everything is measured.

    solver: rows and columns; its first `on_cpu` sizes run on the CPU too.  step: images of a training step.
    """

    models: tuple[str, ...]
    patches: int
    photographs: int
    scans: int
    side: int
    batch: int
    dvme: tuple[tuple[int, int], ...]
    solver: tuple[tuple[int, int], ...]
    on_cpu: int
    step: int


FULL = Sizes(
    ("dino", "supervised", "swav", "dinov2-vits14"),
    40_960,
    8_192,
    1_024,
    1024,
    256,
    ((126, 1280), (1_000, 1280)),
    ((2_621, 1536), (20_000, 1536), (262_144, 1536)),
    on_cpu=2,
    step=32,
)
SMALL = Sizes(
    ("timm:test_vit", "timm:test_resnet"), 64, 24, 12, 96, 8, ((60, 24),), ((200, 24), (400, 24)), on_cpu=1, step=4
)


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
        self.speeds: dict[str, float] = {}  # images per second that later stages reckon with
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

    def featurized(
        self,
        dataset: str,
        models: Sequence[str],
        precision: str,
        data_dir: Path | None = None,
        *,
        settings: DatasetSettings | None = None,
    ) -> float:
        """Return the images per second of a pass over the train split."""
        cache = self.folder / f"cache-{next(self._caches)}"
        request = FeaturizeRequest(
            [dataset],
            models,
            ["train"],
            data_dir=data_dir,
            cache_dir=cache,
            weights=["random"],
            settings=settings or DatasetSettings(),
            compute=Compute(device=str(self.device), precision=precision, batch_size=self.sizes.batch),
        )
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
                torch.inference_mode(),
                tf32(precision == "tf32"),
                torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None),
            ):
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
        for stage in (patches, photographs, device_decoder, fusion, end_to_end, solver):
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
    passes: list[float] = []
    first = bench.sizes.models[:1]
    whole = bench.seconds(lambda: passes.append(bench.featurized("pcam", first, "bfloat16", folder)))
    beside = whole - bench.sizes.patches / passes[0]  # finding, loading, warming up, sealing
    note = f"hashes known; {beside:.1f} s beside {passes[0]:.0f} images/s, which are extrapolated"
    bench.add(f"a whole PCam ({PCAM:,} images), seconds", beside + PCAM / passes[0], "< 25", note)
    bench.speeds["featurize"] = together


def photographs(bench: Bench) -> None:
    """JPEG and PNG files, against the bare forward pass and against the decoder alone on all cores."""
    model, sizes = bench.sizes.models[0], bench.sizes
    bare = bench.bare(load_backbone(model, "random", device=bench.device), "bfloat16")
    for name, side, count, suffix in (
        ("small JPEG", 224 if sizes is FULL else 32, sizes.photographs, ".jpg"),
        ("large JPEG", sizes.side, sizes.scans, ".jpg"),
        ("large PNG", sizes.side, sizes.scans, ".png"),
    ):
        folder = bench.folder / name.replace(" ", "-")
        files = write_photographs(folder, side, count, suffix)
        decoder = decoded_per_second(files)
        ours = bench.featurized(f"folder:{folder}", [model], "bfloat16")
        note = f"{ours:.0f} images/s; bare {bare:.0f}, decoder alone on all cores {decoder:.0f}"
        if name == "small JPEG":
            bench.add(f"{name}, {side} pixels, bfloat16 / bare forward pass", ours / bare, ">= 0.75, or", note)
        bench.add(f"{name}, {side} pixels, bfloat16 / decoder alone", ours / decoder, ">= 0.9", note)
        bench.speeds[name] = ours


def device_decoder(bench: Bench) -> None:
    """Large JPEG files through `--decoder device`, and how far it moves embeddings and scores."""
    try:
        nvjpeg.require(bench.device)
    except InputError as error:
        print(f"  {error}")
        return
    folder, sizes = bench.folder / "large-JPEG", bench.sizes
    settings = DatasetSettings(decoder="device")
    ours = bench.featurized(f"folder:{folder}", sizes.models[:1], "bfloat16", settings=settings)
    note = f"{ours:.0f} images/s"
    bench.add("large JPEG, --decoder device / --decoder pillow", ours / bench.speeds["large JPEG"], "-", note)
    tissue = bench.folder / "tissue"
    _device_decoder.write_tissue(tissue, min(600, 10 * sizes.photographs), 256)
    found = _device_decoder.moved(tissue, sizes.models[0], str(bench.device), bench.folder / "moved")
    note = f"distance to Pillow's embeddings; largest {found.largest:.4f}"
    bench.add("--decoder device: embeddings move by, median", found.median, "reported", note)
    note = f"{found.by_pillow:.4f} by Pillow, {found.by_device:.4f} by the device"
    bench.add("--decoder device: probe score at 10 % moves by", found.by_device - found.by_pillow, "reported", note)


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
    """A training step of both kinds of network, and of adapters, against the bare pass under the same autocast."""
    batch = bench.sizes.step
    images = batch * unfreeze.STEPS
    transformer, convolutional = bench.sizes.models[:2]
    for backbone, lora in ((transformer, 8), (transformer, None), (convolutional, None)):
        if bench.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(bench.device)
        bare, ours = unfreeze.times(
            "right-angles", backbone=backbone, device=str(bench.device), precision="bfloat16", batch=batch, lora=lora
        )
        note = f"{images / ours:.0f} of {images / bare:.0f} images/s, batch {batch}"
        if bench.device.type == "cuda":
            note += f", at most {torch.cuda.max_memory_allocated(bench.device) / 2**30:.1f} GiB"
        name = f"{backbone}, adapters of rank {lora}" if lora else backbone
        bench.add(f"end-to-end step, {name} / bare AMP step", bare / ours, ">= 0.9", note)
    hours, parts = paper_hours(featurize=bench.speeds["featurize"], train=images / ours)
    bench.add("the paper's study, hours, from these rates", hours, "reported", parts)


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
    files: list[Path] = []
    for number in range(count + 4):
        split = "train" if number < count else "test"
        path = folder / split / ("cat", "dog")[number % 2] / f"{number:05}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if number < 16 or split == "test":
            coarse = Image.fromarray(rng.integers(0, 255, (max(2, side // 32),) * 2 + (3,), dtype=np.uint8))
            smooth = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), dtype=float)
            noisy = np.clip(smooth + rng.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(path, None, **({"quality": 90} if suffix == ".jpg" else {}))
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
