"""After `mt cache forget`, no file of mt holds data of the person."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from mt import cli, open_features
from mt.cache import ContentIndex
from mt.cache.catalog import Catalog
from mt.errors import InputError
from mt.results.store import ScoreStore
from tests.cache import samples

GONE = "patient2"


def _run(*words: object, fails: type[Exception] | None = None) -> Result:
    result = CliRunner().invoke(cli.group, [str(word) for word in words])
    if fails is None and result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert fails is None or isinstance(result.exception, fails), result.output
    return result


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache with train and test files of one dataset, a partial file, and scores of them."""
    folder = tmp_path / "cache"
    rng = np.random.default_rng(0)
    for split, start in (("train", 0), ("test", 40)):
        rows = samples.rows(40)
        rows = type(rows)(
            None,
            np.arange(40) % 2,
            [f"patient{(start + row) // 4}" for row in range(40)],
            [f"{split}{row}.png" for row in range(40)],
            {},
        )
        prints = {"backbone": "b" * 64, "dataset": "d" * 64, "split": split * 10, "file": f"{split}f" * 8}
        manifest = samples.manifest(split=split, fingerprints=prints, location=str(tmp_path / "images"))
        path = folder / "folder-moles" / split / f"dino-{prints['file'][:12]}.h5"
        content = [bytes([row + 1, start]) * 8 for row in range(40)]
        values = rng.standard_normal((40, samples.DIM)).astype("f4") + (np.arange(40) % 2)[:, None]
        with samples.open_writer(path, rows=rows, manifest=manifest, content=content) as writer:
            for block in list(writer.missing):
                writer.write_block(block, values[block * 4 : block * 4 + 4], np.ones(4, "u1"))
            writer.finish()
    samples.write_some(folder / "folder-moles" / "train" / "other-aaaaaaaaaaaa.h5", [0])
    _run("probe", "--cache-dir", folder, "--fraction", "1")
    return folder


def _everything(cache: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(cache.rglob("*")) if path.is_file())


