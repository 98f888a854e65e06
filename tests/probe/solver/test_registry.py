"""Every solver of the registry answers the same interface with the same optimum."""

from __future__ import annotations

import sys
import types
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from mt.errors import FitError, InputError, MissingExtraError
from mt.probe.solver.api import solve_folds, solve_paths, solve_refits
from mt.probe.solver.fits import LogisticPath, probabilities
from mt.probe.solver.request import SOLVERS, ClassWeight, LogisticRequest, Solver, get_solver
from tests.noting import noted

CS = [1e-3, 0.3, 30.0]
RNG = np.random.default_rng(0)
X = RNG.standard_normal((90, 7)).astype(np.float32)
FOLD = np.arange(90) % 3
TARGETS = {
    "binary": (X[:, 0] + RNG.standard_normal(90) > 0).astype(int),
    "multiclass": (X[:, :3] + RNG.standard_normal((90, 3))).argmax(1),
    "ordinal": np.clip(np.round(X[:, 0] + 1.5 + RNG.standard_normal(90) / 2), 0, 3).astype(int),
    "multilabel": (X[:, :4] + RNG.standard_normal((90, 4)) > 0).astype(int),
}


def path_of(solver: Solver, y: np.ndarray, Cs: Sequence[float] = CS, **options: Any) -> LogisticPath:
    return solve_paths([LogisticRequest(X, y, Cs, **options)], solver)[0]


