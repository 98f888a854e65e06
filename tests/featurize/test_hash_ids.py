"""`--hash-ids`: no name of a file or a group is stored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import timm
import torch
from click.testing import CliRunner
from PIL import Image

from mt import FeaturizeRequest, cli, extract, load_dataset, open_features
from mt.datasets import DatasetSettings
from mt.results.store import ScoreStore
from tests.featurize.conftest import TINY
from tests.featurize.extracting import CPU, featurize


def test_ids_and_groups_are_hashed_and_features_are_those_of_the_images(photos: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    plain = featurize(photos, cache, settings=DatasetSettings(group_regex=r"(\d+)\.png"))
    dataset = load_dataset(f"folder:{photos}", settings=DatasetSettings(group_regex=r"(\d+)\.png", hash_ids=True))
    hashed = featurize(dataset, cache)
    for one, other in zip(plain, hashed, strict=True):
        clear, hidden = open_features(one.path), open_features(other.path)
        assert other.path != one.path
        assert (other.copied, other.computed) == (other.rows, 0)
        assert hidden.embeddings.tobytes() == clear.embeddings.tobytes()
        assert not set(hidden.ids) & set(clear.ids)
        assert len(set(hidden.ids)) == len(clear.ids)
        assert len(set(hidden.groups or ())) == len(set(clear.groups or ()))
        assert not [name for name in clear.ids if name.encode() in other.path.read_bytes()]
    again = featurize(dataset, cache)
    assert all(result.cached for result in again)


def test_scores_hold_hashes_and_a_hashed_person_can_be_forgotten(photos: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    dataset = load_dataset(f"folder:{photos}", settings=DatasetSettings(hash_ids=True))
    results = featurize(dataset, cache)
    name = "train/benign/000.png"
    assert name in dataset.splits["train"].ids
    words = ["cache", "forget", "--id", name, "--cache-dir", str(cache), "--yes"]
    result = CliRunner().invoke(cli.group, words)
    assert result.exit_code == 0, result.output
    assert "1 of 50 rows" in result.stdout
    assert not results[0].path.exists()


def test_no_clear_name_reaches_scores_reports_exports_or_predictions(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for split, count in (("train", 24), ("test", 16)):
        for number in range(count):
            name = f"zoe-surname{number // 2:02}-{split}-{number}.png"
            path = tmp_path / "photos" / split / ("benign", "tumour")[number % 2] / name
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 120, (40, 48, 3)) + 120 * (number % 2)
            Image.fromarray(pixels.astype(np.uint8)).save(path)
    cache, out = tmp_path / "cache", tmp_path / "out"
    out.mkdir()
    settings = DatasetSettings(group_regex=r"(surname\d+-\w+)-", hash_ids=True)
    weights = str(tmp_path / "weights.pth")
    torch.save(timm.create_model(TINY.removeprefix("timm:")).state_dict(), weights)
    dataset = load_dataset(f"folder:{tmp_path / 'photos'}", settings=settings)
    extract(FeaturizeRequest([dataset], [TINY], cache_dir=cache, weights=[weights], image_size=32, compute=CPU))
    name, there = f"folder:{tmp_path / 'photos'}", ["--dataset", dataset.shown, "--device", "cpu"]
    tuning = ["--epochs", "1", "--fixed", "--lr", "1e-3", "--weights", weights, "--device", "cpu"]
    for words in (
        ["probe", "--fraction", "1", "--save", out / "saved"],
        ["predict", out / "saved", *there, "--out", out / "probe.csv"],
        ["fuse", "--unfreeze", "--model", TINY, "--fraction", "1", *tuning, "--save", out / "tuned"],
        ["predict", out / "tuned", "--dataset", name, "--device", "cpu", "--out", out / "tuned.csv"],
        ["report", "--out", out / "page.html", "--show-ids", "--thumbnails"],
        ["cache", "export", "--out", out / "exported"],
    ):
        result = CliRunner().invoke(cli.group, [str(word) for word in [*words, "--cache-dir", cache]])
        assert result.exit_code == 0, (words, result.output)
        assert "zoe" not in result.output
    written = [path for folder in (cache, out) for path in folder.rglob("*") if path.is_file()]
    for name in ("probe.csv", "tuned.csv"):
        assert set(pd.read_csv(out / name)["id"]) == set(open_features(next(cache.glob("*/test/*.h5"))).ids)
    assert {"page.html", "scores.csv", "scores.sqlite"} <= {path.name for path in written}
    for path in written:
        assert b"zoe" not in path.read_bytes(), path
    with ScoreStore(cache / "scores.sqlite") as store:  # which keeps ids compressed
        assert not store.cases_where(lambda rows: any("zoe" in one or "surname" in one for one in rows.ids))
        assert not store.cases_where(lambda rows: any("surname" in str(one) for one in rows.groups or ()))
        assert store.cases_where(lambda rows: len(rows.ids) == 16)
    page = (out / "page.html").read_text()
    assert page.count("data:image/jpeg;base64") == 16  # found by their hashed ids
    assert "Names of cases" in page
    assert "hashed, with the cache&#39;s own secret (--hash-ids)" in page
