"""The extraction loop: right numbers, one pass, resumed to the same bytes, nothing computed twice."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mt import extract, load_backbone, load_dataset, open_features
from mt.cache.status import Status
from mt.cli import group
from mt.errors import CacheError, DatasetError, InputError, MtError
from mt.featurize import run as run_module
from mt.featurize.datasets import Dataset
from mt.featurize.embed import Embedder
from mt.featurize.plan import Compute, Result, weights_by_model
from tests.featurize.conftest import OTHER, TINY

CPU = Compute(device="cpu", batch_size=4)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use blocks of 8 rows, so that a small split has many."""
    monkeypatch.setattr(run_module, "BLOCK_ROWS", 8)


def featurize(
    dataset: Dataset | str, cache: Path, models: Sequence[str] = (TINY,), compute: Compute = CPU, **options: Any
) -> list[Result]:
    """Extract with random weights at 32 pixels."""
    if isinstance(dataset, Path):
        dataset = f"folder:{dataset}"
    return extract(dataset, models, cache_dir=cache, weights=["random"], image_size=32, compute=compute, **options)


class Counting:
    """An image source that counts how often each row is read, and can break at one."""

    def __init__(self, source: Any, *, interrupt_at: int | None = None) -> None:
        self.source, self.interrupt_at = source, interrupt_at
        self.read: list[int] = []

    def __len__(self) -> int:
        return len(self.source)

    def content(self, index: Any) -> Any:
        return self.source.content(index)

    def load(self, start: int, stop: int) -> list[Any]:
        self.read += range(start, stop)
        if self.interrupt_at is not None and start <= self.interrupt_at < stop:
            raise KeyboardInterrupt
        return self.source.load(start, stop)


def counted(photos: Path, **options: Any) -> tuple[Dataset, Counting]:
    """Return the folder's dataset with a counting source on its training split."""
    dataset = load_dataset(f"folder:{photos}")
    train = dataset.splits["train"]
    source = Counting(train.images, **options)
    return replace(dataset, splits={**dataset.splits, "train": replace(train, images=source)}), source


def test_embeddings_are_those_of_a_plain_loop(photos: Path, tmp_path: Path) -> None:
    results = featurize(photos, tmp_path / "cache")
    backbone = load_backbone(TINY, "random", image_size=32)
    for result in results:
        split = load_dataset(f"folder:{photos}").splits[result.split]
        features = open_features(result.path, verify=True)
        with torch.inference_mode():
            images = split.images.load(0, len(split))
            plain = [backbone.model(backbone.preprocess(image)[None])[0].numpy() for image in images]
        np.testing.assert_allclose(features.embeddings, np.stack(plain), atol=1e-5)
        assert list(features.ids) == split.ids
        np.testing.assert_array_equal(features.labels, split.labels)
        assert (result.rows, result.skipped, result.computed) == (len(split), 0, len(split))


def test_several_models_share_one_pass(photos: Path, tmp_path: Path) -> None:
    dataset, source = counted(photos)
    results = featurize(dataset, tmp_path / "cache", [TINY, OTHER])
    assert sorted(source.read) == list(range(50))
    assert {(r.split, r.model) for r in results} == {(s, m) for s in ("train", "test") for m in (TINY, OTHER)}
    alone = featurize(photos, tmp_path / "alone", [OTHER])
    for result in alone:
        (same,) = (r for r in results if (r.split, r.model) == (result.split, OTHER))
        assert same.path.read_bytes() == result.path.read_bytes()


def test_a_complete_cache_reads_no_image(photos: Path, tmp_path: Path) -> None:
    first = featurize(photos, tmp_path / "cache")
    dataset, source = counted(photos)
    again = featurize(dataset, tmp_path / "cache")
    assert source.read == []
    assert all(result.cached for result in again)
    assert [r.path for r in again] == [r.path for r in first]


