"""The fusion classifiers behave as scikit-learn's do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from sklearn.model_selection import cross_val_score
from sklearn.utils.estimator_checks import parametrize_with_checks

from mt.errors import FitError, InputError
from mt.fuse.estimators import AverageProbe, ConcatProbe, DVMEClassifier
from tests.fuse.gated import gated


@parametrize_with_checks([DVMEClassifier(width=16, heads=2), ConcatProbe(), AverageProbe()])  # type: ignore[untyped-decorator]
def test_follows_scikit_learn_to_the_letter(estimator: Any, check: Callable[[Any], None]) -> None:
    check(estimator)  # no failure is expected: fit takes no sample weights


class Columns(NamedTuple):
    """Return the embeddings of two models side by side, the labels, each model's columns, and the model to trust."""

    X: np.ndarray
    y: np.ndarray
    groups: list[slice | list[int]]
    gate: np.ndarray


@pytest.fixture(scope="module")
def columns() -> Columns:
    embeddings, y, gate = gated(150)
    names = np.array(["benign", "malignant"])[y]
    return Columns(np.concatenate(embeddings, axis=1), names, [slice(0, 16), list(range(16, 32))], gate)


@pytest.mark.parametrize("kind", [DVMEClassifier, ConcatProbe, AverageProbe])
def test_columns_are_the_models_and_classes_keep_their_names(columns: Columns, kind: Any) -> None:
    X, y, groups, _ = columns
    options = {"recipes": ["start"]} if kind is DVMEClassifier else {}
    model = kind(groups, **options).fit(X, y, groups=np.arange(150) // 2)
    assert set(model.predict(X)) <= set(y)
    p = model.predict_proba(X)
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-6)
    assert (model.predict(X) == model.classes_[p.argmax(axis=1)]).all()
    assert cross_val_score(kind(groups, **options), X, y, cv=2).mean() > 0.6


def test_dvme_at_its_start_is_concatenation_with_logistic_regression(columns: Columns) -> None:
    X, y, groups, _ = columns
    X = np.clip((X - X.mean(axis=0)) / X.std(axis=0), -4, 4)
    X /= X.std(axis=0)  # no column quieter than others, nothing beyond the clip: both read the same
    ours = DVMEClassifier(groups, recipes=["start"]).fit(X, y)
    theirs = ConcatProbe(groups).fit(X, y)
    assert [ours.C_] == theirs.C_
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-3)
    np.testing.assert_allclose(ours.attention(X), 0.5)
    assert (ours.recipe_, ours.epochs_) == ("start", 0)


def test_average_is_the_mean_of_the_single_probes(columns: Columns) -> None:
    X, y, groups, _ = columns
    mean = np.mean([AverageProbe([group]).fit(X, y).predict_proba(X) for group in groups], axis=0)
    np.testing.assert_allclose(AverageProbe(groups).fit(X, y).predict_proba(X), mean, atol=1e-6)


def test_wrong_columns_and_one_class_are_said_in_one_line(columns: Columns) -> None:
    X, y, _, _ = columns
    with pytest.raises(InputError, match="names a column that X, 32 wide, does not have"):
        ConcatProbe([[0, 40]]).fit(X, y)
    with pytest.raises(InputError, match="names no model"):
        ConcatProbe([]).fit(X, y)
    with pytest.raises(FitError, match="one class"):
        ConcatProbe().fit(X, np.zeros(150))
