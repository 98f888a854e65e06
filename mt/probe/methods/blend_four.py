"""Four models combined: logistic regression and shrinkage LDA, each on the features and on their square roots.

    p = ((l1 + l2) / 2 * (d1 + d2) / 2) ^ (1 / (2 T)),  normalised

l1, l2 are the probabilities of logistic regression on the features and on their square roots, d1, d2 those of LDA.
With several models, the first LDA reads each model's features at unit length, and the second the square roots of all
features together at unit length.  So the two differ in more than the root, which improves their mean.  Held-out rows
choose all settings: the shrinkage and temperature of each LDA by the log loss of its mean with (l1 + l2) / 2, and T by
the log loss of p.

Several models also have a p of their own each, p_1 ... p_M, fitted on their features alone, and the prediction is

    (p^(3/4) * (p_1 * ... * p_M)^(1/(4M)))^(1/T'),  normalised

where T' has the lowest log loss on held-out rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from mt.probe.method_settings import BlendFour
from mt.probe.methods.blend import Draws, MeanProbe, columns_of, lda_beside, on_validation, roots
from mt.probe.methods.linear import Floats, LinearProbe, Scaling, fit_logistic_probes
from mt.probe.protocols import Fitted, Fitting, FoldPredictions, Probe
from mt.types import Array, LabelledRows

_FLOOR = 1e-5  # probabilities are at least this before their logarithms are taken
TOGETHER = 0.75  # the weight of the fit on all models' features; those on one model's share the rest


@dataclass(frozen=True)
class ProductProbe:
    """The normalised product of the probabilities of several probes, each to the power weight / temperature.

    outputs (m,): the classes that the probes know; all others get probability 0.
    """

    probes: tuple[Probe, ...]
    weights: tuple[float, ...]
    outputs: npt.NDArray[np.int64]
    temperature: float

    def probabilities(self, X: Array) -> npt.NDArray[np.float32]:
        found = [probe.probabilities(X).astype(np.float64) for probe in self.probes]
        out = np.zeros_like(found[0])
        out[:, self.outputs] = product([p[:, self.outputs] for p in found], self.weights, self.temperature)
        return out.astype(np.float32)


def product(parts: Sequence[Array], weights: Sequence[float], temperature: float) -> Floats:
    """Return the normalised product of probabilities (..., outputs), each to the power weight / temperature."""
    from scipy.special import softmax

    logs = sum(weight * np.log(np.maximum(p, _FLOOR)) for weight, p in zip(weights, parts, strict=True))
    return np.asarray(softmax(logs / temperature, axis=-1))


@dataclass(frozen=True)
class ColumnsProbe:
    """A probe on one model's columns, first to before end, of features that lie side by side."""

    probe: Probe
    first: int
    end: int

    def probabilities(self, X: Array) -> npt.NDArray[np.float32]:
        return self.probe.probabilities(X[:, self.first : self.end])


def fit_four_blends(
    draws: Draws, fitting: Fitting, method: BlendFour, validation: LabelledRows[Array] | None
) -> list[Fitted]:
    """Fit the four parts on each draw, of each model too if there are several, and choose how to combine them.

    Raises ValueError for several models with a validation split: their folds choose.
    """
    together = _fit_four(draws, fitting, method, validation)
    if len(fitting.widths) < 2 or fitting.task != "multiclass":
        return together
    if validation is not None:
        raise ValueError("Several models are combined on folds of the budget, not on a validation split.")
    ends = np.cumsum(fitting.widths).tolist()
    blocks = list(zip([0, *ends], ends, strict=False))
    alone = replace(fitting, widths=())
    each = [
        _fit_four([(rows.with_features(rows.X[:, first:end]), seed) for rows, seed in draws], alone, method, None)
        for first, end in blocks
    ]
    return [
        _of_all(whole, ones, blocks, fitting, method)
        for whole, ones in zip(together, zip(*each, strict=True), strict=True)
    ]


def _of_all(
    together: Fitted, each: Sequence[Fitted], blocks: Sequence[tuple[int, int]], fitting: Fitting, method: BlendFour
) -> Fitted:
    """Return the product of the fit on all models' features and those on one model's; without LDA, the first alone."""
    probe, folds = together.probe, [one.folded for one in (together, *each) if one.folded is not None]
    if not isinstance(probe, ProductProbe) or len(folds) <= len(each):
        return together
    weights = TOGETHER, *[(1 - TOGETHER) / len(each)] * len(each)
    T, folded, scores = _tempered([one.p for one in folds], weights, folds[0], method)
    columns = (ColumnsProbe(one.probe, *block) for one, block in zip(each, blocks, strict=True))
    return Fitted(
        ProductProbe((probe, *columns), weights, probe.outputs, T),
        {**together.settings, "each": [one.settings for one in each], "temperature_of_all": T},
        {**together.selection, "temperatures_of_all": scores},
        tuple(dict.fromkeys(flag for one in (together, *each) for flag in one.flags)),
        folded.kept(probe.outputs, fitting.n_classes, binary=False),
        folded,
    )


