"""Timings of scikit-learn's lbfgs: stopped once it reaches the known optimum, and with its own stopping rule.

A fit or path that does not arrive in time counts with its time limit.  It would take longer, so sums of such seconds
are lower bounds.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import numpy as np
import scipy.optimize
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression

from mt.probe.solver.fits import LogisticPath

WITHIN = 1e-4
ITERATIONS = 50_000
# From this C upwards scikit-learn in float32 stops before WITHIN (2,621 x 1,536: 1.1e-4 at C = 1, 2.3e-4 at C = 1000).
STALLS = 1.0
# The tolerances to try for a path, loosest first.
TOLERANCES = 10 ** -np.arange(3, 8.5, 0.5)
Clock = Callable[[], float]


def seconds(clock: Clock, work: Callable[[], object]) -> float:
    began = clock()
    work()
    return clock() - began


@dataclass
class GivenOptimum:
    """Seconds of fits that were given the optimum, and of cold fits at the default tolerance.

    at: the places in `Cs` that are timed.  limit: the seconds after which a fit is stopped.
    """

    Cs: np.ndarray
    at: np.ndarray
    limit: float
    cut: int = 0  # number of fits that did not arrive in time
    seconds: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    default: list[float] = field(default_factory=list)
    default_gaps: list[float] = field(default_factory=list)

    def total(self) -> float:
        """Return the seconds of all C, per label; values of C that were not timed are interpolated on a log scale."""
        return self._over_path(self.seconds)

    def total_default(self) -> float:
        """Return the seconds of all C, per label, at scikit-learn's default tolerance."""
        return self._over_path(self.default)

    def _over_path(self, spent: list[float]) -> float:
        means = np.reshape(spent, (-1, len(self.at))).mean(axis=0)
        return float(np.exp(np.interp(np.arange(len(self.Cs)), self.at, np.log(means))).sum())


def time_given(
    clock: Clock,
    X: np.ndarray,
    y: np.ndarray,
    C: float,
    start: tuple[LogisticPath, int] | None,
    best: float,
    given: GivenOptimum,
) -> None:
    """Time one fit up to its first iterate within WITHIN of the optimum, started at zero or at a solution of ours.

    The fit runs in float64.  Below C = STALLS it also runs in float32, which counts if it arrives and is faster.
    """
    tried: list[tuple[float, float]] = []
    iterations = ITERATIONS
    for dtype in (np.float64, np.float32) if C < STALLS else (np.float64,):
        model = LogisticRegression(C=C, tol=1e-12, max_iter=iterations, warm_start=start is not None)
        if start is not None:
            path, c = start
            model.coef_, model.intercept_ = path.coef[c].copy(), path.intercept[c].copy()
            if y.max() == 1:
                model.coef_, model.intercept_ = model.coef_[:1], model.intercept_[:1]
        rows = X.astype(dtype)
        with warnings.catch_warnings(), stopping_at((1 + WITHIN) * best / (C * len(y)), clock, given.limit):
            warnings.simplefilter("ignore")
            spent = seconds(clock, lambda: model.fit(rows, y))  # noqa: B023
        tried.append((spent, gap(X, y, model, best)))
        iterations = max(1, int(model.n_iter_.max()))
    there = [one for one in tried if one[1] <= WITHIN]
    spent, reached = min(there, default=tried[0])
    given.seconds.append(spent)
    given.cut += not there
    given.gaps += [reached] if there else []
    if start is None:
        model = LogisticRegression(C=C, max_iter=ITERATIONS)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            given.default.append(seconds(clock, lambda: model.fit(X, y)))
        given.default_gaps.append(gap(X, y, model, best))


@dataclass(frozen=True)
class WarmPath:
    """Fits at one tolerance, each started from the one before; `gap` is the largest relative gap to the optimum."""

    seconds: float
    tol: float
    gap: float
    dtype: str
    n_iter: tuple[int, ...]

    def __str__(self) -> str:
        there = f"gaps up to {self.gap:.1e}" if np.isfinite(self.gap) else "not there in time"
        return f"{self.dtype}, tol {self.tol:.0e}, {sum(self.n_iter)} iterations, {there}"


def warm_path(clock: Clock, X: np.ndarray, y: np.ndarray, Cs: np.ndarray, best: np.ndarray, limit: float) -> WarmPath:
    """Time the warm-started path at the loosest tolerance that brings every fit within WITHIN of the optimum.

    The path runs in float32 and in float64; the faster one counts.  A path is stopped after `limit` seconds.
    """
    found = []
    for dtype in (np.float32, np.float64):
        before: WarmPath | None = None
        for tol in TOLERANCES:
            path = _one_path(clock, X, y, Cs, best, limit, tol, dtype)
            if before is not None and path.n_iter == before.n_iter:
                break  # this precision allows no further iteration
            before = path
            if path.gap <= WITHIN or not np.isfinite(path.gap):
                found.append(path)
                break
    there = [path for path in found if np.isfinite(path.gap)]
    return min(there or found, key=lambda path: path.seconds)


def _one_path(
    clock: Clock, X: np.ndarray, y: np.ndarray, Cs: np.ndarray, best: np.ndarray, limit: float, tol: float, dtype: type
) -> WarmPath:
    model = LogisticRegression(tol=tol, max_iter=ITERATIONS, warm_start=True)
    rows: np.ndarray = X.astype(dtype)
    spent, worst = 0.0, 0.0
    iterations: list[int] = []
    for C, lowest in zip(Cs, best, strict=True):
        model.set_params(C=C)
        with warnings.catch_warnings(), stopping_at(-np.inf, clock, limit - spent):
            warnings.simplefilter("ignore")
            spent += seconds(clock, lambda: model.fit(rows, y))
        worst = max(worst, gap(X, y, model, lowest))
        iterations.append(int(model.n_iter_.max()))
        if spent >= limit:
            worst = np.inf
            break
    return WarmPath(spent, tol, worst, np.dtype(dtype).name, tuple(iterations))


@contextmanager
def stopping_at(value: float, clock: Clock, limit: float) -> Iterator[None]:
    """Stop scikit-learn's lbfgs at its first iterate with a function value of at most `value`, or after `limit`.

    The function value is the objective divided by C n.
    """
    minimise, end = scipy.optimize.minimize, clock() + limit

    def stopped(*args: Any, **options: Any) -> Any:
        def enough(intermediate_result: scipy.optimize.OptimizeResult) -> None:
            if intermediate_result.fun <= value or clock() > end:
                raise StopIteration

        return minimise(*args, **{**options, "callback": enough})

    with patch("scipy.optimize.minimize", stopped):
        yield


def gap(X: np.ndarray, y: np.ndarray, model: Any, best: float) -> float:
    """Return the relative distance of a fitted model's objective to the optimum."""
    found = objectives(X, y, model.coef_[None], model.intercept_[None], np.array([model.C]))
    return float(found[0] / best - 1)


def objectives(X: np.ndarray, y: np.ndarray, coef: np.ndarray, intercept: np.ndarray, Cs: np.ndarray) -> np.ndarray:
    """Return scikit-learn's objective of coefficients (Cs, outputs, dim), in float64."""
    found = []
    for C, w, b in zip(Cs, coef, intercept, strict=True):
        logits = X.astype(np.float64) @ w.T + b
        if logits.shape[1] == 1:
            losses = np.logaddexp(0, (1 - 2 * y) * logits[:, 0])
        else:
            losses = -log_softmax(logits, axis=1)[np.arange(len(y)), y]
        found.append(C * losses.sum() + 0.5 * np.square(w).sum())
    return np.array(found)
