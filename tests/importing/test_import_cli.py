"""Imported features through every command, as a person types them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from mt.cli import group
from tests.importing import elsewhere as sample


def mt(*words: object) -> Result:
    return CliRunner().invoke(group, [str(word) for word in words])


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models' embeddings of one dataset, imported by the command."""
    root = tmp_path_factory.mktemp("imported")
    rng = np.random.default_rng(0)
    names = [f"case {number}" for number in range(160)]
    y = rng.integers(0, 2, 160)
    table = sample.write_table(
        root / "labels.csv",
        {
            "id": names,
            "label": list(y),
            "split": ["train"] * 100 + ["test"] * 60,
            "sex": ["f", "m"] * 80,
        },
    )
    for model in ("uni", "virchow"):
        np.savez(root / f"{model}.npz", x=rng.standard_normal((160, 5)) + y[:, None], ids=names)
        done = mt(
            "cache",
            "import",
            root / f"{model}.npz",
            "--dataset",
            "moles",
            "--model",
            model,
            "--labels",
            table,
            "--cache-dir",
            root / "cache",
            "--json",
        )
        assert done.exit_code == 0, done.exception
        assert [json.loads(line)["rows"] for line in done.stdout.splitlines()] == [100, 60]
    return root / "cache"


def test_lists_say_imported(cache: Path) -> None:
    listed = mt("cache", "list", "--cache-dir", cache).stdout
    assert listed.count("uni (imported)") == 2
    printed = mt("cache", "info", "--cache-dir", cache, "--model", "uni", "--split", "test").stdout
    assert "imported from:    uni.npz (sha256 " in printed
    facts = json.loads(mt("cache", "info", "--cache-dir", cache, "--model", "uni", "--split", "test", "--json").stdout)
    assert facts["manifest"]["inputs"]["backbone"]["files"][0]["name"] == "uni.npz"
    assert set(facts["fingerprints"]) == {"backbone", "dataset", "split", "source", "file"}


def test_they_are_verified_and_have_no_images(cache: Path) -> None:
    assert mt("cache", "verify", "--cache-dir", cache).exit_code == 0
    printed = mt("cache", "upgrade", "--cache-dir", cache, "--model", "uni", "--split", "test")
    assert "its embeddings were imported, so there are no images to hash" in printed.output


def test_they_are_probed_fused_and_reported(cache: Path, tmp_path: Path) -> None:
    probed = mt("probe", "--cache-dir", cache, "--fraction", 1, "--json", "--model", "uni", "--model", "virchow")
    assert probed.exit_code == 0, probed.exception
    models = [json.loads(line)["model"] for line in probed.stdout.splitlines()]
    assert models == ["uni (imported)", "virchow (imported)"]
    fused = mt("fuse", "--cache-dir", cache, "--fraction", 1, "--method", "concat", "--json")
    assert fused.exit_code == 0, fused.exception
    page = tmp_path / "report.html"
    reported = mt("report", "--cache-dir", cache, "--out", page)
    assert reported.exit_code == 0, reported.exception
    assert "uni (imported)" in page.read_text()
    commands = page.read_text()
    assert f"mt cache import {cache.parent}/uni.npz --dataset moles --model uni --labels" in commands
    assert "--split test --split train" not in commands


def test_instances_are_probed_in_bags_and_reported(tmp_path: Path) -> None:
    y, page = np.arange(40) % 2, tmp_path / "report.html"
    rows = np.random.default_rng(0).standard_normal((400, 5)) + y.repeat(10)[:, None]
    np.savez(
        tmp_path / "tiles.npz",
        x=rows,
        bag=[f"S{row // 10}" for row in range(400)],
        label=y.repeat(10),
        split=["train"] * 240 + ["test"] * 160,
    )
    where = ("--cache-dir", tmp_path / "cache")
    done = mt("cache", "import", tmp_path / "tiles.npz", "--dataset", "lung", "--model", "uni", "--bag", "bag", *where)
    assert done.exit_code == 0, done.exception
    probed = mt("probe", "--fraction", 1, "--pool", "mean", "--json", *where)
    score = json.loads(probed.stdout)
    assert (score["model"], score["n_test"], score["n_labels"]) == ("uni (imported), mean per bag", 16, 24)
    assert mt("report", "--out", page, *where).exit_code == 0
    text = page.read_text().replace("&#39;", "'")
    assert "mt probe --model 'uni (imported)' --dataset lung --fraction 1 --seeds 1 --bag bag --pool mean" in text


def test_predict_says_that_there_is_no_backbone(cache: Path, tmp_path: Path) -> None:
    saved = mt("probe", "--cache-dir", cache, "--fraction", 1, "--model", "uni", "--save", tmp_path / "saved")
    assert saved.exit_code == 0, saved.exception
    done = mt("predict", tmp_path / "saved", tmp_path / "image.png")
    assert "'uni (imported)' has no backbone here, because its embeddings were imported." in str(done.exception)
    known = mt("predict", tmp_path / "saved", "--dataset", "moles", "--cache-dir", cache)
    assert len(known.stdout.splitlines()) == 61


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "FILE is missing"),
        (("x.npy",), "--dataset is missing"),
        (("x.npy", "--dataset", "d"), "--model is missing"),
        (("x.npy", "--dataset", "d", "--model", "m"), "No file x.npy"),
    ],
)
def test_what_is_missing_is_named(words: tuple[str, ...], message: str) -> None:
    assert message in str(mt("cache", "import", *words).exception)


def test_the_same_import_again_is_the_same_file(cache: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in cache.rglob("*.h5")}
    root = cache.parent
    mt(
        "cache",
        "import",
        root / "uni.npz",
        "--dataset",
        "moles",
        "--model",
        "uni",
        "--labels",
        root / "labels.csv",
        "--cache-dir",
        cache,
    )
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*.h5")} == before
