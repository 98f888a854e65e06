"""Ten draws of 1 % fitted together, as `mt probe` does, and one after another: the same numbers in less time."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from benchmarks._pairs import machine, paired, row
from benchmarks._spectra import features, labels
from mt.probe.methods.linear import LinearProbe
from mt.probe.protocols import Fitted, Fitting, Probe, get_protocol
from mt.probe.run import fit_probe, fit_probes
from mt.types import Array, LabelledRows

# Rows of a 1 % draw, columns, task and classes (labels): of APTOS, of pneumonia, of PCam cut to 20,000 rows twice.
CASES = ((29, 1536, "ordinal", 5), (47, 2048, "multiclass", 3), (200, 1536, "binary", 2), (200, 384, "binary", 2))
DRAWS = 10
ROUNDS = 5
Draw = tuple[LabelledRows[Array], int]  # a budget and its seed


def main() -> None:
    """Print how many times faster the draws are together."""
    print(f"  {machine()}; default protocol, {DRAWS} draws")
    for rows, dim, task, classes in CASES:
        fitting = Fitting(get_protocol("default")).on(task, classes)
        draws = [(drawn(rows, dim, classes, seed), seed) for seed in range(DRAWS)]
        together, apart, ratio = paired(
            partial(fit_probes, draws, fitting), partial(one_by_one, draws, fitting), rounds=ROUNDS
        )
        same = zip(fit_probes(draws, fitting), one_by_one(draws, fitting), strict=True)
        numbers = "the same numbers" if all(equal(a.probe, b.probe) for a, b in same) else "OTHER NUMBERS"
        note = f"{together:.2f} s, one after another {apart:.2f} s; {numbers}"
        row(f"{rows} x {dim}, {classes} classes", ratio, reach="> 1", note=note)


def one_by_one(draws: Sequence[Draw], fitting: Fitting) -> list[Fitted]:
    return [fit_probe(budget, fitting, seed=seed) for budget, seed in draws]


def equal(one: Probe, other: Probe) -> bool:
    """Say whether two linear probes have the same coefficients."""
    assert isinstance(one, LinearProbe)
    assert isinstance(other, LinearProbe)
    return np.array_equal(one.coef, other.coef)


def drawn(rows: int, dim: int, classes: int, seed: int) -> LabelledRows[Array]:
    """Return a draw that has every class at least twice."""
    shown = features(rows, 64, seed=seed)[1]
    X, _ = features(rows, dim, seed=seed, shared=shown)
    y = labels(shown, "binary") if classes == 2 else labels(shown, "multiclass", classes)
    y[: 2 * classes] = np.repeat(np.arange(classes), 2)
    return LabelledRows(X, y)


if __name__ == "__main__":
    main()