def test_a_complete_cache_imports_no_torch(photos: Path, tmp_path: Path) -> None:
    featurize(photos, tmp_path / "cache")
    code = f"""
import sys, builtins, io
from PIL import Image
def refuse(*a, **k): raise AssertionError('an image was opened')
Image.open = refuse
from mt.cli import main
try:
    main(['featurize', '--model', '{TINY}', '--dataset', 'folder:{photos}', '--weights', 'random',
          '--image-size', '32', '--cache-dir', '{tmp_path / "cache"}'])
except SystemExit as end:
    assert end.code == 0, end.code
assert not {{'torch', 'timm', 'sklearn'}} & set(sys.modules), sorted(sys.modules)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("in the cache") == 2


@pytest.mark.parametrize("at", [0, 9, 33, 49])
def test_an_interrupted_run_resumes_to_the_same_bytes(at: int, photos: Path, tmp_path: Path) -> None:
    whole = featurize(photos, tmp_path / "whole", splits=["train"])[0]
    dataset, _ = counted(photos, interrupt_at=at)
    with pytest.raises(KeyboardInterrupt, match="Run the same command again"):
        featurize(dataset, tmp_path / "cut", splits=["train"])
    assert not list((tmp_path / "cut").rglob("*.h5"))
    dataset, source = counted(photos)
    resumed = featurize(dataset, tmp_path / "cut", splits=["train"])[0]
    assert resumed.path.read_bytes() == whole.path.read_bytes()
    # Whole blocks of eight before the interruption were kept, but for those still being gathered.
    assert len(source.read) < 50 if at >= 33 else len(source.read) <= 50


def test_a_resume_uses_the_recorded_batch_size(photos: Path, tmp_path: Path) -> None:
    whole = featurize(photos, tmp_path / "whole", splits=["train"])[0]
    dataset, _ = counted(photos, interrupt_at=40)
    with pytest.raises(KeyboardInterrupt):
        featurize(dataset, tmp_path / "cut", splits=["train"])
    other = replace(CPU, batch_size=16)
    resumed = featurize(photos, tmp_path / "cut", splits=["train"], compute=other)[0]
    assert resumed.path.read_bytes() == whole.path.read_bytes()


def test_an_unfinished_file_names_the_command_that_finishes_it(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    dataset, _ = counted(photos, interrupt_at=40)
    with pytest.raises(KeyboardInterrupt):
        featurize(dataset, cache, splits=["train"], limit=45)
    (partial,) = cache.rglob("*.partial")
    with pytest.raises(CacheError) as found:
        open_features(partial.with_suffix(".h5"))
    command = str(found.value).partition("Finish it with: ")[2]
    monkeypatch.setenv("MT_CACHE_DIR", str(cache))
    ran = CliRunner().invoke(group, shlex.split(command)[1:], catch_exceptions=False)
    assert ran.exit_code == 0
    assert open_features(partial.with_suffix(".h5")).n_rows == 45


def test_skipping_covers_images_that_are_absent(photos: Path, tmp_path: Path) -> None:
    lines = [f"train/{name}/{n:03}.png,{name}" for n in range(8) for name in [("benign", "tumour")[n % 2]]]
    (photos / "list.csv").write_text("\n".join(["image,label,split", *(f"{x},train" for x in lines)]) + "\n")
    (photos / "train" / "tumour" / "003.png").unlink()
    table = f"table:{photos / 'list.csv'}"
    with pytest.raises(DatasetError, match=r"003\.png"):
        featurize(table, tmp_path / "cache")
    results = featurize(table, tmp_path / "cache", compute=replace(CPU, on_error="skip"))
    assert (sum(r.rows for r in results), sum(r.skipped for r in results)) == (8, 1)


def test_resuming_with_other_versions_is_refused(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, _ = counted(photos, interrupt_at=40)
    with pytest.raises(KeyboardInterrupt):
        featurize(dataset, tmp_path / "cache", splits=["train"])
    monkeypatch.setattr("mt.featurize.embed.metadata.version", lambda package: "0.0.1")
    with pytest.raises(CacheError, match=r"versions.*--allow-mixed"):
        featurize(photos, tmp_path / "cache", splits=["train"])
    mixed = replace(CPU, allow_mixed=True)
    assert featurize(photos, tmp_path / "cache", splits=["train"], compute=mixed)[0].rows == 50


def test_an_unreadable_image_stops_the_run_and_loses_nothing(photos: Path, tmp_path: Path) -> None:
    bad = photos / "train" / "tumour" / "049.png"
    good = bad.read_bytes()
    bad.write_bytes(good[:200])
    with pytest.raises(DatasetError, match=r"049\.png.*--on-error skip"):
        featurize(photos, tmp_path / "cache", splits=["train"])
    assert list((tmp_path / "cache").rglob("*.partial"))


def test_a_skipped_image_keeps_its_place_and_no_reader_returns_it(photos: Path, tmp_path: Path) -> None:
    bad = photos / "train" / "tumour" / "007.png"
    bad.write_bytes(b"")
    skip = replace(CPU, on_error="skip")
    result = featurize(photos, tmp_path / "cache", splits=["train"], compute=skip)[0]
    assert (result.rows, result.skipped) == (50, 1)
    features = open_features(result.path)
    assert len(features.embeddings) == len(features.ids) == len(features.labels) == 49
    ((name, status),) = features.skipped()
    assert "007" in name
    assert status is Status.EMPTY
    assert not any("007" in id_ for id_ in features.ids)
    again = featurize(photos, tmp_path / "cache", splits=["train"], compute=skip)[0]
    assert again.cached
    assert again.skipped == 1


class Greedy(torch.nn.Module):
    """A network that needs more memory than there is for more than `most` images."""

    def __init__(self, network: torch.nn.Module, most: int) -> None:
        super().__init__()
        self.network, self.most = network, most

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if len(images) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.network(images)


def test_out_of_memory_halves_the_batch_and_goes_on() -> None:
    backbone = load_backbone(TINY, "random", image_size=32)
    pixels = np.random.default_rng(0).integers(0, 255, (10, 32, 32, 3), dtype=np.uint8)
    device = torch.device("cpu")
    plain = Embedder(backbone, device, precision="float32", batch_size=10)(pixels)
    backbone = replace(backbone, model=Greedy(backbone.model, most=3))
    embedder = Embedder(backbone, device, precision="float32", batch_size=10)
    torch.testing.assert_close(embedder(pixels), plain, atol=1e-5, rtol=0)
    assert embedder.chunk == 3


def test_out_of_memory_for_one_image_says_what_to_do() -> None:
    backbone = load_backbone(TINY, "random", image_size=32)
    backbone = replace(backbone, model=Greedy(backbone.model, most=0))
    embedder = Embedder(backbone, torch.device("cpu"), precision="float32", batch_size=2)
    with pytest.raises(Exception, match="--image-size, --precision bfloat16, or --device cpu"):
        embedder(np.zeros((2, 32, 32, 3), np.uint8))


def test_embeddings_that_are_not_finite_are_refused_by_id(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = Embedder.__call__

    def broken(self: Embedder, pixels: np.ndarray) -> torch.Tensor:
        embeddings = honest(self, pixels).clone()
        embeddings[1, 5] = float("nan")
        return embeddings

    monkeypatch.setattr(Embedder, "__call__", broken)
    first_ids = load_dataset(f"folder:{photos}").splits["train"].ids
    with pytest.raises(MtError, match=first_ids[1].replace(".", r"\.")):
        featurize(photos, tmp_path / "cache", splits=["train"])
    assert not list((tmp_path / "cache").rglob("*.h5"))


def test_a_limit_makes_another_file(photos: Path, tmp_path: Path) -> None:
    limited = featurize(photos, tmp_path / "cache", splits=["train"], limit=10)[0]
    whole = featurize(photos, tmp_path / "cache", splits=["train"])[0]
    assert (limited.rows, whole.rows) == (10, 50)
    assert limited.path != whole.path
    assert set(open_features(limited.path).labels) == {0, 1}


def test_overwrite_computes_again_to_the_same_bytes(photos: Path, tmp_path: Path) -> None:
    first = featurize(photos, tmp_path / "cache", splits=["train"])[0]
    before, inode = first.path.read_bytes(), first.path.stat().st_ino
    second = featurize(photos, tmp_path / "cache", splits=["train"], compute=replace(CPU, overwrite=True))[0]
    assert second.computed == 50
    assert second.path.read_bytes() == before
    assert second.path.stat().st_ino != inode


def test_changed_content_is_another_file(photos: Path, tmp_path: Path) -> None:
    first = featurize(photos, tmp_path / "cache", splits=["train"])[0]
    images = sorted(photos.rglob("train/*/*.png"))
    images[0].write_bytes(images[1].read_bytes())
    second = featurize(photos, tmp_path / "cache", splits=["train"])[0]
    assert second.path != first.path
    assert second.computed == 50


def test_float16_and_bfloat16_are_kept_apart(photos: Path, tmp_path: Path) -> None:
    half = featurize(photos, tmp_path / "half", splits=["train"], compute=replace(CPU, dtype="float16"))[0]
    assert open_features(half.path).embeddings.dtype == np.float16
    full = featurize(photos, tmp_path / "cache", splits=["train"])[0]
    brain = featurize(photos, tmp_path / "cache", splits=["train"], compute=replace(CPU, precision="bfloat16"))[0]
    assert brain.path != full.path
    difference = open_features(brain.path).embeddings - open_features(full.path).embeddings
    assert 0 < np.abs(difference).max() < 0.2


def test_a_failed_reservation_leaves_no_file(photos: Path, tmp_path: Path) -> None:
    code = f"""
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (24_000, 24_000))
from mt.cli import main
main(['featurize', '--model', '{TINY}', '--dataset', 'folder:{photos}', '--weights', 'random', '--image-size', '32',
      '--split', 'test', '--split', 'train', '--cache-dir', '{tmp_path / "cache"}'])
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 1, ran.stderr
    lines = [line for line in ran.stderr.splitlines() if line.startswith("Error:")]
    assert len(lines) == 1
    assert "Traceback" not in ran.stderr
    left = [p for p in (tmp_path / "cache").rglob("*") if p.is_file() and not p.name.endswith(".lock")]
    assert left == []


