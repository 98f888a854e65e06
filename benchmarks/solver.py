"""The solver against scikit-learn's lbfgs at 13 values of C: without and with warm starts, on all rows and in folds.

    python -m benchmarks.solver                 # a sample of scikit-learn's fits
    python -m benchmarks.solver --full          # every fit, to its end: hours
    python -m benchmarks.solver --only small    # one case
    python -m benchmarks.solver --cpu           # CPU seconds of one thread, for a busy machine

Each fit, ours and scikit-learn's, must end with an objective within 1e-4 (relative) of the float64 optimum.
scikit-learn is timed in three ways:

- "cold, given the optimum": each fit starts at zero and stops at its first iterate within 1e-4.  No tolerance could
  stop it better.  The seconds at its default tolerance are printed too.
- "warm-started path": each fit starts from the one before, as a user would do it.  All fits use scikit-learn's own
  stopping rule with one tolerance: the loosest, in half decades, that brings every fit within 1e-4.
- "warm, given the optimum": each fit starts from our solution at the C before and stops as the cold ones do.  No user
  has either, so this is a lower bound for all warm starts.

Seconds of the values of C that are not sampled are interpolated on a log scale.  A fit that takes longer than LIMIT
seconds, or a path longer than PATH_LIMIT, counts as that time: the sums and ratios are then lower bounds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from benchmarks._pairs import machine
from benchmarks._scikit import Clock, GivenOptimum, WarmPath, objectives, seconds, time_given, warm_path
from benchmarks._spectra import features, labels
from mt.probe.solver.api import fit_logistic, solve_folds, solve_refits
from mt.probe.solver.fits import LogisticPath
from mt.probe.solver.request import LogisticRequest

CS = np.logspace(-3, 3, 13)
FOLDS = 5
ROUNDS = 3
LIMIT = 100.0
PATH_LIMIT = 200.0


@dataclass(frozen=True)
class Case:
    """One row of the table, and the ratios (cold, warm) that it must reach on all rows and in folds."""

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
    "small": Case(2_621, 1_536, "binary", 1, (20, 10), (60, 30), 5),
    "classes": Case(2_621, 2_048, "multiclass", 5, (40, 20), (60, 30), 4),
    "large": Case(20_000, 1_536, "binary", 1, (30, 15), (60, 30), 4),
    "labels": Case(20_000, 2_048, "multilabel", 14, (60, 30), None, 3),
}


@dataclass
class Timed:
    """scikit-learn's seconds on one or more labels: cold, warm, and the warm-started paths."""

    cold: GivenOptimum
    warm: GivenOptimum
    paths: list[WarmPath]

    @classmethod
    def at(cls, at: np.ndarray, limit: float) -> Timed:
        return cls(GivenOptimum(CS, at, limit), GivenOptimum(CS, at, limit), [])

    def add(self, clock: Clock, X: np.ndarray, y: np.ndarray, task: str, ours: LogisticPath) -> np.ndarray:
        """Time the fits of one label; return the optimal objective at each C.

        ours: our solutions, from which the warm fits that are given the optimum start.
        """
        best = fit_logistic(X, y, CS, task=task, dtype="float64", tol=1e-7, max_iter=5000).objective
        for c in self.cold.at:
            time_given(clock, X, y, CS[c], None, best[c], self.cold)
            time_given(clock, X, y, CS[c], (ours, c - 1) if c else None, best[c], self.warm)
        limit = PATH_LIMIT if np.isfinite(self.cold.limit) else np.inf
        self.paths.append(warm_path(clock, X, y, CS, best, limit))
        return best

    def totals(self) -> np.ndarray:
        """Return the seconds of all 13 C per label: cold, warm-started path, and warm given the optimum."""
        return np.array([self.cold.total(), statistics.mean(p.seconds for p in self.paths), self.warm.total()])


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
    chosen = columns if full or y.ndim == 1 else [case.outputs // 2]
    at = np.unique(np.linspace(0, len(CS) - 1, len(CS) if full else case.sample).round().astype(int))
    timed = Timed.at(at, np.inf if full else LIMIT)
    our_gaps: list[float] = []
    for label in chosen:
        target = y if label is None else y[:, label]
        task = "binary" if label is not None else case.task
        alone = path if label is None else fit_logistic(X, target, CS, task="binary")
        best = timed.add(clock, X, target, task, alone)
        outputs = slice(None) if label is None else [label]
        our_gaps += list(objectives(X, target, path.coef[:, outputs], path.intercept[:, outputs], CS) / best - 1)
    ours += [seconds(clock, lambda: fit_logistic(X, y, CS, task=case.task)) for _ in range(ROUNDS)]
    sampled = f"{len(at) * len(chosen)} of {len(CS) * len(columns)} fits, {len(chosen)} of {len(columns)} paths"
    print_ratios(name, statistics.median(ours), len(columns) * timed.totals(), case.reach, timed, sampled)
    print(f"    gaps to the optimum: ours at most {max(our_gaps):.0e}, scikit-learn's {worst_gap(timed):.0e}")
    lax = len(columns) * timed.cold.total_default()
    print(f"    scikit-learn cold at its default tol: {lax:.1f} s, gaps up to {max(timed.cold.default_gaps):.0e}")
    if case.reach_folds:
        compare_folds(clock, name, case.task, case.reach_folds, X, y, timed)


def compare_folds(
    clock: Clock, name: str, task: str, reach: tuple[int, int], X: np.ndarray, y: np.ndarray, whole: Timed
) -> None:
    """Print the times of what a probe fits: five folds at every C, then the refit at one C.

    scikit-learn is timed on one fold, which counts five times.  Its refit counts as its mean fit on all rows.
    """
    fold = np.random.default_rng(0).permutation(np.arange(len(y)) % FOLDS)
    request = LogisticRequest(X, y, CS, task=task)

    def probe() -> None:
        solve_refits([request.at(CS[len(CS) // 2])], solve_folds([request], [fold]))

    ours = [seconds(clock, probe) for _ in range(ROUNDS)]
    inside = fold != 0
    timed = Timed.at(whole.cold.at, whole.cold.limit)
    best = timed.add(clock, X[inside], y[inside], task, fit_logistic(X[inside], y[inside], CS, task=task))
    ours += [seconds(clock, probe) for _ in range(ROUNDS)]
    totals = FOLDS * timed.totals() + whole.totals() / len(CS)
    print_ratios(f"{name}, {FOLDS} folds + refit", statistics.median(ours), totals, reach, timed, "one fold timed")
    # The problems of fold 0: the basis is that of all rows, and held-out rows have weight zero.
    first = fit_logistic(X, y, CS, task=task, sample_weight=inside.astype(float))
    gaps = objectives(X[inside], y[inside], first.coef, first.intercept, CS) / best - 1
    print(f"    gaps to the optimum: ours at most {max(gaps):.0e}, scikit-learn's {worst_gap(timed):.0e}")


def worst_gap(timed: Timed) -> float:
    return max(timed.cold.gaps + timed.warm.gaps, default=np.nan)


def print_ratios(what: str, ours: float, theirs: np.ndarray, reach: tuple[int, int], timed: Timed, note: str) -> None:
    cold, warm, given = theirs
    cut = timed.cold.cut, timed.warm.cut
    print(f"  {what}: ours {ours:.2f} s   ({note})")
    print(f"    cold, given the optimum   {cold:8.1f} s = {cold / ours:6.1f} x   must reach {reach[0]}")
    print(
        f"    warm-started path        {warm:8.1f} s = {warm / ours:6.1f} x   must reach {reach[1]}   "
        + "; ".join(map(str, timed.paths))
    )
    print(f"    warm, given the optimum   {given:8.1f} s = {given / ours:6.1f} x   lower bound")
    if sum(cut):
        print(f"    fits given the optimum stopped at {LIMIT:g} s: {cut[0]} cold, {cut[1]} warm")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="time every fit of scikit-learn")
    parser.add_argument("--cpu", action="store_true", help="CPU seconds on one thread")
    parser.add_argument("--only", choices=list(CASES), nargs="+", default=list(CASES), help="cases to run")
    chosen = parser.parse_args()
    run(chosen.only, full=chosen.full, cpu=chosen.cpu)
