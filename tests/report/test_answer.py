"""The sentences on the first screen say what the numbers say, on stores whose right answers are known."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mt.probe.questions import Budget
from mt.probe.scores.score_tables import comparisons
from mt.report import ReportRequest, collect, write_report
from mt.report.answer.findings import BudgetAnswer, answers, leading
from mt.report.answer.sentences import overview, sentence
from mt.report.labels_needed import Needed
from mt.report.panels import Panel, as_grid
from mt.report.short_names import ShortNames
from tests.report.stores import filled

TOGETHER = "simclr + swav"
KAPPA = {"task": "ordinal", "class_names": ("none", "mild", "severe")}
LABELS = {"task": "multilabel", "class_names": ("Mass", "Nodule")}


def answered(path: Path, **asked: Any) -> tuple[Panel, list[BudgetAnswer]]:
    """Return the only panel of a store of single models, and its answers."""
    store = filled(path, **asked)
    (panel,) = collect(store)
    return panel, answers(store, panel)


def fused(path: Path, fusion: Mapping[str, float], **asked: Any) -> tuple[Panel, list[BudgetAnswer]]:
    """Return the same of a store that also holds methods on both models, by strength."""
    for method, strength in fusion.items():
        filled(path, models={TOGETHER: strength}, method=method, **asked)
    return answered(path, models={"simclr": 0.6, "swav": 0.9}, **asked)


def said(panel: Panel, found: list[BudgetAnswer]) -> str:
    one = sentence(found, ShortNames.of([panel]))
    return f"{one.text} {one.verdict}"


@pytest.mark.parametrize(
    ("asked", "metric"),
    [({}, "ROC AUC"), (KAPPA, "quadratic weighted kappa"), (LABELS, "mean ROC AUC")],
    ids=["binary", "ordinal", "multilabel"],
)
def test_the_best_model_is_the_one_with_the_highest_mean(tmp_path: Path, asked: dict[str, Any], metric: str) -> None:
    panel, found = answered(tmp_path / "s.sqlite", **asked)
    assert [one.labels for one in found] == [3, 30, 300]
    for one in found:
        cells = [cell for cell in panel.headline if cell.budget == one.budget]
        means = {cell.name: sum(cell.by_seed.values()) / len(cell.scores) for cell in cells}
        assert [cell.name for cell in one.best] == [max(means, key=lambda name: means[name])]
        assert one.ranks == {name: 1 + sum(m > mean for m in means.values()) for name, mean in means.items()}
    best = found[0].best[0]
    assert said(panel, found).startswith(
        f"dino is best at 3 labels, {metric} {best.mean:.3f} [{best.low:.3f}, {best.high:.3f}]; fusing was not tried."
    )


def test_what_is_better_for_certain_and_what_is_not(tmp_path: Path) -> None:
    panel, found = answered(tmp_path / "far.sqlite", models={"a": 0.1, "bb": 0.1, "ccc": 2.0})
    assert "ccc is significantly better than each of the 2 other models." in said(panel, found)
    panel, found = answered(tmp_path / "near.sqlite", models={"aaaa": 0.1, "bb": 1.1, "ccc": 1.1})
    best, level = ("bb", "ccc") if found[0].best[0].name == "bb" else ("ccc", "bb")
    assert f"Of 2 other models, {level} cannot be distinguished from {best}." in said(panel, found)


def test_models_of_one_mean_are_both_named(tmp_path: Path) -> None:
    panel, found = answered(tmp_path / "s.sqlite", models={"dino": 0.9, "swav": 0.9, "simclr": 0.2})
    assert said(panel, found).startswith("dino and swav are best at 3 labels")
    assert "dino and swav have the same mean." in said(panel, found)
    names = ShortNames.of([panel])
    order, rows = overview([found], names)
    assert order[:2] == ["dino", "swav"]
    assert rows[0].ranks[:3] == ("1=", "1=", "3")


def test_fusion_is_compared_with_the_model_chosen_inside_the_budget(tmp_path: Path) -> None:
    panel, found = fused(tmp_path / "s.sqlite", {"dvme": 1.6, "concat": 1.3, "best-single": 0.7})
    one = found[0]
    assert one.gain is not None
    assert (one.gain.fused.method.method, one.gain.base.method.method) == ("dvme", "best-single")
    assert one.gain.value == one.gain.fused.mean - one.gain.base.mean > 0
    points = [(cell.n_labels, cell.mean) for cell in panel.curve(one.gain.base.name)]
    assert one.gain.more == by_hand(points, one.gain.fused.mean) - 3
    assert "best-single of 2" not in rank_names(panel, found)
    assert f"fusing (dvme of 2) gains {one.gain.value:+.3f} [" in said(panel, found)
    assert f"; {one.gain.more} more labels would gain that model as much as fusing." in said(panel, found)


def test_a_gain_names_what_it_is_over_where_the_best_model_is_another(tmp_path: Path) -> None:
    """Beside the best model's score, the gain alone would read as one over it."""
    panel, found = fused(tmp_path / "s.sqlite", {"dvme": 1.0, "best-single": 0.6}, n_test=300)
    gain, best = found[1].gain, found[1].best[0]
    assert gain is not None
    assert gain.base.mean < best.mean
    assert f"{gain.base_score + gain.value:.6f}" == f"{gain.fused.mean:.6f}"
    over = f"] over the model chosen inside the budget ({gain.base.mean:.3f})"
    assert over in sentence(found[1:2], ShortNames.of([panel])).text
    _, rows = overview([found], ShortNames.of([panel]))
    assert rows[1].over == f"over {gain.base.mean:.3f}"