def _tempered(
    parts: Sequence[Array], weights: Sequence[float], folded: FoldPredictions, method: BlendFour
) -> tuple[float, FoldPredictions, list[list[float]]]:
    """Return the temperature of a product with the lowest log loss on held-out rows, its predictions, and all losses.

    parts: probabilities (repeats, n, outputs) of the rows of `folded`.
    """
    joined = {T: replace(folded, p=product(parts, weights, T)) for T in method.final_temperatures}
    scores = {T: float(np.nanmean(one.losses())) for T, one in joined.items()}
    T = min(scores, key=scores.__getitem__)
    return T, joined[T], [[T, score] for T, score in scores.items()]


def _fit_four(
    draws: Draws, fitting: Fitting, method: BlendFour, validation: LabelledRows[Array] | None
) -> list[Fitted]:
    """Fit the four parts on each draw, and choose on held-out rows how to combine them."""
    columns = [roots(rows.X, fitting.widths or None) for rows, _ in draws]
    plain = fit_logistic_probes(draws, fitting, method.logistic, validation)
    rooted = iter(
        fit_logistic_probes(
            [draw for draw, root in zip(draws, columns, strict=True) if root is not None],
            fitting,
            method.logistic,
            validation,
            [root for root in columns if root is not None],
        )
    )
    return [
        _together([one] if root is None else [one, next(rooted)], rows, fitting, method, validation)
        for one, root, (rows, _) in zip(plain, columns, draws, strict=True)
    ]


def _together(
    parts: list[Fitted],
    rows: LabelledRows[Array],
    fitting: Fitting,
    method: BlendFour,
    validation: LabelledRows[Array] | None,
) -> Fitted:
    """Return the combined model of one draw.

    parts: the logistic regression on the features and, if there are square roots, the one on them.
    """
    first = parts[0]
    linear = [part.probe for part in parts if isinstance(part.probe, LinearProbe)]
    outputs = linear[0].outputs
    if not len(outputs):
        return first
    both = _mean_of_logistic(parts, fitting)
    several = fitting.task == "multiclass" and len(outputs) >= method.least
    folded = both.folded
    if validation is not None and several:
        folded = on_validation(linear[0], validation)
        folded = replace(folded, p=columns_of(both.probe.probabilities(validation.X), linear[0])[None])
    if not several or folded is None:
        return replace(both, flags=(*both.flags, "no_lda"))
    ldas = [
        lda_beside(folded, linear[0], scaling, rows, method, validation) for scaling in _scalings(rows, linear, fitting)
    ]
    mean = np.mean([p for _, p, _ in ldas], axis=0)
    T, joined, scores = _tempered([folded.p, mean], (0.5, 0.5), folded, method)
    probes = both.probe, MeanProbe(tuple(lda for lda, _, _ in ldas), (1 / len(ldas),) * len(ldas))
    both = replace(
        both,
        probe=ProductProbe(probes, (0.5, 0.5), outputs, T),
        settings={**both.settings, "lda": [settings for _, _, settings in ldas], "temperature": T},
        selection={**both.selection, "temperatures": scores},
    )
    if validation is not None:
        return both
    return replace(both, held_out=joined.kept(outputs, fitting.n_classes, binary=False), folded=joined)


def _mean_of_logistic(parts: Sequence[Fitted], fitting: Fitting) -> Fitted:
    """Return the mean of the logistic regressions on the features and on their roots, with both choices' scores."""
    share = (1 / len(parts),) * len(parts)
    folds = [part.folded for part in parts if part.folded is not None]
    held = [part.held_out for part in parts if part.held_out is not None]
    folded = replace(folds[0], p=np.mean([one.p for one in folds], axis=0)) if len(folds) == len(parts) else None
    selection: dict[str, Any] = dict(parts[0].selection)
    if len(parts) > 1 and selection:
        selection["roots"] = dict(parts[1].selection)
    return Fitted(
        MeanProbe(tuple(part.probe for part in parts), share),
        {name: part.settings["C"] for name, part in zip(("C", "C_of_roots"), parts, strict=False)},
        selection,
        tuple(dict.fromkeys(flag for part in parts for flag in part.flags)),
        np.mean(held, axis=0) if len(held) == len(parts) else None,
        folded,
    )


def _scalings(rows: LabelledRows[Array], linear: Sequence[LinearProbe], fitting: Fitting) -> list[Scaling]:
    """Return the scalings of the two LDAs: each model's features at unit length, and the roots of all together.

    Without roots and with one model both would be the same: then there is one LDA.
    """
    dim = rows.X.shape[1]
    unit = Scaling(np.zeros(dim), np.ones(dim), unit=True)
    found = [replace(unit, widths=fitting.widths), replace(unit, root=linear[-1].scaling.root)]
    return found if len(linear) > 1 or len(fitting.widths) > 1 else found[:1]
