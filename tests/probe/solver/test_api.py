"""fit_logistic reaches the float64 optimum on features as they come, ill-conditioned, separable and degenerate."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from mt.probe.solver.api import fit_logistic
from mt.probe.solver.request import ClassWeight
from tests.probe.solver.reference import objective, optimum

CS = (1e-6, 1e-4, 1e-2, 1.0, 1e2, 1e3, 1e4, 1e5)
ALLOWED = np.where(np.array(CS) <= 1e3, 1e-5, 1e-4)


def power_law(n: int, d: int, rng: np.random.Generator, exponent: float = 1.0) -> np.ndarray:
    """Rotated features with eigenvalues falling as a power law, and a mean offset."""
    spectrum = np.arange(1, d + 1.0) ** (-exponent / 2)
    rotation = np.linalg.qr(rng.standard_normal((d, d)))[0]
    scaled = rng.standard_normal((n, d)) * spectrum * np.sqrt(d / (spectrum**2).sum())
    return np.asarray(scaled @ rotation + rng.normal(0, 1, d))


def badly_scaled(n: int, d: int, rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal((n, d)) * np.logspace(-4, 4, d)


def rotated(n: int, d: int, rng: np.random.Generator) -> np.ndarray:
    scaled = rng.standard_normal((n, d)) * np.logspace(-3, 3, d)
    return np.asarray(scaled @ np.linalg.qr(rng.standard_normal((d, d)))[0])


def far_from_zero(n: int, d: int, rng: np.random.Generator) -> np.ndarray:
    return power_law(n, d, rng) + 100


def constant_and_duplicated(n: int, d: int, rng: np.random.Generator) -> np.ndarray:
    X = power_law(n, d, rng)
    X[:, 1], X[:, 2] = 7, X[:, 0]
    X[n // 2 :] = X[: n - n // 2]
    return X


FEATURES = (power_law, badly_scaled, rotated, far_from_zero, constant_and_duplicated)


def labels(X: np.ndarray, classes: int, rng: np.random.Generator, *, noise: float) -> np.ndarray:
    """Class numbers that a linear rule on the standardised features gives, with Gumbel noise or separable."""
    deviation = X.std(0)
    standard = (X - X.mean(0)) / np.where(deviation > 0, deviation, 1)
    logits = standard @ rng.standard_normal((X.shape[1], classes))
    logits *= 2 / logits.std()
    return np.asarray((logits + noise * rng.gumbel(size=logits.shape)).argmax(1))


@pytest.mark.parametrize("noise", [1, 0], ids=["overlapping", "separable"])
@pytest.mark.parametrize("shape", [(200, 30), (40, 90)], ids=["n>dim", "dim>n"])
@pytest.mark.parametrize("features", FEATURES, ids=lambda f: f.__name__)
def test_binary_reaches_the_optimum(features: Callable[..., np.ndarray], shape: tuple[int, int], noise: float) -> None:
    rng = np.random.default_rng(7)
    X = features(*shape, rng).astype(np.float32)
    y = labels(X.astype(np.float64), 2, rng, noise=noise)
    path = fit_logistic(X, y, CS, task="binary")
    best = np.array([optimum(X, y, C) for C in CS])
    assert path.converged.all()
    assert (path.objective / best - 1 <= ALLOWED).all(), path.objective / best - 1
    assert (path.objective / best - 1 >= -1e-8).all(), "below the optimum: not the objective of the coefficients"


@pytest.mark.parametrize("noise", [1, 0], ids=["overlapping", "separable"])
@pytest.mark.parametrize("shape", [(90, 12), (25, 40)], ids=["n>dim", "dim>n"])
@pytest.mark.parametrize("features", FEATURES, ids=lambda f: f.__name__)
def test_multinomial_reaches_the_optimum(
    features: Callable[..., np.ndarray], shape: tuple[int, int], noise: float
) -> None:
    rng = np.random.default_rng(8)
    X = features(*shape, rng).astype(np.float32)
    y = labels(X.astype(np.float64), 4, rng, noise=noise)
    Cs = CS[2:]
    path = fit_logistic(X, y, Cs, task="multiclass", n_classes=4)
    present = np.unique(y)
    best = np.array([optimum(X, np.searchsorted(present, y), C, classes=len(present)) for C in Cs])
    assert path.converged.all()
    assert (path.objective / best - 1 <= ALLOWED[2:]).all(), path.objective / best - 1


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_rare_classes_reach_the_optimum(task: str) -> None:
    rng = np.random.default_rng(9)
    X = power_law(150, 20, rng)
    y = np.zeros(150, dtype=int)
    y[:4] = [1, 1, 1, 1] if task == "binary" else [1, 1, 2, 3]
    path = fit_logistic(X, y, CS, task=task)
    best = np.array([optimum(X, y, C, classes=int(y.max()) + 1) for C in CS])
    assert (path.objective / best - 1 <= ALLOWED).all(), path.objective / best - 1


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(2, 40),
    d=st.integers(1, 30),
    classes=st.integers(2, 5),
    exponent=st.floats(0, 3),
    C=st.floats(-6, 3).map(lambda power: 10**power),
    noise=st.integers(0, 1),
    seed=st.integers(0, 10_000),
)
def test_any_shape_reaches_the_optimum(
    n: int, d: int, classes: int, exponent: float, C: float, noise: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    X = power_law(n, d, rng, exponent)
    y = labels(X, classes, rng, noise=noise)
    y[:2] = 0, classes - 1
    y = np.unique(y, return_inverse=True)[1]
    task = "binary" if y.max() == 1 else "multiclass"
    path = fit_logistic(X, y, [C], task=task)
    assert path.objective[0] <= (1 + 1e-5) * optimum(X, y, C, classes=int(y.max()) + 1)


@pytest.mark.filterwarnings("ignore:The number of unique classes")
@pytest.mark.parametrize("classes", [2, 3, 30, 1000])
def test_one_row_a_class(classes: int) -> None:
    rng = np.random.default_rng(classes)
    X, y = rng.standard_normal((classes, 6)), np.arange(classes)
    Cs = [1e-3, 1.0, 10.0]
    path = fit_logistic(X, y, Cs, task="multiclass" if classes > 2 else "binary")
    assert path.coef.shape == (3, classes if classes > 2 else 1, 6)
    for c, C in enumerate(Cs):
        model = LogisticRegression(C=C, tol=1e-6, max_iter=2000).fit(X, y)
        best = objective(model.coef_, model.intercept_, X, y, C)
        assert path.objective[c] <= (1 + 1e-5) * best


@pytest.mark.parametrize("task", ["binary", "multiclass", "ordinal", "multilabel"])
def test_probabilities_agree_with_scikit_learn(task: str) -> None:
    rng = np.random.default_rng(10)
    X = power_law(300, 15, rng).astype(np.float32)
    y = labels(X.astype(np.float64), 2 if task == "binary" else 4, rng, noise=1)
    if task == "multilabel":
        y = np.eye(4, dtype=np.int8)[y]
    Cs = [1e-3, 0.1, 10.0]
    path = fit_logistic(X, y, Cs, task=task)
    for c, C in enumerate(Cs):
        model = LogisticRegression(C=C, tol=1e-8, max_iter=5000)
        if task == "multilabel":
            expected = np.column_stack([model.fit(X, column).predict_proba(X)[:, 1] for column in y.T])
        else:
            expected = model.fit(X, y).predict_proba(X)
        expected = expected[:, 1] if task == "binary" else expected
        np.testing.assert_allclose(path.predict_proba(X, c), expected, atol=1e-3)


def test_objective_is_scikit_learns_and_of_the_coefficients_returned() -> None:
    rng = np.random.default_rng(11)
    X, weight = power_law(60, 8, rng), rng.random(60)
    y = labels(X, 3, rng, noise=1)
    path = fit_logistic(X, y, [0.1, 10.0], task="multiclass", sample_weight=weight)
    for c, C in enumerate(path.Cs):
        expected = objective(path.coef[c], path.intercept[c], X, y, C, weight)
        assert path.objective[c] == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(path.intercept.sum(1), 0, atol=1e-9)


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
@pytest.mark.parametrize("class_weight", [None, "balanced", {0: 0.3, 1: 3.0}], ids=["none", "balanced", "mapping"])
def test_weights_are_scikit_learns(task: str, class_weight: ClassWeight) -> None:
    rng = np.random.default_rng(12)
    X, weight = power_law(120, 6, rng), rng.integers(0, 3, 120).astype(float)
    y = labels(X, 2 if task == "binary" else 3, rng, noise=1)
    if task == "multilabel":
        y = np.eye(3, dtype=int)[y]
    path = fit_logistic(X, y, [0.5], task=task, sample_weight=weight, class_weight=class_weight)
    model = LogisticRegression(C=0.5, tol=1e-8, class_weight=class_weight)
    columns = y.T if task == "multilabel" else [y]
    expected = np.concatenate(
        [model.fit(X, column, sample_weight=weight).decision_function(X).reshape(120, -1) for column in columns], axis=1
    )
    found = path.decision_function(X, 0)
    np.testing.assert_allclose(found, expected, atol=5e-3)


def test_one_label_alone_and_among_others_agree() -> None:
    rng = np.random.default_rng(13)
    X = power_law(100, 10, rng)
    Y = rng.integers(0, 2, (100, 5))
    together = fit_logistic(X, Y, [0.1, 1.0], task="multilabel")
    for label in range(5):
        alone = fit_logistic(X, Y[:, label], [0.1, 1.0], task="binary")
        np.testing.assert_allclose(together.coef[:, label], alone.coef[:, 0], atol=1e-3)


def test_input_may_be_half_strided_mapped_or_integer(tmp_path: Path) -> None:
    rng = np.random.default_rng(14)
    base = rng.integers(-8, 8, (90, 12)).astype(np.float32) / 4
    y = labels(base, 2, rng, noise=1)
    expected = fit_logistic(base, y, [1.0], task="binary").coef
    np.save(tmp_path / "features.npy", base)
    wide = np.repeat(np.repeat(base, 2, axis=0), 3, axis=1)
    forms = {
        "half": base.astype(np.float16),
        "double": base.astype(np.float64),
        "strided": wide[::2, ::3],
        "fortran": np.asfortranarray(base),
        "mapped": np.load(tmp_path / "features.npy", mmap_mode="r"),
        "backwards": base[::-1].copy()[::-1],
    }
    for name, form in forms.items():
        np.testing.assert_array_equal(fit_logistic(form, y, [1.0], task="binary").coef, expected, err_msg=name)


def test_the_same_call_gives_the_same_bits() -> None:
    rng = np.random.default_rng(15)
    X = power_law(120, 30, rng)
    y = labels(X, 3, rng, noise=1)
    first, second = (fit_logistic(X, y, CS, task="multiclass") for _ in range(2))
    np.testing.assert_array_equal(first.coef, second.coef)
    np.testing.assert_array_equal(first.intercept, second.intercept)


@pytest.mark.parametrize("task", ["multilabel", "multiclass"])
def test_a_small_memory_budget_solves_the_same_problems_in_batches(task: str) -> None:
    rng = np.random.default_rng(16)
    X = power_law(120, 10, rng)
    y = rng.integers(0, 2, (120, 3)) if task == "multilabel" else labels(X, 3, rng, noise=1)
    Cs = [10.0, 0.01, 1.0]
    whole = fit_logistic(X, y, Cs, task=task)
    batched = fit_logistic(X, y, Cs, task=task, memory=1)
    np.testing.assert_allclose(batched.objective, whole.objective, rtol=1e-5)
    for c in range(len(Cs)):
        np.testing.assert_allclose(batched.predict_proba(X, c), whole.predict_proba(X, c), atol=1e-3)


def test_declared_classes_without_rows_have_probability_zero() -> None:
    rng = np.random.default_rng(17)
    X = power_law(50, 5, rng)
    y = np.where(labels(X, 2, rng, noise=1) == 1, 3, 1)
    path = fit_logistic(X, y, [1.0], task="ordinal", n_classes=5)
    p = path.predict_proba(X, 0)
    assert p.shape == (50, 5)
    assert (p[:, [0, 2, 4]] == 0).all()
    np.testing.assert_allclose(p.sum(1), 1)
    assert np.isfinite(path.coef).all()


def test_features_without_information_predict_the_base_rate() -> None:
    y = np.array([0] * 30 + [1] * 10)
    path = fit_logistic(np.full((40, 3), 2.5), y, [1.0], task="binary")
    np.testing.assert_allclose(path.predict_proba(np.ones((2, 3)), 0), 0.25, atol=1e-6)
    assert not path.coef.any()


def test_an_unconverged_fit_warns_with_the_numbers() -> None:
    from sklearn.exceptions import ConvergenceWarning

    rng = np.random.default_rng(18)
    X = power_law(100, 20, rng)
    y = labels(X, 2, rng, noise=1)
    with pytest.warns(ConvergenceWarning, match=r"1 of 2 fits .* 1e-05 \(C=100: gap .* after 3 iterations\)"):
        path = fit_logistic(X, y, [1e-6, 100.0], task="binary", max_iter=3)
    assert path.converged.tolist() == [True, False]
    assert path.n_iter[1] == 3
    assert path.gap[1] > 1e-5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fit_logistic(X, y, [100.0], task="binary").converged.all()
