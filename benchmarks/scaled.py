"""Scaling on few labels: log loss on the test cases before and after temperature or Platt scaling, per protocol.

    python -m benchmarks.scaled FOLDER [SET ...]     # digits, textures and tissue: 2 minutes on two idle cores

FOLDER, sets, features and draws are those of `benchmarks.few_labels`.  Prints a Markdown row per set, number of labels
and kind of scaling: means over draws, and the standard error of the difference.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.few_labels import featurized, line, rows_of
from mt.probe.decisions.scaling import fit_scaling
from mt.probe.methods.propagation import UnlabelledPool
from mt.probe.protocols import PROTOCOLS, Fitting
from mt.probe.questions import Pair
from mt.probe.run import Features, fit_probes

METHODS = ("default", "blend", "propagate", "blend-four")
LABELS = (20, 50, 100)
DRAWS = 10


def main() -> None:
    """Measure and print."""
    if __name__ != "__main__" or len(sys.argv) < 2:
        print(__doc__)
        return
    folder, *names = sys.argv[1:]
    print("| set | labels | scaling | " + " | ".join(METHODS) + " |")
    print("|---" * (3 + len(METHODS)) + "|")
    for name in names or ("digits", "textures", "tissue"):
        for row in scaled(name, featurized(name, Path(folder))[0]):
            print("| " + " | ".join(row) + " |", flush=True)


def scaled(name: str, pair: Pair) -> Iterator[tuple[str, ...]]:
    """Yield the rows of one set: its name, the number of labels, the kind of scaling, and a cell per protocol."""
    features = Features.load(pair)
    kinds = ("temperature", "platt") if features.train.task == "binary" else ("temperature",)
    for n in LABELS:
        found = [_losses(features, n, protocol, kinds) for protocol in METHODS]
        for number, kind in enumerate(kinds, start=1):
            yield name, str(n), kind, *(_cell(losses[:, 0], losses[:, number]) for losses in found)


def _losses(features: Features, n: int, protocol: str, kinds: tuple[str, ...]) -> np.ndarray:
    """Return the log loss on the test cases (draws, 1 + kinds): unscaled, then by each kind of scaling."""
    task, pool = features.train.task, UnlabelledPool(features.train.embeddings, features.train.ids)
    draws = [(features.drawn(rows_of(features, n, seed)), seed) for seed in range(DRAWS)]
    fits = fit_probes(draws, Fitting(PROTOCOLS[protocol]).on(task, features.n_classes), pool=pool)
    losses = []
    for (budget, seed), fitted in zip(draws, fits, strict=True):
        assert fitted.held_out is not None  # every draw here has two cases of each class
        p = fitted.probe.probabilities(features.test.embeddings)
        each = [p, *(fit_scaling(kind, budget.y, fitted.held_out, task).apply(p, task) for kind in kinds)]
        losses.append([line("", n, seed, protocol, features, one)["log_loss"] for one in each])
    return np.array(losses)


def _cell(before: np.ndarray, after: np.ndarray) -> str:
    """Return both means and the standard error of the difference: `0.550 → 0.516 ± 0.029`."""
    error = (after - before).std(ddof=1) / len(before) ** 0.5
    return f"{before.mean():.3f} → {after.mean():.3f} ± {error:.3f}"


if __name__ == "__main__":
    main()
