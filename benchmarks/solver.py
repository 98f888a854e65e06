"""The solver against scikit-learn's lbfgs at 13 values of C: fitted cold, along a warm-started path, and in folds.

Every fit of either must come within 1e-4 of the float64 optimum; scikit-learn's tolerance is tightened, untimed, until
it does (its first try, at the default, is shown too).  By default scikit-learn's time is extrapolated from a sample of
its fits; `python -m benchmarks.solver --full` times them all (hours), `--only NAME` takes one case, `--cpu` counts CPU
seconds of one thread each, for a machine that is busy with other things.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from benchmarks._pairs import machine
from benchmarks._spectra import features, labels
from mt.probe.logistic import LogisticPath, fit_logistic, fit_path_folds

CS = np.logspace(-3, 3, 13)
FOLDS = 5
WITHIN = 1e-4
# scikit-learn's tolerances, the default first.
TOLERANCES = (1e-4, 1e-6, 1e-7, 1e-8, 1e-9)
ROUNDS = 3
Clock = Callable[[], float]


def seconds(clock: Clock, work: Callable[[], object]) -> float:
    began = clock()
    work()
    return clock() - began


@dataclass(frozen=True)
class Case:
    """A fit of the table and the ratios it must reach: cold and warm, and the same in folds."""

    rows: int
    dim: int
    task: str
    outputs: int
    reach: tuple[int, int]
    reach_folds: tuple[int, int] | None
    sample: int

    def data(self) -> tuple[np.ndarray, np.ndarray]:
        X, factors = features(self.rows, self.dim)
        return X, labels(factors, self.task, self.outputs)


CASES = {
    "small": Case(2_621, 1_536, "binary", 1, (20, 10), (60, 30), 3),
    "classes": Case(2_621, 2_048, "multiclass", 5, (40, 20), (60, 30), 3),
    "large": Case(20_000, 1_536, "binary", 1, (30, 15), (60, 30), 3),
    "labels": Case(20_000, 2_048, "multilabel", 14, (60, 30), None, 3),
}


@dataclass
class Timed:
    """scikit-learn's seconds of one kind of fit, by C, at the tolerance that suffices and at the default."""

    enough: list[float]
    default: list[float]
    gaps: list[float]
    default_gaps: list[float]

    def total(self) -> float:
        """Return the seconds of all 13 C, from those timed at even steps."""
        return len(CS) * statistics.mean(self.enough)


def main() -> None:
    """Print the table from a sample of scikit-learn's fits."""
    run(list(CASES), full=False, cpu=False)


def run(names: list[str], *, full: bool, cpu: bool) -> None:
    if cpu:
        threadpool_limits(1)
        torch.set_num_threads(1)
    clock = time.process_time if cpu else time.perf_counter
    print(f"  {machine()}; {len(CS)} C from 1e-3 to 1e3; power-law features with a mean offset, float32")
    for name in names:
        compare(name, CASES[name], clock, full=full)


def compare(name: str, case: Case, clock: Clock, *, full: bool) -> None:
    """Print one case: ours and scikit-learn's seconds, ratios and gaps."""
    X, y = case.data()
    print(f"\n  {name}: {case.rows:,} x {case.dim:,}, {case.outputs} {case.task} output(s)", flush=True)
    ours = [seconds(clock, lambda: fit_logistic(X, y, CS, task=case.task)) for _ in range(ROUNDS)]
    path = fit_logistic(X, y, CS, task=case.task)
    columns = range(y.shape[1]) if y.ndim == 2 else [None]
    timed = columns if full or y.ndim == 1 else [0, case.outputs - 1]
    at = np.unique(np.linspace(0, len(CS) - 1, len(CS) if full else case.sample).round().astype(int))
    cold, warm = Timed([], [], [], []), Timed([], [], [], [])
    our_gaps = []
    for label in timed:
        target = y if label is None else y[:, label]
        task = "binary" if label is not None else case.task
        best = fit_logistic(X, target, CS[at], task=task, dtype="float64", tol=1e-7, max_iter=5000)
        alone = path if label is None else fit_logistic(X, target, CS, task="binary")
        outputs = slice(None) if label is None else [label]
        reached = objectives(X, target, path.coef[:, outputs], path.intercept[:, outputs])
        our_gaps += list(reached[at] / best.objective - 1)
        for i, c in enumerate(at):
            time_scikit(clock, X, target, CS[c], None, best.objective[i], cold)
            time_scikit(clock, X, target, CS[c], (alone, c - 1) if c else None, best.objective[i], warm)
    ours += [seconds(clock, lambda: fit_logistic(X, y, CS, task=case.task)) for _ in range(ROUNDS)]
    fits = f"{len(at) * len(timed)} of {len(CS) * len(columns)} fits timed"
    print_pair(f"{name} / cold, warm", statistics.median(ours), (cold, warm), len(columns), case.reach, fits)
    worst = max(max(cold.gaps), max(warm.gaps))
    print(f"    gaps to the optimum: ours at most {max(our_gaps):.0e}; scikit-learn's at most {worst:.0e}")
    lax = len(CS) * len(columns) * statistics.mean(cold.default)
    print(f"    scikit-learn cold at its default tol: {lax:.1f} s with gaps up to {max(cold.default_gaps):.0e}")
    if case.reach_folds:
        compare_folds(clock, name, case, X, y, at, (cold, warm))


