"""`mt probe --threshold` and `--calibrate`: chosen inside the budget, kept with the fit, old fits made complete."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mt.errors import InputError
from mt.probe.decisions.achieved import Achieved, achieved
from mt.probe.decisions.achieved_tables import print_achieved
from mt.probe.decisions.gains import gains
from mt.probe.decisions.out_of_fold import BudgetTask, OutOfFold, cross_fitted
from mt.probe.request import Answers
from mt.types import Array, LabelledRows
from tests.probe.features import probed, store_of, write_features


def made(tmp_path: Path, **facts: Any) -> Path:
    for split, n in (("train", 120), ("test", 200)):
        write_features(tmp_path, split=split, n=n, signal=0.4, **facts)
    return tmp_path


def points(study: Answers) -> list[Achieved]:
    assert study.decisions is not None
    with store_of(study) as store:
        return list(achieved(study.scores, study.decisions, store))


@pytest.mark.parametrize("protocol", ["default", "clip", "dinov2-logreg", "thunder-knn"])
def test_every_protocol_gets_a_threshold_and_what_it_achieves(tmp_path: Path, protocol: str) -> None:
    study = probed(made(tmp_path), protocol=protocol, fractions=[0.5], seeds=2, threshold="sensitivity:0.9")
    (one,) = points(study)
    assert len(one.chosen) == 2
    assert one.omitted == 0
    assert all(t.sensitivity is not None and t.sensitivity >= 0.9 for t in one.chosen)
    assert one.point is not None
    assert one.point.tp + one.point.fn == pytest.approx(100)
    assert one.point.measures["sensitivity"].low < one.point.measures["sensitivity"].value


def test_the_threshold_looks_at_the_budget_alone(tmp_path: Path) -> None:
    asked: dict[str, Any] = {"protocol": "clip", "fractions": [0.5], "seeds": 1, "threshold": "youden"}
    first = points(probed(made(tmp_path / "a"), **asked))[0]
    for split, n in (("train", 120), ("test", 200)):
        labels = None if split == "train" else np.arange(200) % 2
        write_features(tmp_path / "b", split=split, n=n, signal=0.4, labels=labels)
    assert points(probed(tmp_path / "b", **asked))[0].chosen == first.chosen


def test_a_fit_stored_without_out_of_fold_scores_is_fitted_again_once(tmp_path: Path) -> None:
    cache, asked = made(tmp_path), {"protocol": "clip", "fractions": [0.5], "seeds": 2}
    plain = probed(cache, **asked)
    decided = probed(cache, **asked, threshold="youden")
    assert [score.identity for score in decided.scores] == [score.identity for score in plain.scores]
    again = probed(cache, **asked, threshold="specificity:0.9")
    assert (again.n_fitted, again.n_stored) == (0, 2)
    assert all(one.point is not None for one in points(again))


def test_scaled_rows_stand_beside_the_others_and_are_answered_from_the_store(tmp_path: Path) -> None:
    cache = made(tmp_path)
    asked: dict[str, Any] = {"fractions": [0.5], "seeds": 2, "calibrate": "temperature", "threshold": "youden"}
    study = probed(cache, **asked)
    by_protocol = {(score.protocol, score.metric): score.value for score in study.scores}
    assert by_protocol["default", "roc_auc"] == pytest.approx(by_protocol["default, temperature", "roc_auc"], abs=1e-6)
    assert by_protocol["default", "log_loss"] != by_protocol["default, temperature", "log_loss"]
    plain, scaled = points(study)
    assert plain.point is not None
    assert scaled.point is not None
    assert (plain.point.tp, plain.point.fp) == (scaled.point.tp, scaled.point.fp)
    with store_of(study) as store:
        (gain,) = gains(study.scores, store)
    assert gain.held_out[1] <= gain.held_out[0] + 0.02
    assert gain.scaled == 2
    assert len({score.fit for score in study.scores}) == 4
    assert probed(cache, **asked).n_fitted == 0


def test_what_is_forgotten_is_made_again(tmp_path: Path) -> None:
    cache = made(tmp_path)
    asked: dict[str, Any] = {"fractions": [0.5], "seeds": 1, "calibrate": "platt", "threshold": "youden"}
    study = probed(cache, **asked)
    before = [one.chosen for one in points(study)]
    with store_of(study) as store:
        (score, *_) = study.scores
        unrelated = probed(cache, protocol="clip", fractions=[0.2], seeds=1).scores[0].fit
        store.forget([unrelated], [])
        held = OutOfFold(store)
        assert held.lacking([score.fit]) == {score.fit}
        assert "--threshold" in held.why_not(store.fit(score.fit))
    assert [one.chosen for one in points(probed(cache, **asked))] == before
    assert probed(cache, **asked).n_fitted == 0


@pytest.mark.parametrize("view", [{"by": "sex"}, {"level": "group"}])
def test_subgroups_share_a_threshold_and_groups_have_their_own(tmp_path: Path, view: dict[str, Any]) -> None:
    for split, n in (("train", 120), ("test", 200)):
        write_features(
            tmp_path,
            split=split,
            n=n,
            signal=0.4,
            labels=np.arange(n) // 4 % 2,
            grouped=True,
            columns={"sex": list("FM" * (n // 2))},
        )
    rows = points(probed(tmp_path, fractions=[0.5], seeds=1, threshold="youden"))
    found = points(probed(tmp_path, fractions=[0.5], seeds=1, threshold="youden", **view))
    assert all(one.point is not None for one in found)
    if "by" in view:
        assert [one.subject.subgroup for one in found] == ["F", "M"]
        assert [one.chosen for one in found] == [rows[0].chosen] * 2
    else:
        assert found[0].n_test < rows[0].n_test
        assert found[0].chosen != rows[0].chosen


@pytest.mark.parametrize("calibrate", ["temperature", "platt"])
def test_every_label_has_its_own_threshold(tmp_path: Path, calibrate: str) -> None:
    study = probed(
        made(tmp_path, task="multilabel", n_classes=3),
        fractions=[0.5],
        seeds=1,
        threshold="youden",
        calibrate=calibrate,
    )
    found = points(study)
    assert [one.label for one in found] == ["class 0", "class 1", "class 2"] * 2
    assert len({one.chosen[0].value for one in found}) > 3


def test_one_case_of_a_class_has_no_threshold_and_says_so(tmp_path: Path) -> None:
    labels = np.zeros(120, dtype=np.int64)
    labels[0] = 1
    write_features(tmp_path, split="train", n=120, labels=labels)
    write_features(tmp_path, split="test", n=100)
    study = probed(tmp_path, fractions=[1.0], threshold="youden", calibrate="platt")
    for one in points(study):
        assert (one.chosen, one.omitted, one.point) == ((), 1, None)
        assert "too few cases" in one.reason
    assert any("not scaled" in flag for score in study.scores for flag in score.flags)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"threshold": "youden"}, "--threshold is defined for two classes and for labels, and toy is multiclass"),
        ({"calibrate": "platt"}, "--calibrate temperature"),
        ({"threshold": "best"}, "--threshold is youden"),
        ({"prevalence": 0.1}, "--threshold youden"),
        ({"prevalence": 1.5, "threshold": "youden"}, "--prevalence is between 0 and 1"),
    ],
)
def test_what_is_not_defined_is_refused_before_anything_is_fitted(
    tmp_path: Path, asked: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        probed(made(tmp_path, task="multiclass", n_classes=3), **asked)
    assert not (tmp_path / "scores.sqlite").exists()


def test_several_classes_are_scaled_by_one_temperature(tmp_path: Path) -> None:
    study = probed(made(tmp_path, task="multiclass", n_classes=3), fractions=[0.5], seeds=1, calibrate="temperature")
    assert {score.metric for score in study.scores} == {"accuracy", "log_loss"}
    accuracy = [score.value for score in study.scores if score.metric == "accuracy"]
    assert accuracy[0] == accuracy[1]
    revisions = {score.protocol: score.versions.get("scaling") for score in study.scores}
    assert revisions == {"default": None, "default, temperature": 2}


def test_a_row_is_predicted_by_a_fit_that_did_not_see_its_group() -> None:
    y, groups = np.arange(40) % 2, np.arange(40) // 4
    X: Array = np.arange(40.0)[:, None]
    seen: list[set[int]] = []

    def refit(rows: LabelledRows[Any]) -> Any:
        seen.append(set(rows.groups or ()) if isinstance(rows.groups, list) else set(np.asarray(rows.groups).tolist()))
        return lambda held: np.full(len(held), len(seen) - 1.0)

    p = cross_fitted(LabelledRows(X, y, groups), BudgetTask("binary", 2, 0), refit)
    assert p is not None
    assert len(seen) == 5
    for group, fold in zip(groups.tolist(), p.tolist(), strict=True):
        assert group not in seen[int(fold)]


def test_a_mean_needs_all_of_its_parts(tmp_path: Path) -> None:
    study = probed(made(tmp_path), fractions=[0.5], seeds=1, threshold="youden")
    with store_of(study) as store:
        held, fit = OutOfFold(store), study.scores[0].fit
        own = held.of(fit)
        held.keep_mean("both", [fit, fit])
        held.keep_mean("one", [fit, "unknown"])
        both = held.of("both")
        assert own is not None
        assert both is not None
        np.testing.assert_allclose(both, own)
        assert held.of("one") is None


def test_printed_tables_shorten_lists_of_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = probed(made(tmp_path), protocol="clip", fractions=[0.5], seeds=1, threshold="youden")
    assert study.decisions is not None
    (one,) = points(study)
    both = "efficientnet-lite0 + efficientnet-lite1"
    print_achieved([replace(one, row=f"concat: {both}"), one], study.decisions)
    printed = capsys.readouterr().out
    assert "concat: all 2 models " in printed
    assert printed.count("efficientnet-lite0") == 1, "in the key"
