"""DVME and its baselines as scikit-learn classifiers over concatenated embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from mt.errors import FitError, InputError
from mt.fuse.dvme.fit import DVMEOptions, FittedDVME, fit_dvme
from mt.fuse.dvme.recipes import CHOICES, recipes_of
from mt.probe.protocols import Fitting, Probe, get_protocol
from mt.probe.run import fit_probe
from mt.types import Array, LabelledRows

Columns = Sequence[Sequence[int] | slice]
RandomState = int | np.random.RandomState | None


class _Fused(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """What the three share: columns in groups, one group per model; labels as classes."""

    groups_of_columns: Columns | None
    classes_: Array

    def fit(self, X: Any, y: Any, *, groups: Sequence[object] | None = None) -> Any:
        """Fit on concatenated embeddings (rows, columns) and labels (rows,); folds keep `groups` (rows,) together.

        Raises FitError for labels of one class, InputError for columns that X does not have.
        """
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32, np.float16])
        check_classification_targets(y)
        self.classes_, number = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise FitError(f"{type(self).__name__} needs two classes, found one class: {self.classes_[0]}.")
        task = "binary" if len(self.classes_) == 2 else "multiclass"
        self._fit(self._split(X), number, None if groups is None else np.asarray(groups), task)
        return self

    def predict_proba(self, X: Any) -> Array:
        """Return probabilities (rows, classes)."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=[np.float64, np.float32, np.float16])
        p = self._probabilities(self._split(X)).astype(np.float64)
        return np.column_stack([1 - p, p]) if p.ndim == 1 else p

    def predict(self, X: Any) -> Array:
        """Return the most probable class of each row."""
        p = self.predict_proba(X)
        chosen: Array = self.classes_[p.argmax(axis=1)]
        return chosen

    def _split(self, X: Array) -> list[Array]:
        """Return the columns of each model."""
        groups = self.groups_of_columns
        if groups is None:
            return [X]
        if not len(groups):
            raise InputError("groups_of_columns names no model. Give the columns of each, or None for a single one.")
        try:
            return [X[:, columns if isinstance(columns, slice) else list(columns)] for columns in groups]
        except IndexError as error:
            raise InputError(f"groups_of_columns names a column that X, {X.shape[1]} wide, does not have.") from error

    def _fit(self, X: list[Array], number: Array, groups: Array | None, task: str) -> None:
        raise NotImplementedError

    def _probabilities(self, X: list[Array]) -> Array:
        raise NotImplementedError


def seed_of(random_state: RandomState) -> int:
    """Return a seed from what scikit-learn calls a random state."""
    if isinstance(random_state, (int, np.integer)):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31))


class DVMEClassifier(_Fused):
    """DVME, with its recipe chosen by folds of the training rows.

    Parameters
    ----------
    groups_of_columns : the columns of each model, as slices or lists; None takes all columns as one model.
    recipes : names of recipes; the first is used unless another is better by more than a standard error.
    width : width of the tokens, a multiple of `heads`.  heads : number of attention heads.
    class_weight : None or "balanced".  random_state : seeds folds, starts and batches.
    device : as for torch, or "auto".

    Attributes
    ----------
    classes_, n_features_in_, feature_names_in_ : as in scikit-learn.
    recipe_, epochs_, C_ : the choice.  selection_ : the scores it was made by.  model_ : the fitted network.
    """

    def __init__(
        self,
        groups_of_columns: Columns | None = None,
        *,
        recipes: Sequence[str] = CHOICES["dvme"],
        width: int = 512,
        heads: int = 8,
        class_weight: Literal["balanced"] | None = None,
        random_state: RandomState = 0,
        device: str = "auto",
    ) -> None:
        self.groups_of_columns = groups_of_columns
        self.recipes = recipes
        self.width = width
        self.heads = heads
        self.class_weight = class_weight
        self.random_state = random_state
        self.device = device

    def attention(self, X: Any) -> Array:
        """Return the attention that each model receives for each row: (rows, models), summing to 1."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=[np.float64, np.float32, np.float16])
        return self.model_.predict(self._split(X))[1]

    def _fit(self, X: list[Array], number: Array, groups: Array | None, task: str) -> None:
        options = DVMEOptions(recipes_of(self.recipes), self.class_weight, self.width, self.heads)
        self.model_: FittedDVME = fit_dvme(
            X,
            number,
            task=task,
            n_classes=len(self.classes_),
            groups=groups,
            options=options,
            seed=seed_of(self.random_state),
            device=self.device,
        )
        choice = self.model_.choice
        self.recipe_, self.epochs_, self.C_, self.selection_ = (
            choice.recipe.name,
            choice.epochs,
            choice.C,
            choice.scores,
        )

    def _probabilities(self, X: list[Array]) -> Array:
        return self.model_.probabilities(X)


class AverageProbe(_Fused):
    """The mean of the probabilities of one logistic regression per model, each with the penalty that its folds choose.

    Parameters
    ----------
    groups_of_columns : the columns of each model, as slices or lists; None takes all columns as one model.
    random_state : of the folds.

    Attributes
    ----------
    classes_, n_features_in_, feature_names_in_ : as in scikit-learn.  C_ : the penalty of each probe.
    """

    def __init__(self, groups_of_columns: Columns | None = None, *, random_state: RandomState = 0) -> None:
        self.groups_of_columns = groups_of_columns
        self.random_state = random_state

    def _fit(self, X: list[Array], number: Array, groups: Array | None, task: str) -> None:
        seed, fitting = seed_of(self.random_state), Fitting(get_protocol("default")).on(task, len(self.classes_))
        fitted = [fit_probe(LabelledRows(x, number, groups), fitting, seed=seed) for x in self._models(X)]
        self.probes_: list[Probe] = [one.probe for one in fitted]
        self.C_ = [one.settings["C"] for one in fitted]

    def _probabilities(self, X: list[Array]) -> Array:
        parts = zip(self.probes_, self._models(X), strict=True)
        mean: Array = np.mean([probe.probabilities(x).astype(np.float64) for probe, x in parts], axis=0)
        return mean

    def _models(self, X: list[Array]) -> list[Array]:
        return X


class ConcatProbe(AverageProbe):
    """One logistic regression on all models' columns together, with the penalty that its folds choose.

    Parameters and attributes are those of `AverageProbe`, of a single probe.
    """

    def _models(self, X: list[Array]) -> list[Array]:
        return [np.concatenate(X, axis=1)]
