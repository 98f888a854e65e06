"""A threshold is the best of all cuts by its rule, and there is none where a class has fewer than two cases."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mt.errors import InputError
from mt.probe.decisions.thresholds import Threshold, ThresholdRule, choose

Y = np.array([0, 0, 0, 1, 0, 1, 1, 1])
P = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8])


@pytest.mark.parametrize(
    ("text", "threshold", "sensitivity", "specificity"),
    [
        ("youden", 0.55, 0.75, 1.0),  # equal to 0.35, with 1 and 0.75: of two the upper is in the middle
        ("sensitivity:0.95", 0.35, 1.0, 0.75),
        ("sensitivity:0.7", 0.55, 0.75, 1.0),
        ("specificity:0.95", 0.55, 0.75, 1.0),
        ("specificity:0.5", 0.25, 1.0, 0.5),
        ("cost:10", 0.35, 1.0, 0.75),
        ("cost:0.1", 0.55, 0.75, 1.0),
    ],
)
def test_a_rule_chooses_the_best_cut(text: str, threshold: float, sensitivity: float, specificity: float) -> None:
    found = choose(ThresholdRule.parse(text), Y, P)
    assert found.value == pytest.approx(threshold)
    assert found == Threshold(found.value, sensitivity, specificity)
    assert Threshold.of(found.facts()) == found


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "best",
        "youden:1",
        "sensitivity",
        "sensitivity:0",
        "specificity:1.5",
        "cost:x",
        "cost:-1",
        "cost:inf",
        "cost:nan",
    ],
)
def test_another_rule_is_refused_with_those_there_are(wrong: str) -> None:
    with pytest.raises(InputError, match="youden, sensitivity:S, specificity:S or cost:R"):
        ThresholdRule.parse(wrong)


@pytest.mark.parametrize("positives", [0, 1])
def test_without_two_cases_of_a_class_there_is_none(positives: int) -> None:
    y = np.zeros(20, dtype=int)
    y[:positives] = 1
    for labels in (y, 1 - y):
        found = choose(ThresholdRule("youden"), labels, np.linspace(0, 1, 20))
        assert found.value is None
        assert "fewer than 2 cases per class" in found.reason


def test_rows_without_a_score_or_a_label_do_not_count() -> None:
    p = np.concatenate([P, [np.nan, 0.9]])
    y = np.concatenate([Y, [1, -1]])
    for rule in ("youden", "cost:3", "sensitivity:0.9"):
        assert choose(ThresholdRule.parse(rule), y, p) == choose(ThresholdRule.parse(rule), Y, P)


@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0])), min_size=4, max_size=30),
    st.sampled_from(["youden", "sensitivity:0.9", "specificity:0.9", "specificity:1", "cost:5"]),
)
def test_no_other_threshold_does_better_out_of_fold(cases: list[tuple[bool, float]], text: str) -> None:
    y, p = np.array([int(one) for one, _ in cases]), np.array([score for _, score in cases])
    rule = ThresholdRule.parse(text)
    found = choose(rule, y, p)
    if min(y.sum(), (1 - y).sum()) < 2:
        assert found.value is None
        return
    assert found.value is not None

    def rates(t: float) -> tuple[float, float]:
        return float((p[y == 1] >= t).mean()), float((p[y == 0] < t).mean())

    assert rates(found.value) == pytest.approx((found.sensitivity, found.specificity))

    def worth(sensitivity: float, specificity: float) -> float:
        if rule.kind == "youden":
            return sensitivity + specificity
        if rule.kind == "cost":
            return -rule.number * (1 - sensitivity) * float(y.sum()) - (1 - specificity) * float((1 - y).sum())
        own, other = (sensitivity, specificity) if rule.kind == "sensitivity" else (specificity, sensitivity)
        return other if own >= rule.number - 1e-12 else -1.0

    best = max(worth(*rates(t)) for t in np.linspace(-0.01, 1.01, 205))
    assert worth(*rates(found.value)) == pytest.approx(best)