def test_ctrl_c_stops_cleanly_and_the_next_run_goes_on(photos: Path, tmp_path: Path) -> None:
    command = [
        "featurize", "--model", TINY, "--weights", "random", "--image-size", "32", "--batch-size", "4",
        "--dataset", f"folder:{photos}", "--split", "train", "--cache-dir", str(tmp_path / "cache"),
    ]  # fmt: skip
    press = """
import os, signal, sys
import mt.featurize.run as run
from mt.featurize.embed import Embedder
run.BLOCK_ROWS, honest, calls = 8, Embedder.__call__, []
def press_ctrl_c(self, pixels):
    calls.append(1)
    if len(calls) == 7:
        os.kill(os.getpid(), signal.SIGINT)
    return honest(self, pixels)
if sys.argv[1] == "press":
    Embedder.__call__ = press_ctrl_c
from mt.cli import main
main(sys.argv[2:])
"""

    def run(how: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-c", press, how, *command]
        return subprocess.run(argv, capture_output=True, text=True, check=False)

    stopped = run("press")
    assert stopped.returncode == 130, stopped.stderr
    assert "Run the same command again" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert stopped.stdout == ""
    assert list((tmp_path / "cache").rglob("*.partial"))
    resumed = run("on")
    assert resumed.returncode == 0, resumed.stderr
    (file,) = (tmp_path / "cache").rglob("*.h5")
    whole = featurize(photos, tmp_path / "whole", splits=["train"])[0]
    assert file.read_bytes() == whole.path.read_bytes()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.integers(1, 10_000), most=st.integers(1, 300))