@pytest.fixture(params=["sklearn", "cuml"])
def other(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Solver:
    """The solvers that fit one problem at a time; cuML is played by scikit-learn, whose interface it copies."""
    if request.param == "cuml":

        class Stand(LogisticRegression):  # type: ignore[misc]  # scikit-learn has no types
            def __init__(
                self, C: float = 1.0, tol: float = 1e-4, max_iter: int = 1000, output_type: str | None = None
            ) -> None:
                super().__init__(C=C, tol=tol, max_iter=max_iter)
                self.output_type = output_type

        module = types.ModuleType("cuml.linear_model")
        vars(module)["LogisticRegression"] = Stand
        monkeypatch.setitem(sys.modules, "cuml", types.ModuleType("cuml"))
        monkeypatch.setitem(sys.modules, "cuml.linear_model", module)
        monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    return get_solver(request.param)


@pytest.mark.parametrize("task", TARGETS)
@pytest.mark.parametrize("class_weight", [None, "balanced", {0: 0.5, 1: 2.0}], ids=["none", "balanced", "mapping"])
def test_solvers_agree(other: Solver, task: str, class_weight: ClassWeight) -> None:
    options: dict[str, Any] = {"task": task, "class_weight": class_weight, "sample_weight": np.linspace(0.5, 1.5, 90)}
    y = TARGETS[task]
    ours, theirs = path_of(get_solver("torch"), y, **options), path_of(other, y, **options)
    assert theirs.coef.shape == ours.coef.shape
    assert theirs.intercept.shape == ours.intercept.shape
    assert theirs.converged.all()
    np.testing.assert_allclose(ours.objective, theirs.objective, rtol=1e-5)
    for c in range(3):
        np.testing.assert_allclose(ours.predict_proba(X, c), theirs.predict_proba(X, c), atol=2e-3)


@pytest.mark.parametrize("task", TARGETS)
def test_folds_agree(other: Solver, task: str) -> None:
    y, n_classes = TARGETS[task], 5 if task == "ordinal" else None
    request, solvers = LogisticRequest(X, y, CS, task=task, n_classes=n_classes), (get_solver("torch"), other)
    ours, theirs = (solve_folds([request], [FOLD], solver)[0] for solver in solvers)
    assert theirs.fold_converged.shape == ours.fold_converged.shape
    assert theirs.oof.shape == ours.oof.shape
    for c in range(3):
        np.testing.assert_allclose(probabilities(ours.oof[c], task), probabilities(theirs.oof[c], task), atol=2e-3)
        refits = [solve_refits([request.at(CS[c])], [p], s)[0] for s, p in zip(solvers, (ours, theirs), strict=True)]
        np.testing.assert_allclose(refits[0].objective, refits[1].objective, rtol=1e-5)


def test_refits_without_a_start_begin_at_the_base_rates() -> None:
    request = LogisticRequest(X, TARGETS["binary"], CS, task="binary")
    folded = solve_folds([request], [FOLD], get_solver("sklearn"))
    [refit] = solve_refits([request.at(0.3)], folded, get_solver("torch"))
    alone = path_of(get_solver("torch"), TARGETS["binary"], [0.3], task="binary")
    np.testing.assert_array_equal(refit.coef, alone.coef)


def test_two_classes_of_many_are_the_softmax_of_both(other: Solver) -> None:
    y = np.where(TARGETS["binary"] == 1, 3, 0)
    ours, theirs = (path_of(s, y, task="multiclass", n_classes=4) for s in (get_solver("torch"), other))
    np.testing.assert_allclose(ours.objective, theirs.objective, rtol=1e-5)
    assert (theirs.predict_proba(X, 1)[:, [1, 2]] == 0).all()


def test_a_constant_label_predicts_its_smoothed_base_rate(other: Solver) -> None:
    y = np.column_stack([TARGETS["binary"], np.zeros(90, dtype=int)])
    request = LogisticRequest(X, y, CS, task="multilabel")
    ours, theirs = (solve_folds([request], [FOLD], solver)[0] for solver in (get_solver("torch"), other))
    np.testing.assert_allclose(theirs.oof[:, :, 1], ours.oof[:, :, 1], rtol=1e-5)


def test_the_reference_is_cold_tight_and_double(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[dict[str, Any], np.dtype[Any], bool]] = []

    def note(model: Any, X: np.ndarray, *_: object, **__: object) -> None:
        seen.append((model.get_params(), X.dtype, hasattr(model, "coef_")))

    monkeypatch.setattr(LogisticRegression, "fit", noted(LogisticRegression.fit, note))
    path_of(get_solver("sklearn"), TARGETS["binary"], task="binary", dtype="float32")
    assert [parameters["C"] for parameters, _, _ in seen] == CS
    for parameters, dtype, warm in seen:
        assert (parameters["warm_start"], parameters["tol"], dtype.name, warm) == (False, 1e-8, "float64", False)


def test_an_unconverged_reference_warns() -> None:
    from sklearn.exceptions import ConvergenceWarning

    with pytest.warns(ConvergenceWarning, match="after 2 iterations"):
        path = path_of(get_solver("sklearn"), TARGETS["binary"], [100.0], task="binary", max_iter=2)
    assert not path.converged[0]


@pytest.mark.parametrize("name", ["torch", "sklearn"])
def test_every_solver_refuses_what_cannot_be_fitted(name: str) -> None:
    solver = get_solver(name)
    spoiled = X.copy()
    spoiled[3, 2] = np.nan
    with pytest.raises(FitError, match="must be finite"):
        solve_paths([LogisticRequest(spoiled, TARGETS["binary"], CS, task="binary")], solver)
    with pytest.raises(FitError, match="one class only"):
        path_of(solver, np.zeros(90, dtype=int), task="binary")
    with pytest.raises(FitError, match="one class only"):
        path_of(solver, np.zeros((90, 2), dtype=int), task="multilabel")
    with pytest.raises(FitError, match=r"[Ff]old"):
        solve_folds([LogisticRequest(X, TARGETS["binary"], CS, task="binary")], [np.zeros(90, dtype=int)], solver)


def test_names() -> None:
    assert list(SOLVERS) == ["torch", "sklearn", "cuml"]
    assert [solver.name for solver in SOLVERS.values()] == list(SOLVERS)
    with pytest.raises(InputError, match=r"No solver 'sklaern'\. Did you mean 'sklearn'"):
        get_solver("sklaern")


def test_a_missing_cuml_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'medical-transfer\[gpu\]'"):
        get_solver("cuml")


def test_a_solver_refuses_a_device_it_does_not_run_on() -> None:
    with pytest.raises(InputError, match="'sklearn' does not run on 'cuda'"):
        path_of(get_solver("sklearn"), TARGETS["binary"], task="binary", device="cuda")
