"""Which feature files `mt probe` takes from a cache folder, and what it says of those that are absent or not sound."""

from __future__ import annotations

import shlex
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from mt.cache import catalog
from mt.errors import CacheError, DamagedError, InputError
from tests.probe.features import BLOCK, QUICK, probed, write_features, write_pair


def test_a_damaged_block_is_found_as_it_is_loaded(tmp_path: Path) -> None:
    write_pair(tmp_path)
    path = write_features(tmp_path)
    content = bytearray(path.read_bytes())
    features = catalog.read_entry(path).open().embeddings
    at = bytes(content).index(features[BLOCK].tobytes())
    content[at] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedError, match=f"train-{BLOCK}"):
        probed(tmp_path, **QUICK)


def test_a_train_split_without_its_test_names_the_command(tmp_path: Path) -> None:
    write_features(tmp_path)
    with pytest.raises(CacheError, match="mt featurize --model m1 --dataset toy"):
        probed(tmp_path, **QUICK)


@pytest.mark.parametrize("other", [{"content": "changed"}, {"model": "m2"}])
def test_a_test_split_of_other_content_or_backbone_is_no_partner(tmp_path: Path, other: dict[str, Any]) -> None:
    write_features(tmp_path)
    write_features(tmp_path, split="test", **other)
    with pytest.raises(CacheError, match="no finished 'test' features"):
        probed(tmp_path, **QUICK)


def test_an_empty_cache_names_the_command_that_fills_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="mt featurize --model dino --dataset pcam"):
        probed(tmp_path / "nothing")
    with pytest.raises(InputError, match="mt featurize --model swav --dataset digits"):
        probed(tmp_path / "nothing", models=["swav"], datasets=["digits"])


def test_a_misspelled_model_is_answered_with_the_one_that_the_cache_holds(tmp_path: Path) -> None:
    write_pair(tmp_path, model="efficientnet-lite0")
    with pytest.raises(InputError, match=r"--model efficientnet-lit0 in .*\. Did you mean 'efficientnet-lite0'\?"):
        probed(tmp_path, models=["efficientnet-lit0"])


def test_names_that_the_cache_lacks_are_errors(tmp_path: Path) -> None:
    write_pair(tmp_path)
    with pytest.raises(InputError, match=r"--model swav.*mt featurize --model swav --dataset toy"):
        probed(tmp_path, models=["m1", "swav"])
    with pytest.raises(InputError, match=r"--dataset pcam.*mt featurize"):
        probed(tmp_path, datasets=["toy", "pcam"])


def test_random_weights_are_left_out_unless_everything_is_asked_for(tmp_path: Path) -> None:
    write_pair(tmp_path, random_weights=True)
    with pytest.raises(InputError, match=r"random.*--everything"):
        probed(tmp_path, **QUICK)
    study = probed(tmp_path, **QUICK, everything=True)
    assert all("random weights" in score.flags for score in study.scores)


def test_everything_in_the_cache_is_probed_and_options_narrow_it(tmp_path: Path) -> None:
    for dataset in ("toy", "other"):
        for model in ("m1", "m2"):
            write_pair(tmp_path, dataset, model)
    scores = probed(tmp_path, **QUICK).scores
    assert {(s.dataset, s.model) for s in scores} == {(d, m) for d in ("toy", "other") for m in ("m1", "m2")}
    narrowed = probed(tmp_path, **QUICK, models=["m2"], datasets=["other"])
    assert {(s.dataset, s.model) for s in narrowed.scores} == {("other", "m2")}
    assert narrowed.n_fitted == 0


def test_equal_names_are_told_apart_by_their_fingerprints(tmp_path: Path) -> None:
    write_pair(tmp_path)
    assert {s.dataset for s in probed(tmp_path, **QUICK).scores} == {"toy"}
    write_pair(tmp_path, location="/elsewhere", content="other")
    study = probed(tmp_path, **QUICK)
    names = {s.dataset for s in study.scores}
    assert (len(names), study.n_stored, study.n_fitted) == (2, 2, 2)
    assert all(name.startswith("toy@") for name in names)


@pytest.mark.parametrize(
    ("shown", "made", "typed"),
    [
        ("folder:scans", "/old/scans", "folder:/new/scans"),
        ("folder:scans.v2", "/old/scans.v2", "folder:/new/scans.v2"),
        ("table:labels", "/old/labels.csv", "table:/new/labels.csv"),
        ("folder:scans[group_regex=a]", "/old/scans", "folder:/new/scans[group_regex=a]"),
    ],
)
def test_features_of_data_that_were_moved_are_named(tmp_path: Path, shown: str, made: str, typed: str) -> None:
    """`mt featurize` would find them in the cache, so making them does not help."""
    write_pair(tmp_path, shown, location=made)
    with pytest.raises(
        InputError, match=f"those of .* were made from {made}. If other .* If they are the same"
    ) as caught:
        probed(tmp_path, **QUICK, datasets=[typed])
    (again,) = shlex.split(str(caught.value).rpartition("--dataset ")[2])
    assert {s.dataset for s in probed(tmp_path, **QUICK, datasets=[again]).scores} == {shown}


def test_a_read_only_cache_keeps_its_scores_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mt.system import files

    cache = tmp_path / "cache"
    write_pair(cache)
    monkeypatch.setattr("mt.system.files.os.access", lambda path, mode: False)
    monkeypatch.setattr(files, "user_dir", lambda: tmp_path / "mine")
    assert probed(cache, **QUICK).store == tmp_path / "mine" / "scores.sqlite"
    assert not list(cache.glob("*.sqlite*"))
    assert probed(cache, **QUICK, scores=tmp_path / "here.sqlite").store == tmp_path / "here.sqlite"


def test_each_feature_file_is_read_once_for_the_catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for model in ("m1", "m2"):
        write_pair(tmp_path, model=model)
        write_features(tmp_path, model=model, split="val", n=60)
    count = Counter[str]()

    def counted(path: Path) -> catalog.Entry:
        count[path.name] += 1
        return read_entry(path)

    read_entry = catalog.read_entry
    monkeypatch.setattr(catalog, "read_entry", counted)
    probed(tmp_path, fractions=[0.5], seeds=1, models=["m1"], datasets=["toy"], select="val")
    assert set(count.values()) == {1}
    assert sum(count.values()) == 6
