"""The mean probability of logistic regression and shrinkage LDA, on square roots of the features.

Linear discriminant analysis with the covariance W of the rows around their classes' means, shrunk towards a multiple of
the identity:

    S = (1 - a) W + a mu I,    mu = trace(W) / d

Ledoit and Wolf (2004) estimate the a that is best for S itself,

    a = min(b, c) / c,    c = |W - mu I|^2,    b = (sum_i |x_i|^4 / n - |W|^2) / n

For classification it is often too small, and LDA on more features than rows is far too confident.  So a is one of
several candidates, and the logits are divided by a temperature; the log loss of the mean on held-out rows chooses both.
LDA reads rows of unit length that are not standardised.  With fewer rows than features, everything is computed in
coordinates of the rows' span, which gives the same results in less time: scikit-learn's LedoitWolf, with which the
tests compare, takes a second per fold on three models' features and 300 rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from mt.probe.method_settings import Blend, BlendFour
from mt.probe.methods.linear import Floats, LinearProbe, Scaling, fit_logistic_probes
from mt.probe.protocols import Fitted, Fitting, FoldPredictions, Probe
from mt.types import MISSING, Array, LabelledRows

Draws = Sequence[tuple[LabelledRows[Array], int]]
_ROWS = 2_048  # rows turned into float64 at once
_LEAST = 1e-6  # smallest shrinkage: a covariance of fewer rows than coordinates can then be inverted


def fit_blends(
    draws: Draws,
    fitting: Fitting,
    method: Blend,
    validation: LabelledRows[Array] | None,
    widths: Sequence[int] | None = None,
) -> list[Fitted]:
    """Fit every transform of each draw, and keep the first unless another is clearly better on held-out rows.

    widths: the sizes of blocks of columns, one per model; a block is transformed as a whole.  None is one block.
    """
    found: list[dict[str, Fitted]] = [{} for _ in draws]
    for transform in method.transforms:
        columns = [roots(rows.X, widths) if transform == "root" else None for rows, _ in draws]
        wanted = [number for number, root in enumerate(columns) if transform != "root" or root is not None]
        if not wanted:
            continue
        some = [draws[number] for number in wanted]
        fitted = fit_logistic_probes(some, fitting, method.logistic, validation, [columns[number] for number in wanted])
        for number, (rows, _), one in zip(wanted, some, fitted, strict=True):
            found[number][transform] = with_lda(one, rows, fitting, method, validation)
    return [
        _chosen(by_transform, fitting, rows, validation) for by_transform, (rows, _) in zip(found, draws, strict=True)
    ]


def roots(X: Array, widths: Sequence[int] | None = None) -> npt.NDArray[np.bool_] | None:
    """Return which columns become square roots: those of blocks without a negative value; None for no column."""
    ends = np.cumsum(widths or [X.shape[1]])
    root = np.concatenate([np.full(len(part.T), bool((part >= 0).all())) for part in np.split(X, ends[:-1], axis=1)])
    return root if root.any() else None


def with_lda(
    fitted: Fitted, rows: LabelledRows[Array], fitting: Fitting, method: Blend, validation: LabelledRows[Array] | None
) -> Fitted:
    """Return the mean of a logistic regression and LDA.

    Without LDA (too few classes, another task, or no held-out rows), return the logistic regression, flagged no_lda.
    """
    linear = fitted.probe
    assert isinstance(linear, LinearProbe)
    if not len(linear.outputs):
        return fitted
    several = fitting.task == "multiclass" and len(linear.outputs) >= method.least
    folded = on_validation(linear, validation) if validation is not None and several else fitted.folded
    if not several or folded is None:
        return replace(fitted, flags=(*fitted.flags, "no_lda"))
    dim = rows.X.shape[1]
    scaling = Scaling(np.zeros(dim), np.ones(dim), unit=True, root=linear.scaling.root)
    lda, alone, settings = lda_beside(folded, linear, scaling, rows, method, validation)
    settings = {**fitted.settings, **settings}
    fitted = replace(fitted, probe=MeanProbe((linear, lda), (0.5, 0.5)), settings=settings)
    if validation is not None:
        return fitted
    both = replace(folded, p=(folded.p + alone) / 2)
    kept = both.kept(linear.outputs, fitting.n_classes, binary=False)
    return replace(fitted, held_out=kept, folded=both)


def lda_beside(
    folded: FoldPredictions,
    linear: LinearProbe,
    scaling: Scaling,
    rows: LabelledRows[Array],
    method: Blend | BlendFour,
    validation: LabelledRows[Array] | None,
) -> tuple[LinearProbe, Floats, dict[str, Any]]:
    """Return LDA on scaled rows, its probabilities of held-out rows (repeats, n, outputs), and its settings.

    Its shrinkage and temperature give the mean of LDA and `folded` the lowest log loss on held-out rows.
    linear: the logistic regression whose task and classes LDA takes.
    """
    from scipy.special import softmax

    span, n_outputs = Span.of(scaling.apply(rows.X)), len(linear.outputs)
    y = np.searchsorted(linear.outputs, rows.y)

    def lda_at(shrinkage: float | None) -> tuple[Floats, Floats]:
        coef, intercept = span.lda(np.arange(len(y)), y, n_outputs, shrinkage)
        return coef if span.axes is None else coef @ span.axes.T, intercept

    def logits_at(shrinkage: float | None) -> Floats:
        if validation is None:
            return _held_out_logits(folded, span, shrinkage)
        coef, intercept = lda_at(shrinkage)
        return np.asarray(scaling.apply(validation.X, "float64") @ coef.T + intercept)[None]

    found = {
        (shrinkage, T): softmax(logits / T, axis=-1)
        for shrinkage in method.shrinkages
        for logits in [logits_at(shrinkage)]
        for T in method.temperatures
    }
    scores = {chosen: float(np.nanmean(folded.losses((folded.p + p) / 2))) for chosen, p in found.items()}
    shrinkage, T = best = min(scores, key=scores.__getitem__)
    coef, intercept = lda_at(shrinkage)
    lda = replace(linear, scaling=scaling, coef=coef / T, intercept=intercept / T)
    return lda, found[best], {"shrinkage": shrinkage, "temperature": T}


def _held_out_logits(folded: FoldPredictions, span: Span, shrinkage: float | None) -> Floats:
    """Return LDA's logits (repeats, n, outputs) of the rows that each fold omits."""
    logits = np.empty_like(folded.p)
    for repeat, fold in enumerate(folded.fold):
        for number in np.unique(fold):
            held, inside = np.flatnonzero(fold == number), np.flatnonzero(fold != number)
            coef, intercept = span.lda(inside, folded.y[inside], logits.shape[2], shrinkage)
            logits[repeat, held] = span.X[held].astype(np.float64) @ coef.T + intercept
    return logits


