"""The methods text states what was decided and contrasted: draws, protocols, thresholds, subgroups, external tests."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mt.probe.protocols import PROTOCOLS
from mt.report import collect
from mt.report.paper.methods_text import methods
from mt.results.store import ScoreStore
from tests.probe.features import QUICK, probed, store_of, write_features
from tests.report.stores import N_TRAIN, filled, outcome_of


def text_of(store: ScoreStore) -> str:
    """Return the methods text of a store, after a check that its citations and its references agree."""
    text, references, _ = methods(store, collect(store), None)
    cited = set(re.findall(r"@([\w-]+)", text))
    assert set(re.findall(r"^@\w+\{([^,]+),", references, re.MULTILINE)) == cited
    return text


def test_the_rule_of_thresholds_and_the_prevalence_are_stated(tmp_path: Path) -> None:
    write_features(tmp_path)
    write_features(tmp_path, split="test", n=80)
    with store_of(probed(tmp_path, **QUICK, threshold="sensitivity:0.9", prevalence=0.02)) as store:
        text = text_of(store)
    assert (
        "Thresholds were chosen by the rule sensitivity:0.9, the highest threshold with a sensitivity of at least 0.9, "
        "on out-of-fold scores of the label budget: "
    ) in text
    assert "Predictive values are also for a prevalence of 2 %." in text
    with store_of(probed(tmp_path, **QUICK, threshold="youden")) as store:
        text = text_of(store)
    assert "the rule youden, the largest sensitivity + specificity (Youden's index [@youden1950index])" in text
    assert "prevalence of" not in text, "the last run asked for none"


def test_thresholds_that_are_absent_are_counted_with_the_reason(tmp_path: Path) -> None:
    write_features(tmp_path)
    write_features(tmp_path, split="test", n=80)
    probed(tmp_path, **QUICK)
    filled_later = {**QUICK, "models": ["m2"]}
    write_features(tmp_path, model="m2")
    write_features(tmp_path, model="m2", split="test", n=80)
    with store_of(probed(tmp_path, **filled_later, threshold="youden")) as store:
        text = text_of(store)
    assert re.search(r"Without a threshold: \d+ \(no out-of-fold scores are stored; ", text)


def test_differences_of_subgroups_are_stated(tmp_path: Path) -> None:
    write_features(tmp_path)
    write_features(tmp_path, split="test", n=200, columns={"sex": ["F", "M"] * 100})
    with store_of(probed(tmp_path, **QUICK)) as store:
        assert "Subgroups" not in text_of(store)
    with store_of(probed(tmp_path, **QUICK, by="sex")) as store:
        text = text_of(store)
    assert re.search(
        r"Subgroups of sex were compared: differences of ROC AUC \(F - M\) for 1 method at \d budget", text
    )
    assert re.search(r"After correction \d of \d intervals? exclude 0\.", text)


def test_internal_against_external_tests_are_stated(tmp_path: Path) -> None:
    for dataset, split in (("here", "train"), ("here", "test"), ("there", "test")):
        write_features(tmp_path, dataset, split=split, n=100)
    with store_of(probed(tmp_path, **QUICK, datasets=["here"], test_dataset="there")) as store:
        assert "No internal test of the same fits is stored." in text_of(store)
    probed(tmp_path, **QUICK, datasets=["here"])
    with store_of(probed(tmp_path, **QUICK, datasets=["here"], test_dataset="there")) as store:
        text = text_of(store)
    (sentence,) = re.findall(r"Internal and external test: .*?\[@holm1979simple\]\.", text)
    assert "ROC AUC on the test split of the training dataset minus that on there, of the same draws" in sentence


def test_draws_of_two_kinds_name_their_rows(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    assert "Draws were cases, stratified" in text_of(filled(path, models={"simclr": 0.6}, budgets=(0.1,)))
    realised = {**outcome_of("binary", ("a", "b"), N_TRAIN // 10)["realised"], "draw": "random"}
    store = filled(path, models={"simclr": 0.6}, budgets=(0.1,), code=2, outcome={"realised": realised})
    panels = collect(store, names=["simclr"])
    text = methods(store, panels, None)[0]
    stratified, drawn = (re.findall(rf"Draws of “([^”]*)” were {how}", text) for how in ("cases, stratified", "random"))
    assert {*stratified, *drawn} == set(panels[0].names)
    assert "random draws" in drawn[0]
    assert "Draws were" not in text


def test_the_hash_of_every_protocol_that_was_fitted_is_stated(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    versions = {"protocol": PROTOCOLS["default"].fingerprint[:12], "fuse": 6}
    filled(path, models={"a + b": 1.0}, method="concat", outcome={"versions": versions})
    hashed = {**versions, "blend-four": PROTOCOLS["blend-four"].fingerprint[:12]}
    store = filled(path, models={"a + b": 1.2}, method="blend", outcome={"versions": hashed})
    text = text_of(store)
    for name, row in (("default", "concat: a + b"), ("blend-four", "blend: a + b")):
        (sentence,) = re.findall(
            rf"Protocol {name} \(hash {PROTOCOLS[name].fingerprint[:12]}\): .*?Rows: ([^.]*)\.", text
        )
        assert sentence == f"“{row}”"
    assert "protocol d" not in text, "the list of software holds no hash"


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_a_blend_without_lda_is_stated(tmp_path: Path, task: str) -> None:
    n_classes = 2 if task == "binary" else 3
    for split, n in (("train", 90), ("test", 80)):
        write_features(tmp_path, split=split, n=n, task=task, n_classes=n_classes)
    with store_of(probed(tmp_path, fractions=[0.5], seeds=1, protocol="blend")) as store:
        text = text_of(store)
    assert ("Here it was logistic regression alone, without LDA." in text) == (task == "binary")


def test_a_blend_without_lda_at_one_budget_is_stated_for_that_budget(tmp_path: Path) -> None:
    flags = {**outcome_of("binary", ("normal", "tumour"), 4), "protocol": "blend", "flags": ["no_lda"]}
    filled(tmp_path / "s.sqlite", budgets=(0.01,), outcome=flags)
    store = filled(tmp_path / "s.sqlite", budgets=(0.1, 1.0), outcome={"protocol": "blend"})
    assert " At 1 % it was logistic regression alone, without LDA." in text_of(store)


def test_draws_over_test_folds_are_called_so(tmp_path: Path) -> None:
    write_features(tmp_path)
    write_features(tmp_path, split="test", n=80)
    with store_of(probed(tmp_path, fractions=[0.5], seeds=1, test_folds=3)) as store:
        text = text_of(store)
    assert "were tested out of fold (3-fold)." in text
    assert "| 50 %, draw 0, all test folds |" in text


def test_a_hash_that_is_not_stored_is_not_made_up(tmp_path: Path) -> None:
    store = filled(tmp_path / "s.sqlite", models={"a + b": 1.2}, method="blend", outcome={"versions": {"fuse": 6}})
    assert "Protocol blend-four (hash not stored): " in text_of(store)
    old = filled(tmp_path / "t.sqlite", models={"a": 1.2}, outcome={"versions": {"protocol": "0123456789ab"}})
    assert "Protocol default (hash 0123456789ab, of another version of mt)." in text_of(old)
