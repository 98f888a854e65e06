"""An image goes through a network once: what the cache holds is copied, to the bytes that a fresh run computes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mt import load_dataset, open_features
from mt.cache.feature_file.read import FeatureFile
from mt.datasets import Dataset, DatasetSettings
from mt.errors import CacheError
from mt.featurize.embed import Embedder, even_batches
from mt.featurize.plan import Result
from tests.featurize.conftest import OTHER, TINY
from tests.featurize.extracting import CPU, counted, featurize

pytestmark = pytest.mark.usefixtures("small_blocks")
AUTO = replace(CPU, batch_size=None)


@pytest.fixture
def through(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows by the number of images of each batch; padding does not count."""
    counts: list[int] = []
    real = Embedder.__call__

    def counting(self: Embedder, pixels: Any) -> torch.Tensor:
        counts.append(int(np.asarray(pixels).reshape(len(pixels), -1).any(axis=1).sum()))
        return real(self, pixels)

    monkeypatch.setattr(Embedder, "__call__", counting)
    return counts


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """Write 60 images of 20 patients and two classes, without splits, and return their folder."""
    rng = np.random.default_rng(1)
    for number in range(60):
        _add(tmp_path / "pool", number, rng)
    return tmp_path / "pool"


def _add(folder: Path, number: int, rng: np.random.Generator) -> None:
    path = folder / ("benign", "tumour")[number % 2] / f"pt{number // 3}-{number:03}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 255, (40, 48, 3), dtype=np.uint8)).save(path)


def _another_seed(pool: Path) -> Dataset:
    return load_dataset(f"folder:{pool}", settings=DatasetSettings(seed=7))


def _with_groups(pool: Path) -> Dataset:
    return load_dataset(f"folder:{pool}", settings=DatasetSettings(group_regex=r"(pt\d+)"))


def _renamed(pool: Path) -> Dataset:
    return load_dataset(f"folder:{pool.rename(pool.with_name('other'))}")


def _copied_elsewhere(pool: Path) -> Dataset:
    shutil.copytree(pool, pool.with_name("elsewhere"))
    shutil.rmtree(pool)
    return load_dataset(f"folder:{pool.with_name('elsewhere')}")


def _one_inside_another(pool: Path) -> Dataset:
    """A dataset whose training split has the images of half the folder, under other names."""
    rows = ["image,label,split"]
    for number, path in enumerate(sorted(pool.rglob("*.png"))[::2]):
        shutil.copy(path, pool.parent / f"case{number}.png")
        rows.append(f"case{number}.png,{path.parent.name},{('train', 'test')[number % 3 == 0]}")
    (pool.parent / "list.csv").write_text("\n".join(rows) + "\n")
    return load_dataset(f"table:{pool.parent / 'list.csv'}")


def _with_more(pool: Path) -> Dataset:
    rng = np.random.default_rng(2)
    for number in range(60, 73):
        _add(pool, number, rng)
    return load_dataset(f"folder:{pool}")


def _bytes(result: Result) -> tuple[bytes, bytes, list[str], list[int]]:
    features = open_features(result.path, verify=True)
    return features.embeddings.tobytes(), features.status.tobytes(), list(features.ids), features.labels.tolist()


@pytest.mark.parametrize(
    "changed",
    [
        _another_seed,
        _with_groups,
        _renamed,
        _copied_elsewhere,
        _one_inside_another,
        _with_more,
    ],
)
def test_known_images_are_not_computed_and_the_features_are_those_of_a_fresh_run(
    changed: Callable[[Path], Dataset], pool: Path, tmp_path: Path, through: list[int]
) -> None:
    featurize(pool, tmp_path / "cache", [TINY, OTHER])
    dataset, new = changed(pool), 13 if changed is _with_more else 0
    through.clear()
    results = featurize(dataset, tmp_path / "cache", [TINY, OTHER])
    assert sum(through) == 2 * new
    assert sum(result.computed for result in results) == 2 * new
    assert sum(result.copied for result in results) == sum(result.rows for result in results) - 2 * new
    for result, fresh in zip(results, featurize(dataset, tmp_path / "fresh", [TINY, OTHER]), strict=True):
        assert fresh.copied == 0
        assert _bytes(result) == _bytes(fresh)