def test_even_batches_waste_less_than_a_row_a_batch(rows: int, most: int) -> None:
    size = run_module.even_batches(rows, most=most)
    batches = -(-rows // size)
    assert size <= most
    assert batches <= -(-rows // most)
    assert batches * size - rows < batches


def test_weights_name_their_model() -> None:
    assert weights_by_model(["a"], ["f.pth"]) == {"a": "f.pth"}
    assert weights_by_model(["a", "b"], ["b=f.pth"]) == {"a": None, "b": "f.pth"}
    assert weights_by_model(["a", "b"], ["random"]) == {"a": "random", "b": "random"}
    with pytest.raises(InputError, match="Expected MODEL=FILE"):
        weights_by_model(["a", "b"], ["f.pth"])


def test_a_read_only_cache_is_recognised(photos: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    featurize(photos, cache)
    if subprocess.run(["mount", "--bind", "-o", "ro", cache, cache], capture_output=True, check=False).returncode:
        for path in [cache, *cache.rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        if os.access(cache, os.W_OK):
            pytest.skip("neither a read-only mount nor permissions can stop this user")
    try:
        assert all(result.cached for result in featurize(photos, cache))
        with pytest.raises((CacheError, OSError)):
            featurize(photos, cache, limit=3)
    finally:
        subprocess.run(["umount", cache], capture_output=True, check=False)
