"""LogisticProbe behaves as scikit-learn's classifiers do."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from mt.errors import FitError
from mt.probe.estimator import EXPECTED_FAILED_CHECKS, LogisticProbe


@parametrize_with_checks(
    [LogisticProbe(), LogisticProbe(C=[0.1, 1.0, 10.0], cv=3)], expected_failed_checks=lambda _: EXPECTED_FAILED_CHECKS
)
def test_follows_scikit_learn_to_the_letter(estimator, check):
    check(estimator)


def test_no_check_is_excused_but_scikit_learns_own_sample_weight_equivalence():
    assert list(EXPECTED_FAILED_CHECKS) == ["check_sample_weight_equivalence_on_dense_data"]


@pytest.mark.parametrize("classes", [["benign", "malignant"], ["a", "b", "c"]])
def test_agrees_with_logistic_regression(classes):
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


def test_chooses_C_by_cross_validation_and_ties_go_to_the_smaller():
    rng = np.random.default_rng(1)
    X = rng.standard_normal((80, 40))
    y = (X[:, 0] + rng.standard_normal(80) > 0).astype(int)
    probe = LogisticProbe(C=[1e3, 1e-2, 1.0, 1e-2]).fit(X, y)
    assert len(probe.log_loss_) == 3
    assert [1e-2, 1.0, 1e3][int(np.argmin(probe.log_loss_))] == probe.C_
    assert probe.C_ < 1e3
    constant = LogisticProbe(C=[1.0, 0.1]).fit(np.ones((20, 3)), np.arange(20) % 2)
    assert constant.C_ == 0.1


def test_takes_C_one_where_no_fold_can_be_held_out():
    X = np.random.default_rng(2).standard_normal((6, 3))
    probe = LogisticProbe(C=[0.1, 10.0]).fit(X, [0, 0, 0, 0, 0, 1])
    assert (probe.C_, probe.log_loss_) == (1.0, None)


def test_folds_keep_groups_together():
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(20), 4)
    X = rng.standard_normal((20, 30))[groups] + 0.01 * rng.standard_normal((80, 30))
    y = rng.integers(0, 2, 20)[groups]
    leaking = LogisticProbe(C=[1e-3, 1e2]).fit(X, y)
    honest = LogisticProbe(C=[1e-3, 1e2]).fit(X, y, groups=groups.tolist())
    assert min(leaking.log_loss_) < 0.2 < min(honest.log_loss_)


def test_works_in_a_pipeline_and_on_named_columns():
    import pandas as pd

    rng = np.random.default_rng(4)
    frame = pd.DataFrame(rng.standard_normal((60, 3)) * [1, 10, 100], columns=["a", "b", "c"])
    y = np.where(frame["a"] > 0, "yes", "no")
    model = make_pipeline(StandardScaler(), LogisticProbe()).fit(frame, y)
    assert model.score(frame, y) > 0.9
    assert LogisticProbe().fit(frame, y).feature_names_in_.tolist() == ["a", "b", "c"]


def test_refuses_one_class():
    with pytest.raises(FitError, match="one class only"):
        LogisticProbe().fit(np.eye(3), ["a", "a", "a"])