def test_the_score_of_the_base_is_that_of_the_shared_draws(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    filled(path, models={TOGETHER: 0.7}, method="best-single", seeds=3)
    _, found = fused(path, {"dvme": 1.6}, seeds=2)
    gain = found[0].gain
    assert gain is not None
    assert (len(gain.base.scores), len(gain.fused.scores)) == (3, 2)
    assert gain.base_score != gain.base.mean
    assert gain.base_score + gain.value == pytest.approx(gain.fused.mean)


def by_hand(points: list[tuple[int, float]], target: float) -> int:
    """Return where a rising curve reaches a target, straight on the log axis."""
    for (n0, s0), (n1, s1) in itertools.pairwise(points):
        if s1 >= target:
            return math.ceil(n0 * math.pow(n1 / n0, (target - s0) / (s1 - s0)) - 1e-9)
    raise AssertionError("not reached")


def rank_names(panel: Panel, found: list[BudgetAnswer]) -> list[str]:
    names = ShortNames.of([panel])
    return [names(name) for name in overview([found], names)[0]]


def test_the_interval_of_a_gain_is_the_stores_comparison(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    _, found = fused(path, {"dvme": 1.6, "best-single": 0.7})
    gain = found[1].gain
    assert gain is not None
    (pair,) = comparisons([as_grid([gain.fused, gain.base])], filled(path, models={}, budgets=()))
    assert (gain.value, gain.low, gain.high) == (pair.difference, pair.low, pair.high)
    assert gain.significant is (pair.p <= 0.05)


def test_a_loss_is_called_one(tmp_path: Path) -> None:
    panel, found = fused(tmp_path / "s.sqlite", {"dvme": 0.1, "best-single": 1.3})
    gain = found[0].gain
    assert gain is not None
    assert gain.value < 0
    assert f"fusing (dvme of 2) loses {gain.value:+.3f} [" in said(panel, found)
    assert "would gain" not in said(panel, found)


def test_without_a_choice_inside_the_budget_the_base_is_named(tmp_path: Path) -> None:
    panel, found = fused(tmp_path / "s.sqlite", {"concat": 1.5})
    assert "fusing (concat of 2) gains" in said(panel, found)
    (base,) = (cell.mean for cell in panel.headline if cell.name == "swav" and cell.budget == found[0].budget)
    assert f" over swav, which the test cases chose ({base:.3f})" in said(panel, found)


GAINS = [
    ({"value": 0.03, "low": -0.01, "high": 0.08}, "gains +0.030 [-0.010, +0.080] over BASE, not significant"),
    ({"value": 0.03, "low": 0.01, "high": 0.08}, "gains +0.030 [+0.010, +0.080] over BASE;"),
    ({"value": -0.02, "low": -0.04, "high": -0.01}, "loses -0.020 [-0.040, -0.010] against BASE."),
    (
        {"value": 0.0, "low": -0.01, "high": 0.01},
        "changes nothing, +0.000 [-0.010, +0.010] against BASE, not significant.",
    ),
    ({"value": 0.03, "low": math.nan, "high": math.nan}, "gains +0.030 over BASE, without an interval"),
    ({"reached": Needed(123)}, "120 more labels would gain that model as much as fusing."),
    ({"reached": Needed(4)}, "1 more label would gain that model as much as fusing."),
    ({"reached": Needed(300, ">")}, "even 297 more labels would not gain that model as much as fusing."),
    (
        {"reached": Needed(3, ">")},
        "no larger budget was measured, so it is unknown how many labels would gain that model as much as fusing.",
    ),
    ({"reached": Needed(3, "≤")}, " over BASE."),
    ({"reached": None}, " over BASE."),
]


@pytest.mark.parametrize(("changed", "words"), GAINS, ids=range(len(GAINS)))
def test_the_words_of_a_gain(tmp_path: Path, changed: dict[str, Any], words: str) -> None:
    panel, found = fused(tmp_path / "s.sqlite", {"dvme": 1.6, "best-single": 0.7}, seeds=2, n_test=60)
    gain = found[0].gain
    assert gain is not None
    text = sentence([replace(found[0], gain=replace(gain, **changed))], ShortNames.of([panel])).text
    words = words.replace("BASE", f"the model chosen inside the budget ({gain.base.mean:.3f})")
    assert words in text
    assert text.endswith(words) or not words.endswith(".")


def test_one_draw_tells_nothing_but_all_labels_are_one_draw(tmp_path: Path) -> None:
    panel, found = answered(tmp_path / "s.sqlite", seeds=1)
    assert [bool(one.doubts) for one in found] == [True, True, False]
    assert leading(found).labels == 300
    text = "Nothing can be concluded at 3 and 30 labels: there is one draw of the labels"
    assert text in said(panel, found)
    few, found = answered(tmp_path / "few.sqlite", seeds=1, budgets=(0.1,))
    assert "dino is best at 30 labels" in said(few, found)
    assert not sentence(found, ShortNames.of([few])).conclusive


def test_few_test_cases_tell_nothing(tmp_path: Path) -> None:
    panel, found = answered(tmp_path / "s.sqlite", n_test=30)
    assert all(one.doubts for one in found)
    assert "Nothing can be concluded at 3 labels: there are fewer than 20 test groups of the rarest class" in said(
        panel, found
    )


def test_one_model_alone_is_not_called_best(tmp_path: Path) -> None:
    panel, found = answered(tmp_path / "s.sqlite", models={"dino": 1.0})
    assert said(panel, found).startswith("dino is the only model at 3 labels, ROC AUC")
    assert "one model has nothing to be compared with" in said(panel, found)


def test_models_on_other_test_cases_are_no_pair(tmp_path: Path) -> None:
    filled(tmp_path / "s.sqlite", models={"swav": 1.0}, n_test=90)
    panel, found = answered(tmp_path / "s.sqlite", models={"dino": 1.2})
    assert "no two models share draws and test cases" in said(panel, found)


def test_a_score_that_is_not_defined_has_no_best(tmp_path: Path) -> None:
    panel, found = answered(tmp_path / "s.sqlite", one_class=True)
    assert said(panel, found).startswith("no best model at 3 labels")
    assert "the score is not defined on these test cases" in said(panel, found)


def test_fusion_on_other_test_cases_is_not_compared(tmp_path: Path) -> None:
    filled(tmp_path / "s.sqlite", models={TOGETHER: 1.5}, method="dvme", n_test=90)
    panel, found = answered(tmp_path / "s.sqlite", models={"simclr": 0.6, "swav": 0.9})
    assert "what fusing gains cannot be concluded" in said(panel, found)


def test_the_page_says_it_before_the_filters(look: Any, tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>"
    store = filled(tmp_path / "s.sqlite", dataset=f"folder:{hostile}", seeds=2)
    page = look(write_report(store, ReportRequest(tmp_path / "r.html", export=False)).page)
    (panel,) = collect(store)
    text = page.locator("#answer li").inner_text()
    assert sentence(answers(store, panel), ShortNames.of([panel])).text in text
    assert hostile in text
    tops = [page.locator(one).bounding_box()["y"] for one in ("#answer", "#overview", "#filters")]
    assert tops == sorted(tops)
    assert page.locator("#answer li").bounding_box()["y"] < 400


@pytest.mark.parametrize("width", [390, 1280])
def test_on_a_phone_the_score_stands_in_the_first_column(look: Any, tmp_path: Path, width: int) -> None:
    store = filled(tmp_path / "s.sqlite", seeds=2)
    page = look(write_report(store, ReportRequest(tmp_path / "r.html", export=False)).page, width=width)
    (panel,) = collect(store)
    best = answers(store, panel)[0].best[0]
    for table in ("#overview", "#scores"):
        first = page.locator(f"{table} tbody th").first.inner_text()
        assert ("0." in first) is (width == 390)
    assert (f"{best.mean:.3f}" in page.locator("#overview tbody th").first.inner_text()) is (width == 390)


def test_budgets_of_shots_have_answers(tmp_path: Path) -> None:
    _, found = answered(tmp_path / "s.sqlite")
    assert [one.budget for one in found] == [Budget(0.01), Budget(0.1), Budget(1.0)]


def test_scaled_probabilities_are_not_another_model(tmp_path: Path) -> None:
    """The scaled row has the same ROC AUC: it would share the first rank, and stand in the sentence twice."""
    path = tmp_path / "s.sqlite"
    filled(path, code=2, outcome={"protocol": "default, temperature"})
    panel, found = answered(path)
    assert any(name.endswith("temperature") for name in panel.names)
    for one in found:
        assert one.others == 2
        assert sorted(one.ranks.values()) == [1, 2, 3]
        assert not any("temperature" in name for name in one.ranks)
    assert "temperature" not in said(panel, found)
