"""Resamples of ROC AUC: 1,000 of 32,768 cases in under 2 s on two cores, beside scikit-learn in a loop.

    python -m benchmarks.bootstrap        # about half a minute

The loop resamples rows and calls `roc_auc_score`; it is timed on a sample and extrapolated.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from sklearn.metrics import roc_auc_score

from mt.probe.scores.comparisons import compare
from mt.probe.scores.metrics import weighted
from mt.probe.scores.sample import replicate, units_of

CASES = 32_768
GROUPS = 57
RESAMPLES = 1_000
COMPARISON_RESAMPLES = 10_000
DRAWS = 5
LOOPED = 20
SECONDS_ALLOWED = 2.0


def main() -> None:
    """Print the table; exit with status 1 where the bound is missed."""
    y, predictions, groups = _cases()
    p = predictions[0][0]
    _resample(y, p, None, 10)
    seconds = _seconds(lambda: _resample(y, p, None, RESAMPLES))
    grouped = _seconds(lambda: _resample(y, p, groups, RESAMPLES))
    loop = _seconds(lambda: _loop(y, p, LOOPED)) * RESAMPLES / LOOPED
    a, b = predictions
    joint = _seconds(lambda: compare("roc_auc", y, a, b, n_resamples=COMPARISON_RESAMPLES))
    joint_grouped = _seconds(lambda: compare("roc_auc", y, a, b, groups=groups, n_resamples=COMPARISON_RESAMPLES))
    joint_loop = loop * COMPARISON_RESAMPLES / RESAMPLES * 2 * DRAWS
    print(f"ROC AUC, {CASES:,} cases; the loop over scikit-learn is timed on {LOOPED} resamples")
    print(f"{'':46}{'mt':>10}{'loop':>12}{'faster':>10}")
    for name, ours, theirs in (
        (f"{RESAMPLES:,} resamples of cases", seconds, loop),
        (f"{RESAMPLES:,} resamples of {GROUPS} groups", grouped, loop),
        (f"{COMPARISON_RESAMPLES:,} joint, 2 x {DRAWS} draws, cases", joint, joint_loop),
        (f"{COMPARISON_RESAMPLES:,} joint, 2 x {DRAWS} draws, {GROUPS} groups", joint_grouped, joint_loop),
    ):
        print(f"{name:46}{ours:>8.2f} s{theirs:>10.1f} s{theirs / ours:>8.0f} x")
    if seconds >= SECONDS_ALLOWED:
        raise SystemExit(f"{RESAMPLES:,} resamples took {seconds:.2f} s, allowed are {SECONDS_ALLOWED:g} s")


def _cases() -> tuple[np.ndarray, list[list[np.ndarray]], np.ndarray]:
    """Labels, predictions of two methods per draw, and groups, at the size of PCam's test split."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, CASES)
    logits = [[rng.normal(size=CASES) + separation * y for _ in range(DRAWS)] for separation in (1.5, 1.6)]
    return y, [[1 / (1 + np.exp(-one)) for one in method] for method in logits], rng.integers(0, GROUPS, CASES)


def _resample(y: np.ndarray, p: np.ndarray, groups: np.ndarray | None, n_resamples: int) -> np.ndarray:
    unit = units_of(len(y), groups)
    return replicate([weighted("roc_auc", y, p, unit)], y, unit, n_resamples=n_resamples, seed=0)[0]


def _loop(y: np.ndarray, p: np.ndarray, n_resamples: int) -> list[float]:
    rng = np.random.default_rng(0)
    rows = (rng.integers(0, len(y), len(y)) for _ in range(n_resamples))
    return [roc_auc_score(y[one], p[one]) for one in rows]


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
