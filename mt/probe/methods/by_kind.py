"""Every method of the protocols behind one function; what fits is imported when it is used."""

from __future__ import annotations

from collections.abc import Sequence

from mt.probe.bags import Bags
from mt.probe.method_settings import Blend, Logistic, Neighbours, Propagate
from mt.probe.methods.attention import fit_attention
from mt.probe.methods.propagation import UnlabelledPool
from mt.probe.protocols import Fitted, Fitting
from mt.types import Array, LabelledRows


def fit_draws(
    draws: Sequence[tuple[LabelledRows[Array], int]], fitting: Fitting, validation: LabelledRows[Array] | None,
    pool: UnlabelledPool | None,
) -> list[Fitted]:  # fmt: skip
    """Fit a protocol's method on several budgets with their seeds."""
    method = fitting.protocol.method
    if isinstance(draws[0][0].X, Bags):
        return [fit_attention(budget, fitting, seed, validation) for budget, seed in draws]
    if isinstance(method, Logistic):
        from mt.probe.methods.linear import fit_logistic_probes

        return fit_logistic_probes(draws, fitting, method, validation)
    if isinstance(method, Blend):
        from mt.probe.methods.blend import fit_blends

        return fit_blends(draws, fitting, method, validation)
    if isinstance(method, Propagate):
        from mt.probe.methods.propagation import fit_propagations

        return fit_propagations(draws, fitting, method, validation, pool)
    if isinstance(method, Neighbours):
        from mt.probe.methods.neighbours import fit_neighbours

        return [fit_neighbours(budget, fitting, method, seed, validation) for budget, seed in draws]
    from mt.probe.methods.gradient_heads import fit_head

    return [fit_head(budget, fitting, method, seed, validation) for budget, seed in draws]
