"""Every public statistic refuses what it cannot score, in one line that says why."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

import mt
from mt.errors import InputError
from mt.probe.scores.calibration import MEASURES, calibration_curve
from mt.probe.scores.metrics import METRICS, per_class, score
from mt.probe.scores.rank_metrics import obuchowski

N = 40
RNG = np.random.default_rng(0)
Y = np.repeat([0, 1], N // 2)
P = np.clip(0.4 + 0.2 * Y + 0.2 * RNG.normal(size=N), 0.01, 0.99)
LABELS, SEVERAL = RNG.integers(0, 2, (N, 3)), RNG.random((N, 3))
CLASSES, SHARES = RNG.integers(0, 3, N), RNG.dirichlet([1, 1, 1], N)

Statistic = Callable[..., Any]
STATISTICS: dict[str, Statistic] = {
    "calibration": mt.calibration,
    "calibration_curve": calibration_curve,
    "operating_point": lambda y, p, **options: mt.operating_point(y, p, 0.5, **options),
    "decision_curve": mt.decision_curve,
    "obuchowski": lambda y, p, groups=None, level=0.95: obuchowski(y, p, groups),
    **{f"interval {name}": partial(mt.interval, name) for name in [*METRICS, *MEASURES]},
}
OF_ONE_LABEL = ["calibration", "calibration_curve", *(f"interval {name}" for name in MEASURES)]


def _with(values: np.ndarray, wrong: float) -> np.ndarray:
    return np.append(values[:-1].astype(float), wrong)


@pytest.mark.parametrize("name", STATISTICS)
@pytest.mark.parametrize(
    ("y", "p"),
    [
        pytest.param(1, 0.5, id="scalars"),
        pytest.param([], [], id="empty"),
        pytest.param(np.zeros((0, 3)), np.zeros((0, 3)), id="no rows"),
        pytest.param(Y, P[:-1], id="another length"),
        pytest.param(Y, P[:, None], id="one column"),
        pytest.param(Y, np.zeros((N, 0)), id="no columns"),
        pytest.param(Y, RNG.random((N, 2, 2)), id="three axes"),
        pytest.param(RNG.integers(0, 2, (N, 2, 2)), RNG.random((N, 2, 2)), id="three axes twice"),
        pytest.param(Y, [[0.1, 0.2]] * (N - 1) + [[0.3]], id="ragged"),
        pytest.param(Y, np.full(N, "x"), id="text"),
        pytest.param(Y, P + 0j, id="complex"),
        pytest.param(Y, _with(P, np.nan), id="NaN"),
        pytest.param(_with(Y, np.nan), P, id="NaN labels"),
        pytest.param(np.where(Y, 1, -1), P, id="a class -1"),
        pytest.param(np.where(Y, "b", "a"), P, id="names of classes"),
    ],
)
def test_what_is_not_labels_and_predictions_is_refused(name: str, y: Any, p: Any) -> None:
    with pytest.raises(InputError):
        STATISTICS[name](y, p)


@pytest.mark.parametrize("name", OF_ONE_LABEL)
def test_calibration_takes_one_label(name: str) -> None:
    with pytest.raises(InputError, match="calibration takes one label at a time"):
        STATISTICS[name](LABELS, SEVERAL)


@pytest.mark.parametrize("name", OF_ONE_LABEL)
@pytest.mark.parametrize(("p", "message"), [(3 * P, "must lie in"), (np.log(P / (1 - P)), "must lie in")])
def test_calibration_takes_probabilities(name: str, p: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        STATISTICS[name](Y, p)


@pytest.mark.parametrize("name", [*OF_ONE_LABEL, "interval log_loss", "interval ece"])
def test_a_case_whose_classes_all_have_probability_0_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="all 0"):
        STATISTICS[name](CLASSES, SHARES * (np.arange(N) > 0)[:, None])


@pytest.mark.parametrize("name", ["roc_auc", "log_loss", "mean_auc", "macro_auc"])
def test_scores_of_another_task_are_refused(name: str) -> None:
    tasks = {"binary": (Y, P), "multilabel": (LABELS, SEVERAL), "multiclass": (CLASSES, SHARES)}
    for task, (y, p) in tasks.items():
        if task in METRICS[name].tasks:
            assert np.isfinite(score(name, y, p))
            continue
        with pytest.raises(InputError, match="is a metric of"):
            score(name, y, p)


@pytest.mark.parametrize("name", ["calibration", "calibration_curve", "operating_point", "interval roc_auc"])
@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (np.arange(3), "40 cases, 3 groups"),
        (np.zeros((N, 1)), "one group per case"),
        (_with(np.arange(N), np.nan), "1 case has no group"),
        ([None, None, *"ab" * 19], "2 cases have no group"),
    ],
)
def test_every_case_has_one_group(name: str, groups: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        STATISTICS[name](Y, P, groups=groups)


@pytest.mark.parametrize("name", [name for name in STATISTICS if name not in ("obuchowski", "interval ece")])
@pytest.mark.parametrize("level", [0.0, 1.0, 95, np.nan])
def test_a_level_is_a_share(name: str, level: float) -> None:
    with pytest.raises(InputError, match="level is between 0 and 1"):
        STATISTICS[name](Y, P, level=level)


@pytest.mark.parametrize("y", [np.zeros(N, dtype=int), np.ones(N, dtype=int)])
def test_one_class_has_no_curve_and_no_slope(y: np.ndarray) -> None:
    assert not len(calibration_curve(y, P)["p"])
    assert mt.calibration(y, P).slope.reason


def test_thresholds_and_points_are_numbers_in_range() -> None:
    with pytest.raises(InputError, match="threshold is NaN"):
        mt.operating_point(Y, P, np.nan)
    with pytest.raises(InputError, match="between 0 and 1, both excluded"):
        mt.decision_curve(Y, P, thresholds=[0.1, np.nan])
    with pytest.raises(InputError, match="at least 2 points"):
        calibration_curve(Y, P, points=1)
    with pytest.raises(InputError, match="no scores"):
        obuchowski(Y, np.zeros((0, N)), None)
    with pytest.raises(InputError, match="must be finite"):
        obuchowski(Y, [P, _with(P, np.nan)], None)


def test_scores_per_class_need_a_column_per_class() -> None:
    assert len(per_class("mean_auc", CLASSES, SHARES)) == 3
    with pytest.raises(InputError, match="a column for each"):
        per_class("mean_auc", Y, P)