def compare_folds(
    clock: Clock, name: str, case: Case, X: np.ndarray, y: np.ndarray, at: np.ndarray, whole: tuple[Timed, Timed]
) -> None:
    """Print what a probe does, five folds and the refit; scikit-learn is timed on one fold, counted five times."""
    fold = np.random.default_rng(0).permutation(np.arange(len(y)) % FOLDS)
    ours = [seconds(clock, lambda: fit_path_folds(X, y, CS, fold, task=case.task)) for _ in range(ROUNDS)]
    inside = fold != 0
    best = fit_logistic(X[inside], y[inside], CS[at], task=case.task, dtype="float64", tol=1e-7, max_iter=5000)
    path = fit_logistic(X[inside], y[inside], CS, task=case.task)
    cold, warm = Timed([], [], [], []), Timed([], [], [], [])
    for i, c in enumerate(at):
        time_scikit(clock, X[inside], y[inside], CS[c], None, best.objective[i], cold)
        time_scikit(clock, X[inside], y[inside], CS[c], (path, c - 1) if c else None, best.objective[i], warm)
    sums = [FOLDS * fold_time.total() + refit.total() for fold_time, refit in zip((cold, warm), whole, strict=True)]
    totals = tuple(Timed([total / len(CS)], [], [], []) for total in sums)
    print_pair(f"{name}, {FOLDS} folds + refit", statistics.median(ours), totals, 1, case.reach_folds, "one fold timed")


def print_pair(
    what: str, ours: float, timed: tuple[Timed, ...], times: int, reach: tuple[int, int], note: str
) -> None:
    cold, warm = (times * one.total() for one in timed)
    print(
        f"  {what:<28} ours {ours:7.2f} s   cold {cold:8.1f} s = {cold / ours:6.1f} x (must reach {reach[0]})"
        f"   warm {warm:8.1f} s = {warm / ours:6.1f} x (must reach {reach[1]})   {note}",
        flush=True,
    )


def time_scikit(
    clock: Clock, X: np.ndarray, y: np.ndarray, C: float, start: tuple[LogisticPath, int] | None, best: float,
    timed: Timed,
) -> None:  # fmt: skip
    """Time one fit at the loosest tolerance that comes within WITHIN of the optimum, cold or from a solution."""
    from sklearn.linear_model import LogisticRegression

    double = X.astype(np.float64)
    for tol in TOLERANCES:
        model = LogisticRegression(C=C, tol=tol, max_iter=50_000, warm_start=start is not None)
        if start is not None:
            path, c = start
            model.coef_, model.intercept_ = path.coef[c].copy(), path.intercept[c].copy()
            if y.max() == 1:
                model.coef_, model.intercept_ = model.coef_[:1], model.intercept_[:1]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            spent = seconds(clock, lambda: model.fit(double, y))  # noqa: B023
        gap = float(objectives(X, y, model.coef_[None], model.intercept_[None], np.array([C]))[0] / best - 1)
        if tol == TOLERANCES[0]:
            timed.default.append(spent)
            timed.default_gaps.append(gap)
        if gap <= WITHIN:
            break
    timed.enough.append(spent)
    timed.gaps.append(gap)


def objectives(
    X: np.ndarray, y: np.ndarray, coef: np.ndarray, intercept: np.ndarray, Cs: np.ndarray = CS
) -> np.ndarray:
    """Return scikit-learn's objective of coefficients (Cs, outputs, dim), in float64."""
    from scipy.special import log_softmax

    found = []
    for C, w, b in zip(Cs, coef, intercept, strict=True):
        logits = X.astype(np.float64) @ w.T + b
        if logits.shape[1] == 1:
            losses = np.logaddexp(0, (1 - 2 * y) * logits[:, 0])
        else:
            losses = -log_softmax(logits, axis=1)[np.arange(len(y)), y]
        found.append(C * losses.sum() + 0.5 * np.square(w).sum())
    return np.array(found)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="time every fit of scikit-learn's")
    parser.add_argument("--cpu", action="store_true", help="CPU seconds on one thread")
    parser.add_argument("--only", choices=list(CASES), nargs="+", default=list(CASES), help="cases to run")
    chosen = parser.parse_args()
    run(chosen.only, full=chosen.full, cpu=chosen.cpu)