@pytest.mark.parametrize("changed", [_another_seed, _one_inside_another, _with_more])
def test_automatic_batch_sizes_leave_the_bits_of_a_fresh_run(
    changed: Callable[[Path], Dataset], pool: Path, tmp_path: Path
) -> None:
    featurize(pool, tmp_path / "cache", [TINY, OTHER], compute=AUTO)
    dataset = changed(pool)
    for result in featurize(dataset, tmp_path / "cache", [TINY, OTHER], compute=AUTO):
        size = open_features(result.path).manifest["compute"]["batch_size"]
        (fresh,) = featurize(
            dataset,
            tmp_path / f"fresh-{size}",
            [result.model],
            compute=replace(CPU, batch_size=size),
            splits=[result.split],
        )
        assert result.copied
        assert _bytes(result) == _bytes(fresh)


def test_batch_sizes_that_give_the_same_bits_are_one(
    pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Embedder, "bits", lambda *_: b"the same at every size")
    first = featurize(pool, tmp_path / "cache", compute=AUTO)
    sizes = {result.split: open_features(result.path).manifest["compute"]["batch_size"] for result in first}
    assert sizes == {result.split: even_batches(result.rows, most=32) for result in first}
    assert len(set(sizes.values())) == 2
    for result in featurize(_another_seed(pool), tmp_path / "cache", compute=AUTO):
        manifest = open_features(result.path).manifest
        assert (result.copied, result.computed) == (result.rows, 0)
        assert manifest["compute"]["batch_size"] == even_batches(result.rows, most=32)
        assert {one["batch_size"] for one in manifest["copied"]["from"]} == set(sizes.values())


def test_batch_sizes_that_give_other_bits_are_not_mixed(
    pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Embedder, "bits", lambda _, batch_size, __: b"size %d" % batch_size)
    featurize(pool, tmp_path / "cache", compute=AUTO)
    for result in featurize(_another_seed(pool), tmp_path / "cache", compute=AUTO):
        manifest = open_features(result.path).manifest
        assert {one["batch_size"] for one in manifest["copied"]["from"]} == {manifest["compute"]["batch_size"]}
        assert 0 < result.copied < result.rows


