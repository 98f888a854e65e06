"""`--hash-ids`: no name of a file or a group is stored."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from mt import cli, load_dataset, open_features
from mt.datasets import DatasetSettings
from tests.featurize.extracting import featurize


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