def test_a_group_leaves_files_scores_and_hashes(cache: Path, tmp_path: Path) -> None:
    kept = {entry.split: entry.open().embeddings.copy() for entry in Catalog(cache).entries() if entry.complete}
    image = tmp_path / "images" / "train8.png"
    image.parent.mkdir()
    image.write_bytes(b"an image")
    ContentIndex().sha256(image)
    assert b"train8.png" in _everything(cache)
    result = _run("cache", "forget", "--group", GONE, "--cache-dir", cache, "--yes")
    assert "4 of 40 rows: " in result.stdout
    assert "1 prediction and 1 score made with these rows" in result.stdout
    entries = {entry.split: entry for entry in Catalog(cache).entries(everything=True)}
    assert sorted(entries) == ["test", "train"]
    train = entries["train"].open(verify=True)
    assert (train.n_rows, train.manifest["forgotten"]) == (36, 4)
    assert GONE not in (train.groups or [])
    rows = [row for row in range(40) if row // 4 != 2]
    assert np.array_equal(train.embeddings, kept["train"][rows])
    assert train.content is not None
    assert len(train.content) == 36
    assert np.array_equal(entries["test"].open().embeddings, kept["test"])
    assert b"train8.png" not in _everything(cache)
    assert str(image).encode() not in b"".join(path.read_bytes() for path in Path.home().rglob("index.sqlite*"))
    with ScoreStore(cache / "scores.sqlite") as store:
        assert store.scores() == []
    again = _run("probe", "--cache-dir", cache, "--fraction", "1", "--json")
    assert json.loads(again.stdout.splitlines()[0])["n_labels"] == 36


def test_an_id_in_the_test_split(cache: Path) -> None:
    _run("cache", "forget", "--id", "test5.png", "--cache-dir", cache, "--yes")
    entries = {entry.split: entry.open() for entry in Catalog(cache).entries() if entry.complete}
    assert (entries["train"].n_rows, entries["test"].n_rows) == (40, 39)
    assert b"test5.png" not in _everything(cache)


def test_a_dry_run_and_a_no_change_nothing(cache: Path) -> None:
    before = _everything(cache)
    result = _run("cache", "forget", "--group", GONE, "--cache-dir", cache, "--dry-run")
    assert "Nothing was removed" in result.stderr
    _run("cache", "forget", "--group", GONE, "--cache-dir", cache)  # stdin is empty: not confirmed
    assert _everything(cache) == before


def test_who_is_not_there_is_said(cache: Path) -> None:
    result = _run("cache", "forget", "--id", "nobody", "--cache-dir", cache, "--yes", fails=InputError)
    assert str(result.exception).startswith("Nothing in")
    assert "nobody" in str(result.exception)
    _run("cache", "forget", "--cache-dir", cache, "--yes", fails=InputError)


def test_another_dataset_is_left_alone(cache: Path) -> None:
    before = _everything(cache)
    _run("cache", "forget", "--group", GONE, "--dataset", "digits", "--cache-dir", cache, "--yes", fails=InputError)
    assert _everything(cache) == before


def test_an_interrupted_call_is_finished_by_the_next(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("mt.upkeep.forgetting.remove_file", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        CliRunner().invoke(cli.group, ["cache", "forget", "--group", GONE, "--cache-dir", str(cache), "--yes"])
    for entry in Catalog(cache).entries(everything=True):
        if entry.complete:
            open_features(entry.path, verify=True)
    _run("cache", "forget", "--group", GONE, "--cache-dir", cache, "--yes")
    assert [entry.n_rows for entry in Catalog(cache).entries(everything=True)] == [40, 36]
    assert b"train8.png" not in _everything(cache)


def _report(cache: Path, page: Path) -> None:
    _run("report", "--cache-dir", cache, "--out", page)


def test_reports_go_with_their_folders_and_the_command_that_draws_them_is_named(cache: Path, tmp_path: Path) -> None:
    page = tmp_path / "out" / "moles.html"
    _report(cache, page)
    assert (tmp_path / "out" / "moles" / "scores.csv").exists()
    result = _run("cache", "forget", "--group", GONE, "--cache-dir", cache, "--yes")
    assert f"{page}. Draw it again: mt report --out {page} --scores {cache / 'scores.sqlite'}" in result.stdout
    assert list((tmp_path / "out").iterdir()) == []
    assert "Exports, saved models and copies of reports are not changed" in result.stderr


def test_no_file_goes_that_is_not_as_it_was_written_and_no_link_is_followed(cache: Path, tmp_path: Path) -> None:
    page, folder = tmp_path / "moles.html", tmp_path / "moles"
    _report(cache, page)
    page.write_text("my own page")
    (folder / "notes.txt").write_text("my own notes")
    elsewhere = tmp_path / "elsewhere.csv"
    (folder / "scores.csv").rename(elsewhere)
    (folder / "scores.csv").symlink_to(elsewhere)
    result = _run("cache", "forget", "--group", GONE, "--cache-dir", cache, "--yes")
    assert sorted(path.name for path in folder.iterdir()) == ["notes.txt", "scores.csv"]
    assert page.read_text() == "my own page"
    assert elsewhere.exists()
    assert f"Warning: {page} was changed since mt wrote it, so it stays" in result.stderr


def test_a_folder_that_became_a_link_is_left_alone(cache: Path, tmp_path: Path) -> None:
    _report(cache, tmp_path / "moles.html")
    folder = (tmp_path / "moles").rename(tmp_path / "elsewhere")
    (tmp_path / "moles").symlink_to(folder)
    before = sorted(folder.iterdir())
    _run("cache", "forget", "--group", GONE, "--cache-dir", cache, "--yes")
    assert sorted(folder.iterdir()) == before


def test_a_dry_run_leaves_reports(cache: Path, tmp_path: Path) -> None:
    _report(cache, tmp_path / "moles.html")
    result = _run("cache", "forget", "--group", GONE, "--cache-dir", cache, "--dry-run")
    assert "report of" in result.stdout
    assert (tmp_path / "moles.html").exists()
