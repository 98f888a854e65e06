"""`mt cache upgrade`: older files gain content hashes, and nothing else changes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mt import cli, open_features
from mt.cache.feature_file.read import FeatureFile
from mt.cache.feature_file.rewrite import resealed
from mt.cache.feature_file.rows import CONTENT
from tests.featurize.conftest import photos
from tests.featurize.extracting import featurize

__all__ = ["photos"]  # a fixture


def _upgrade(cache: Path, *words: str) -> Result:
    return CliRunner().invoke(cli.group, ["cache", "upgrade", "--cache-dir", str(cache), *words])


def _as_before(path: Path, monkeypatch: pytest.MonkeyPatch) -> FeatureFile:
    """Turn a file into what version 1 would have written."""
    features = open_features(path)
    arrays = {name: array for name, array in features.stored.items() if name != CONTENT}
    manifest = {name: value for name, value in features.manifest.items() if name != "decoding"}
    with monkeypatch.context() as patch:
        patch.setattr("mt.cache.feature_file.create.VERSION", 1)
        resealed(path, path.with_suffix(".old"), arrays, manifest)
    path.with_suffix(".old").rename(path)
    return open_features(path)


@pytest.fixture
def old(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FeatureFile:
    (result,) = featurize(photos, tmp_path / "cache", splits=["train"])
    return _as_before(result.path, monkeypatch)


def test_a_file_gains_hashes_and_nothing_else_changes(old: FeatureFile, photos: Path, tmp_path: Path) -> None:
    before = old.embeddings.tobytes(), old.status.tobytes(), old.ids, old.groups, old.labels.tolist(), old.fingerprints
    assert old.content is None
    found = _upgrade(tmp_path / "cache")
    assert (found.exit_code, found.stdout) == (0, f"upgraded: {old.path}\n")
    new = open_features(old.path, verify=True)
    assert new.content is not None
    assert before == (
        new.embeddings.tobytes(),
        new.status.tobytes(),
        new.ids,
        new.groups,
        new.labels.tolist(),
        new.fingerprints,
    )
    assert {**new.manifest, "format_version": 1} == {**old.manifest, "format_version": 1, "decoding": {"revision": 1}}
    renamed = photos.rename(photos.with_name("renamed"))
    (copied,) = featurize(renamed, tmp_path / "cache", splits=["train"])
    assert (copied.copied, copied.computed) == (50, 0)


def test_a_file_that_has_them_is_left_alone(old: FeatureFile, tmp_path: Path) -> None:
    _upgrade(tmp_path / "cache")
    inode = old.path.stat().st_ino
    assert _upgrade(tmp_path / "cache").stdout == f"has content hashes already: {old.path}\n"
    assert old.path.stat().st_ino == inode


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("gone", "its images cannot be read"),
        ("changed", "are not those that it was made of"),
        ("fewer", "are not those that it was made of"),
    ],
)
def test_images_that_are_gone_or_changed_are_said_and_the_file_stays(
    change: str, said: str, old: FeatureFile, photos: Path, tmp_path: Path
) -> None:
    first, second, *_ = sorted(photos.rglob("train/*/*.png"))
    if change == "gone":
        shutil.rmtree(photos)
    elif change == "changed":
        first.write_bytes(second.read_bytes())
    else:
        first.unlink()
    before = old.path.read_bytes()
    found = _upgrade(tmp_path / "cache")
    assert found.exit_code == 1
    assert said in found.stderr
    assert str(old.path) in found.stderr
    assert old.path.read_bytes() == before
    assert not list(old.path.parent.glob("*.tmp"))


def test_files_of_released_versions_are_upgraded_where_their_images_are_at_hand(tmp_path: Path) -> None:
    data = Path(__file__).parents[1] / "data" / "before-house" / "cache"
    for name in ("digits", "synthetic-40-28953779", "two"):
        shutil.copytree(data / name, tmp_path / name)
    found = _upgrade(tmp_path, "--json")
    assert found.stdout.count('"ok": true') == 8
    assert found.stdout.count('"ok": false') == len(list((tmp_path / "two").rglob("*.h5")))
    for path in tmp_path.glob("[ds]*/*/*.h5"):
        then = open_features(next(data.rglob(path.name)))
        now = open_features(path, verify=True)
        assert now.content is not None
        assert (now.embeddings.tobytes(), now.fingerprints) == (then.embeddings.tobytes(), then.fingerprints)