def test_the_file_and_the_screen_say_how_many_and_from_where(
    pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = tmp_path / "cache"
    first = {result.split: result for result in featurize(pool, cache)}
    capsys.readouterr()
    (test,) = featurize(_with_more(pool), cache, splits=["test"])
    copied = open_features(test.path).manifest["copied"]
    assert copied["rows"] == test.copied > 0
    assert sum(one["rows"] for one in copied["from"]) == test.copied
    paths = {str(result.path.relative_to(cache)): result for result in first.values()}
    for one in copied["from"]:
        assert one["fingerprint"] == open_features(paths[one["file"]].path).fingerprints["file"]
    assert f"{test.copied} of {test.rows} embeddings copied from {cache}" in capsys.readouterr().err


def test_one_source_is_said_without_a_count(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (first,) = featurize(photos, tmp_path / "cache", splits=["train"])
    (photos / "train" / "benign" / "000.png").unlink()
    featurize(photos, tmp_path / "cache", splits=["train"])
    assert f"49 of 49 embeddings copied from {first.path}\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    "other",
    [
        {"settings": DatasetSettings(intensity="minmax")},
        {"compute": replace(CPU, batch_size=5)},
        {"compute": replace(CPU, dtype="float16")},
        {"compute": replace(CPU, precision="bfloat16")},
        {"compute": replace(CPU, overwrite=True)},
        {"models": [OTHER]},
    ],
    ids=["decoding", "batch size", "stored type", "precision", "overwrite", "backbone"],
)
def test_nothing_is_copied_that_a_fresh_run_computes_otherwise(
    other: dict[str, Any], pool: Path, tmp_path: Path
) -> None:
    featurize(pool, tmp_path / "cache")
    settings = replace(other.pop("settings", DatasetSettings()), seed=7)
    results = featurize(load_dataset(f"folder:{pool}", settings=settings), tmp_path / "cache", **other)
    assert [(result.copied, result.computed) for result in results] == [(0, result.rows) for result in results]
    assert all("copied" not in open_features(result.path).manifest for result in results)


def test_another_version_is_computed_again_or_mixed_knowingly(
    pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("importlib.metadata.version", lambda package: "0.1")
        featurize(pool, tmp_path / "cache")
    (strict,) = featurize(_another_seed(pool), tmp_path / "cache", splits=["test"])
    assert strict.copied == 0
    (mixed,) = featurize(
        _another_seed(pool), tmp_path / "cache", splits=["train"], compute=replace(CPU, allow_mixed=True)
    )
    manifest = open_features(mixed.path).manifest
    assert mixed.copied == mixed.rows
    assert [one["versions"]["torch"] for one in manifest["mixed_compute"]] == ["0.1"]
    assert any("--allow-mixed" in warning for warning in manifest["warnings"])


def test_an_interrupted_run_goes_on_with_the_same_sources_to_the_same_bytes(pool: Path, tmp_path: Path) -> None:
    for cache in ("cut", "whole"):
        featurize(pool, tmp_path / cache, splits=["train"])
    dataset = _with_more(pool)
    train = dataset.splits["train"]
    last = next(row for row in range(len(train) - 1, 0, -1) if int(train.ids[row].split("-")[1][:3]) >= 60)
    cut, _ = counted(pool, interrupt_at=last)
    with pytest.raises(KeyboardInterrupt):
        featurize(cut, tmp_path / "cut", splits=["train"])
    (resumed,) = featurize(dataset, tmp_path / "cut", splits=["train"])
    (whole,) = featurize(dataset, tmp_path / "whole", splits=["train"])
    assert resumed.copied == whole.copied > 0
    assert resumed.path.read_bytes() == whole.path.read_bytes()


def test_a_run_whose_sources_are_gone_says_so(pool: Path, tmp_path: Path) -> None:
    (first,) = featurize(pool, tmp_path / "cache", splits=["train"])
    _with_more(pool)
    cut, _ = counted(pool, interrupt_at=0)
    cut.splits["train"].images.interrupt_at = next(  # type: ignore[attr-defined]
        row for row, name in enumerate(cut.splits["train"].ids) if int(name.split("-")[1][:3]) >= 60
    )
    with pytest.raises(KeyboardInterrupt):
        featurize(cut, tmp_path / "cache", splits=["train"])
    first.path.unlink()
    with pytest.raises(CacheError, match=r"was begun with embeddings of .*, which are not there any more.*--overwrite"):
        featurize(pool, tmp_path / "cache", splits=["train"])


def test_damaged_rows_are_computed(pool: Path, tmp_path: Path) -> None:
    (first,) = featurize(pool, tmp_path / "cache", splits=["train"])
    before = _bytes(first)[0]
    data = bytearray(first.path.read_bytes())
    at = data.find(before[:64])
    data[at] ^= 1
    first.path.write_bytes(data)
    renamed = _renamed(pool)
    (second,) = featurize(renamed, tmp_path / "cache", splits=["train"])
    assert 0 < second.computed < second.rows
    assert _bytes(second)[0] == before


def test_skipped_rows_are_read_again(photos: Path, tmp_path: Path) -> None:
    broken = photos / "train" / "benign" / "000.png"
    broken.write_bytes(broken.read_bytes()[:100])
    skip = replace(CPU, on_error="skip")
    featurize(photos, tmp_path / "cache", splits=["train"], compute=skip)
    renamed = photos.rename(photos.with_name("renamed"))
    (again,) = featurize(renamed, tmp_path / "cache", splits=["train"], compute=skip)
    assert (again.copied, again.computed, again.skipped) == (49, 1, 1)


@pytest.mark.parametrize("name", ["synthetic@12", "digits"])
def test_images_that_are_no_files_are_known_too(name: str, tmp_path: Path) -> None:
    limited = featurize(name, tmp_path / "cache", splits=["train"], limit=8)
    whole = featurize(name, tmp_path / "cache", splits=["train"], limit=12)
    assert [result.copied for result in limited] == [0]
    shared = set(FeatureFile(limited[0].path).ids) & set(FeatureFile(whole[0].path).ids)
    assert whole[0].copied == len(shared) > 0
