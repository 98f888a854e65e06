"""The extraction loop: right numbers in one pass; it reports and survives unreadable images and too little memory."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mt import load_backbone, load_dataset, open_features
from mt.cache import Catalog
from mt.cache.feature_file.format import Status
from mt.datasets import DatasetSettings
from mt.errors import DatasetError, InputError, MtError
from mt.featurize import run as run_module
from mt.featurize.embed import Embedder
from mt.featurize.plan import weights_by_model
from tests.featurize.conftest import OTHER, TINY
from tests.featurize.extracting import CPU, counted, featurize, pictures
from tests.unmeasured import environment

pytestmark = pytest.mark.usefixtures("small_blocks")


def test_embeddings_are_those_of_a_plain_loop(photos: Path, tmp_path: Path) -> None:
    results = featurize(photos, tmp_path / "cache")
    backbone = load_backbone(TINY, "random", image_size=32)
    for result in results:
        split = load_dataset(f"folder:{photos}").splits[result.split]
        features = open_features(result.path, verify=True)
        with torch.inference_mode():
            plain = [backbone.model(backbone.preprocess(image)[None])[0].numpy() for image in pictures(split)]
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


def test_skipping_covers_images_that_are_absent(photos: Path, tmp_path: Path) -> None:
    lines = [f"train/{name}/{n:03}.png,{name}" for n in range(8) for name in [("benign", "tumour")[n % 2]]]
    (photos / "list.csv").write_text("\n".join(["image,label,split", *(f"{x},train" for x in lines)]) + "\n")
    (photos / "train" / "tumour" / "003.png").unlink()
    table = f"table:{photos / 'list.csv'}"
    with pytest.raises(DatasetError, match=r"003\.png"):
        featurize(table, tmp_path / "cache")
    results = featurize(table, tmp_path / "cache", compute=replace(CPU, on_error="skip"))
    assert (sum(r.rows for r in results), sum(r.skipped for r in results)) == (8, 1)


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
    """A network that runs out of memory with more than `most` images."""

    def __init__(self, network: torch.nn.Module, most: int) -> None:
        super().__init__()
        self.network, self.most = network, most

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if len(images) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        embeddings: torch.Tensor = self.network(images)
        return embeddings


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
    command = [sys.executable, "-c", code]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
    assert ran.returncode == 1, ran.stderr
    lines = [line for line in ran.stderr.splitlines() if line.startswith("Error:")]
    assert len(lines) == 1
    assert "Traceback" not in ran.stderr
    left = [p for p in (tmp_path / "cache").rglob("*") if p.is_file() and not p.name.endswith(".lock")]
    assert left == []


def test_weights_name_their_model() -> None:
    assert weights_by_model(["a"], ["f.pth"]) == {"a": "f.pth"}
    assert weights_by_model(["a", "b"], ["b=f.pth"]) == {"a": None, "b": "f.pth"}
    assert weights_by_model(["a", "b"], ["random"]) == {"a": "random", "b": "random"}
    with pytest.raises(InputError, match="Expected MODEL=FILE"):
        weights_by_model(["a", "b"], ["f.pth"])


@pytest.mark.parametrize(
    ("fast", "precision", "said"), [(True, "float32", 1), (False, "float32", 0), (True, "bfloat16", 0)]
)
def test_a_long_run_says_once_that_bfloat16_is_faster(
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fast: bool,
    precision: str,
    said: int,
) -> None:
    monkeypatch.setattr(run_module, "MANY", 10)
    monkeypatch.setattr(run_module, "computes_bfloat16_fast", lambda device: fast)
    featurize(photos, tmp_path / "cache", compute=replace(CPU, precision=precision))
    assert capsys.readouterr().err.count("--precision bfloat16") == said


def test_settings_are_part_of_the_name_and_stand_in_the_file(photos: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    plain = featurize(photos, cache, splits=["test"])[0]
    grouped = featurize(photos, cache, splits=["test"], settings=DatasetSettings(group_regex="(0[0-9]+)"))[0]
    assert plain.dataset == "folder:photos"
    assert grouped.dataset == "folder:photos[group_regex=(0[0-9]+)]"
    kept = {entry.dataset: entry for entry in Catalog(cache).entries(everything=True)}
    assert "settings" not in kept[plain.dataset].manifest
    assert kept[grouped.dataset].manifest["settings"] == {"group_regex": "(0[0-9]+)"}
    assert not any("superseded" in entry.flags for entry in kept.values())
