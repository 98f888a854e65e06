"""One draw, one protocol -> a fitted probe.  Everything here sees the budget and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from mt.probe.methods.base import Fitted, Fitting
from mt.probe.protocols import Logistic, Neighbours
from mt.types import Array, LabelledRows

Budget = LabelledRows[Array]


def fit_probe(budget: Budget, fitting: Fitting, *, seed: int, validation: Budget | None = None) -> Fitted:
    """Fit a protocol on a budget; `validation` holds the rows of the validation split if they choose instead."""
    return fit_probes([(budget, seed)], fitting, validation=validation)[0]


def fit_probes(
    draws: Sequence[tuple[Budget, int]], fitting: Fitting, *, validation: Budget | None = None
) -> list[Fitted]:
    """Fit a protocol on several budgets with their seeds; each fit is the one that its budget gets alone."""
    method = fitting.protocol.method
    if isinstance(method, Logistic):
        from mt.probe.methods.linear import fit_logistic_probes

        return fit_logistic_probes(draws, fitting, method, validation)
    if isinstance(method, Neighbours):
        from mt.probe.methods.neighbours import fit_neighbours

        return [fit_neighbours(budget, fitting, method, seed, validation) for budget, seed in draws]
    from mt.probe.methods.gradient_heads import fit_head

    return [fit_head(budget, fitting, method, seed, validation) for budget, seed in draws]