def columns_of(p: Array, linear: LinearProbe) -> Floats:
    """Return the probabilities (n, outputs) of the classes that the budget holds."""
    p = p.astype(np.float64)
    return np.asarray((np.column_stack([1 - p, p]) if p.ndim == 1 else p)[:, linear.outputs])


def on_validation(linear: LinearProbe, validation: LabelledRows[Array]) -> FoldPredictions:
    """Return a probe's predictions of the validation split, in the form of one fold."""
    known = np.isin(validation.y, linear.outputs)
    y = np.where(known, np.searchsorted(linear.outputs, validation.y).clip(max=len(linear.outputs) - 1), 0)
    p = columns_of(linear.probabilities(validation.X), linear)[None]
    return FoldPredictions(p, np.zeros((1, len(y)), dtype=int), y, known[None])


def _chosen(
    found: dict[str, Fitted], fitting: Fitting, rows: LabelledRows[Array], validation: LabelledRows[Array] | None
) -> Fitted:
    """Return the first transform's fit, or another's if its log loss is lower by more than a standard error."""
    names = list(found)
    losses = [losses_of(found[name], fitting, validation) for name in names]
    best, account = clearly_lowest(losses, rows.groups if validation is None else validation.groups)
    fitted = found[names[best]]
    selection = {**fitted.selection, "transforms": dict(zip(names, account, strict=True))} if account else {}
    settings = {**fitted.settings, "transform": names[best]}
    return replace(fitted, settings=settings, selection=selection or fitted.selection)


def losses_of(fitted: Fitted, fitting: Fitting, validation: LabelledRows[Array] | None) -> Array | None:
    """Return the log loss of each held-out (or validation) row; NaN if it cannot be scored, None without such rows."""
    if validation is not None:
        return log_losses(fitted.probe.probabilities(validation.X), validation.y, fitting.task)
    return None if fitted.folded is None else fitted.folded.losses()


def log_losses(p: Array, y: Array, task: str) -> Array:
    """Return the log loss (n,) of each row; NaN if its class has probability 0.

    In multilabel it is the mean over the row's known labels; NaN if none is known.
    """
    p = p.astype(np.float64)
    if task == "multilabel":
        entries = -np.log(np.maximum(np.where(y > 0, p, 1 - p), 1e-12))
        known = y != MISSING
        count = np.where(known.any(axis=1), known.sum(axis=1), np.nan)
        return np.asarray(np.where(known, entries, 0.0).sum(axis=1) / count)
    of_class = np.where(y > 0, p, 1 - p) if task == "binary" else p[np.arange(len(y)), y]
    return np.asarray(np.where(of_class > 0, -np.log(np.maximum(of_class, 1e-12)), np.nan))


