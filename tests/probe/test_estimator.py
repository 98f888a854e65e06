"""LogisticProbe behaves as scikit-learn's classifiers do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import KFold, ShuffleSplit, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from mt.errors import FitError
from mt.probe.estimator import LogisticProbe


def log_losses(probe: LogisticProbe) -> list[float]:
    """Return the cross-validated loss of each C of a probe that chose between several."""
    assert probe.log_loss_ is not None
    return probe.log_loss_


@parametrize_with_checks([LogisticProbe(), LogisticProbe(C=[0.1, 1.0, 10.0], cv=3)])  # type: ignore[untyped-decorator]
def test_follows_scikit_learn_to_the_letter(estimator: Any, check: Callable[[Any], None]) -> None:
    check(estimator)


@pytest.mark.parametrize("C", [1.0, [0.1, 1.0, 10.0]])
@pytest.mark.parametrize("classes", [2, 4])
def test_weights_equal_repeated_rows_at_the_default_tolerance(classes: Any, C: Any) -> None:
    rng = np.random.default_rng(5)
    X, y, weight = rng.standard_normal((80, 12)), rng.integers(0, classes, 80), rng.integers(0, 4, 80)
    fold = np.arange(80) % 3
    repeated, again = np.repeat(np.arange(80), weight), np.repeat(fold, weight)
    ours = LogisticProbe(C=C, cv=splits(fold)).fit(X, y, sample_weight=weight)
    theirs = LogisticProbe(C=C, cv=splits(again)).fit(X[repeated], y[repeated])
    assert ours.C_ == theirs.C_
    assert ours.converged_
    np.testing.assert_allclose(ours.decision_function(X), theirs.decision_function(X), rtol=1e-7, atol=1e-8)
    if ours.log_loss_ is not None:
        np.testing.assert_allclose(log_losses(ours), log_losses(theirs), rtol=1e-6)


def splits(fold: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in np.unique(fold)]


@pytest.mark.parametrize("cv", [KFold(3), splits(np.arange(60) % 3)], ids=["splitter", "pairs"])
def test_takes_scikit_learns_folds(cv: Any) -> None:
    X = np.random.default_rng(6).standard_normal((60, 4))
    y = np.arange(60) % 2
    losses = log_losses(LogisticProbe(C=[0.1, 1.0], cv=cv).fit(X, y))
    for C, loss in zip([0.1, 1.0], losses, strict=True):
        p = cross_val_predict(LogisticRegression(C=C, tol=1e-8), X, y, cv=cv, method="predict_proba")
        assert loss == pytest.approx(log_loss(y, p), rel=1e-5)


def test_refuses_folds_that_test_a_row_twice_or_never() -> None:
    X, y = np.random.default_rng(7).standard_normal((20, 3)), np.arange(20) % 2
    for cv in (ShuffleSplit(3, test_size=0.5, random_state=0), splits(np.arange(20) % 2)[:1]):
        with pytest.raises(FitError, match="test every row once"):
            LogisticProbe(C=[0.1, 1.0], cv=cv).fit(X, y)


def test_random_state_is_scikit_learns() -> None:
    X, y = np.random.default_rng(8).standard_normal((60, 4)), np.arange(60) % 2

    def losses(random_state: Any) -> list[float]:
        return log_losses(LogisticProbe(C=[0.1, 1.0], random_state=random_state).fit(X, y))

    assert losses(3) == losses(3) != losses(4)
    state = np.random.RandomState(0)
    assert losses(np.random.RandomState(0)) == losses(state) != losses(state)
    assert losses(None) != losses(None)


@pytest.mark.parametrize("classes", [["benign", "malignant"], ["a", "b", "c"]])
def test_agrees_with_logistic_regression(classes: Any) -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((150, 10))
    y = np.array(classes)[np.abs(X[:, :3] + rng.standard_normal((150, 3))).argmax(1) % len(classes)]
    weight = rng.random(150)
    balance = {name: 1.0 + i for i, name in enumerate(classes)}
    ours = LogisticProbe(C=0.3, class_weight=balance).fit(X, y, sample_weight=weight)
    theirs = LogisticRegression(C=0.3, class_weight=balance, tol=1e-8).fit(X, y, sample_weight=weight)
    assert ours.coef_.shape == theirs.coef_.shape
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-3)
    np.testing.assert_allclose(ours.decision_function(X), theirs.decision_function(X), atol=1e-2)
    assert (ours.predict(X) == theirs.predict(X)).mean() > 0.99


def test_chooses_C_by_cross_validation_and_ties_go_to_the_smaller() -> None:
    rng = np.random.default_rng(1)
    X = rng.standard_normal((80, 40))
    y = (X[:, 0] + rng.standard_normal(80) > 0).astype(int)
    probe = LogisticProbe(C=[1e3, 1e-2, 1.0, 1e-2]).fit(X, y)
    assert len(log_losses(probe)) == 3
    assert [1e-2, 1.0, 1e3][int(np.argmin(log_losses(probe)))] == probe.C_
    assert probe.C_ < 1e3
    constant = LogisticProbe(C=[1.0, 0.1]).fit(np.ones((20, 3)), np.arange(20) % 2)
    assert constant.C_ == 0.1


def test_takes_C_one_where_no_fold_can_be_held_out() -> None:
    X = np.random.default_rng(2).standard_normal((6, 3))
    probe = LogisticProbe(C=[0.1, 10.0]).fit(X, [0, 0, 0, 0, 0, 1])
    assert (probe.C_, probe.log_loss_) == (1.0, None)


def test_folds_keep_groups_together() -> None:
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(20), 4)
    X = rng.standard_normal((20, 30))[groups] + 0.01 * rng.standard_normal((80, 30))
    y = rng.integers(0, 2, 20)[groups]
    leaking = LogisticProbe(C=[1e-3, 1e2]).fit(X, y)
    honest = LogisticProbe(C=[1e-3, 1e2]).fit(X, y, groups=groups.tolist())
    assert min(log_losses(leaking)) < 0.2 < min(log_losses(honest))


def test_works_in_a_pipeline_and_on_named_columns() -> None:
    import pandas as pd

    rng = np.random.default_rng(4)
    frame = pd.DataFrame(rng.standard_normal((60, 3)) * [1, 10, 100], columns=["a", "b", "c"])
    y = np.where(frame["a"] > 0, "yes", "no")
    model = make_pipeline(StandardScaler(), LogisticProbe()).fit(frame, y)
    assert model.score(frame, y) > 0.9
    assert LogisticProbe().fit(frame, y).feature_names_in_.tolist() == ["a", "b", "c"]


def test_refuses_one_class() -> None:
    with pytest.raises(FitError, match="one class only"):
        LogisticProbe().fit(np.eye(3), ["a", "a", "a"])
