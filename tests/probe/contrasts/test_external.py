"""Internal against external tests: the drop, its interval, and images that are in both datasets."""

from __future__ import annotations

import json
from hashlib import md5
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from mt.cache.catalog import Catalog
from mt.cli import group
from mt.probe.contrasts.external import drops, overlaps
from mt.probe.scores.metrics import over_cases
from mt.probe.scores.score_tables import scored
from tests.probe.features import QUICK, probed, store_of, write_features


def hashes(*names: str) -> list[bytes]:
    return [md5(name.encode()).digest() for name in names]


def written(cache: Path, *, known: bool = True, own_test: bool = True, **options: Any) -> None:
    """Write two datasets; the other's test split holds 3 train images and 2 test images of the first."""
    own = [f"here train {row}" for row in range(120)], [f"here test {row}" for row in range(80)]
    other = [*own[0][:3], *own[1][:2], *(f"there {row}" for row in range(75))]

    def write(dataset: str, split: str, names: list[str]) -> None:
        content = hashes(*names) if known else None
        write_features(cache, dataset, split=split, n=len(names), hashes=content, **options)

    write("here", "train", own[0])
    if own_test:
        write("here", "test", own[1])
    write("there", "test", other)


def run(cache: Path, *words: str) -> Result:
    asked = ["probe", "--cache-dir", str(cache), "--fraction", "0.5", "--seeds", "2", "--protocol", "clip"]
    asked += ["--dataset", "here", "--test-dataset", "there", *words]
    return CliRunner().invoke(group, asked, catch_exceptions=False, env={"COLUMNS": "180"})


def test_the_drop_is_the_internal_minus_the_external_score_of_the_same_draws(tmp_path: Path) -> None:
    written(tmp_path)
    internal = probed(tmp_path, **QUICK, datasets=["here"])
    external = probed(tmp_path, **QUICK, datasets=["here"], test_dataset="there")
    with store_of(external) as store:
        (one,) = drops(external.scores, internal.scores, store)
        assert drops(external.scores, internal.scores, store) == [one], "from the store"
        mean = [np.mean([score.value for score in some.scores]) for some in (internal, external)]
        assert one.found.value == pytest.approx(mean[0] - mean[1])
        assert one.found.n_draws == 2
        for score in (internal.scores, external.scores):
            (cases,) = scored(score[:1], store)
            ends = over_cases("roc_auc", cases.y, [cases.p])[1]
            assert one.found.high - one.found.low > ends.high - ends.low, "variances add"


def test_random_draws_of_the_same_seeds_do_not_hide_the_stratified_ones(tmp_path: Path) -> None:
    written(tmp_path)
    internal = probed(tmp_path, **QUICK, datasets=["here"])
    at_random = probed(tmp_path, **QUICK, datasets=["here"], draw="random")
    external = probed(tmp_path, **QUICK, datasets=["here"], test_dataset="there")
    with store_of(external) as store:
        (expected,) = drops(external.scores, internal.scores, store)
        for scores in ([*internal.scores, *at_random.scores], [*at_random.scores, *internal.scores]):
            assert drops(external.scores, scores, store) == [expected]
        others = probed(tmp_path, **{**QUICK, "seeds": 5, "draw": "random"}, datasets=["here"])
        assert drops(external.scores, others.scores, store) == [], "other draws are other fits"


def test_scores_of_other_features_are_no_internal_test(tmp_path: Path) -> None:
    written(tmp_path / "small")
    written(tmp_path / "large", seen="at 96 pixels")
    asked = {**QUICK, "datasets": ["here"], "scores": tmp_path / "scores.sqlite"}
    internal = probed(tmp_path / "small", **asked)
    external = probed(tmp_path / "large", **asked, test_dataset="there")
    with store_of(external) as store:
        assert drops(external.scores, internal.scores, store) == []


def test_images_and_patients_of_both_datasets_are_counted(tmp_path: Path) -> None:
    written(tmp_path, grouped=True)
    internal = probed(tmp_path, **QUICK, datasets=["here"])
    external = probed(tmp_path, **QUICK, datasets=["here"], test_dataset="there")
    train, test = overlaps(external.scores, internal.scores, Catalog(tmp_path).entries())
    assert (train.split, train.images, train.groups) == ("train", 3, 0)
    assert (test.split, test.images, test.groups) == ("test", 2, 20)
    assert (
        "shares 3 images (the same content) with the train split of here: the model was trained on them" in train.said
    )
    assert "2 images (the same content) and 20 names of patients or groups" in test.said


def test_the_command_shows_the_drop_and_what_is_shared(tmp_path: Path) -> None:
    written(tmp_path)
    table = " ".join(run(tmp_path).stdout.split())
    assert "Internal and external test" in table
    assert "here - there" in table
    assert "The test split of there shares 3 images" in table
    rows = [json.loads(line) for line in run(tmp_path, "--json").stdout.splitlines()]
    (drop,) = [row for row in rows if "drop" in row]
    assert drop["difference"] == pytest.approx(drop["internal"] - drop["external"])
    assert drop["low"] < drop["difference"] < drop["high"]
    assert [(row["split"], row["images"]) for row in rows if "overlap" in row] == [("train", 3), ("test", 2)]
    by = run(tmp_path, "--json", "--level", "row").stdout
    assert by.count('"drop"') == 1


def test_where_content_is_not_known_that_is_said_beside_shared_patients(tmp_path: Path) -> None:
    written(tmp_path, known=False, grouped=True)
    said = " ".join(run(tmp_path).stdout.split())
    unknown = "Whether images of there are also in the {} split of here is not known: they have no content hashes."
    assert unknown.format("train") in said
    assert (
        "The test split of there shares 20 names of patients or groups with the test split of here: the two tests are "
        f"not independent. {unknown.format('test')}"
    ) in said


def test_without_an_internal_test_the_scores_stand_alone(tmp_path: Path) -> None:
    written(tmp_path, own_test=False)
    result = run(tmp_path)
    assert result.exit_code == 0
    assert "tested on there" in result.stdout
    assert "No comparison with an internal test" in result.stderr
    assert "Internal and external" not in result.stdout