def clearly_lowest(losses: Sequence[Array | None], groups: Any) -> tuple[int, list[dict[str, float]]]:
    """Return the number of the candidate whose losses (n,) gain most over the first's, and every candidate's numbers.

    It is 0, the first, unless the gain exceeds its standard error, which is computed over groups if they are known.
    The numbers are mean loss, gain and standard error; empty if no row can be scored.
    """
    tables = [one for one in losses if one is not None]
    known = np.isfinite(np.stack(tables)).all(axis=0) if len(tables) == len(losses) else np.zeros(1, dtype=bool)
    if not known.any():
        return 0, []
    scored = [one[known] for one in tables]
    unit = np.arange(known.sum()) if groups is None else np.unique(np.asarray(groups)[known], return_inverse=True)[1]
    account, best, most = list[dict[str, float]](), 0, 0.0
    for number, one in enumerate(scored):
        difference = scored[0] - one
        gain = float(difference.mean())
        error = float(np.sqrt(np.square(np.bincount(unit, weights=difference - gain)).sum()) / len(difference))
        account.append({"log_loss": float(one.mean()), "gain": gain, "standard_error": error})
        if gain > max(most, error):
            best, most = number, gain
    return best, account


@dataclass(frozen=True)
class MeanProbe:
    """The weighted mean of the probabilities of several probes on the same embeddings."""

    probes: tuple[Probe, ...]
    weights: tuple[float, ...]

    def probabilities(self, X: Array) -> npt.NDArray[np.float32]:
        parts = zip(self.weights, self.probes, strict=True)
        total = sum(weight * probe.probabilities(X).astype(np.float64) for weight, probe in parts)
        return np.asarray(total, dtype=np.float32)


@dataclass(frozen=True)
class Span:
    """Rows in coordinates X (n, r) of the span of their features (n, d).

    axes (d, r): the orthonormal axes of the coordinates; None if the coordinates are the features.  dim: d.
    """

    X: Array
    axes: Floats | None
    dim: int

    @classmethod
    def of(cls, X: Array) -> Span:
        """Return the rows as they are or, with fewer rows than features, in coordinates of their span."""
        n, dim = X.shape
        if n >= dim:
            return cls(X, None, dim)
        rows = X.astype(np.float64)
        squares, vectors = np.linalg.eigh(rows @ rows.T)
        kept = squares > max(squares[-1], 1e-300) * n * np.finfo(np.float64).eps
        lengths = np.sqrt(squares[kept])
        return cls(vectors[:, kept] * lengths, rows.T @ (vectors[:, kept] / lengths), dim)

    def lda(self, rows: Array, y: Array, n_outputs: int, shrinkage: float | None) -> tuple[Floats, Floats]:
        """Return LDA's coefficients (outputs, r) and intercepts (outputs,), fitted on these rows with classes y.

        A class without rows gets the intercept -inf.  shrinkage: a; None is Ledoit and Wolf's estimate.
        """
        from scipy.linalg import cho_factor, cho_solve

        counts = np.bincount(y, minlength=n_outputs)
        means = self._means(rows, y, counts)
        scatter, best, mu = self.covariance(rows, y, means)
        shrinkage = best if shrinkage is None else shrinkage
        scatter *= 1 - shrinkage
        scatter[np.diag_indices_from(scatter)] += shrinkage * mu
        coef = cho_solve(cho_factor(scatter, overwrite_a=True), means.T).T
        with np.errstate(divide="ignore"):
            intercept = np.log(counts / len(y)) - (coef * means).sum(axis=1) / 2
        return coef, intercept

    def _means(self, rows: Array, y: Array, counts: Array) -> Floats:
        sums = np.zeros((len(counts), self.X.shape[1]))
        for start in range(0, len(rows), _ROWS):
            some = slice(start, start + _ROWS)
            np.add.at(sums, y[some], self.X[rows[some]].astype(np.float64))
        return np.asarray(sums / np.maximum(counts, 1)[:, None])

    def covariance(self, rows: Array, y: Array, means: Floats) -> tuple[Floats, float, float]:
        """Return the covariance around the classes' means (r, r), Ledoit and Wolf's shrinkage, and mu."""
        n, width = len(rows), self.X.shape[1]
        scatter, fourth, around = np.zeros((width, width)), 0.0, 0.0
        middle = means[np.unique(y)].mean(axis=0)
        for start in range(0, n, _ROWS):
            some = slice(start, start + _ROWS)
            part = self.X[rows[some]].astype(np.float64)
            around += float(np.square(part - middle).sum())
            part -= means[y[some]]
            scatter += part.T @ part
            fourth += float(np.square(np.square(part).sum(axis=1)).sum())
        scatter /= n
        trace, square = float(np.trace(scatter)), float(np.square(scatter).sum())
        mu = trace / self.dim
        distance = square - trace * mu
        if trace <= 1e-12 * around / n or distance <= 0:  # one row per class: the nearest mean, by the rows' own spread
            return scatter, 1.0, max(around / n, 1e-300) / self.dim
        shrinkage = min(1.0, max(_LEAST, (fourth / n - square) / n / distance))
        return scatter, shrinkage, mu
