"""Problems whose rows are read from a file: each pass over the rows computes values and gradients of all problems.

No array of the size of the features, or of rows times problems, is held: a chunk of rows is read, scaled, centred,
multiplied with the weights of all problems, and its residual multiplied back at once.  So a step of L-BFGS takes one
pass if its first length is accepted, and one more for each further length that some problems try.

Rows keep the features' own coordinates, and the weights are rotated instead: Z W = X (A W).  Directions that are too
weak for the precision of the products are computed from the row in double precision.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from mt.errors import FitError
from mt.probe.solver.basis import SAMPLED, STRONG, Basis, add_gram, sample_rows
from mt.probe.solver.fits import FitSet, Loss, Sigmoid, Softmax, class_mass
from mt.probe.solver.lbfgs import THIN, ScaledProblems
from mt.probe.solver.row_source import StreamedRows

# Bytes of a chunk of rows in the precision of the products.
CHUNK_BYTES = 8 << 20
# Entries of a chunk's logits at once: intermediate results then stay in a core's cache.
LOGITS = 2**18


@dataclass(frozen=True, eq=False)
class StreamedDesign:
    """Centred rows in the coordinates of ``axes`` (dim, rank), read chunk by chunk, with a last column of ones.

    ``mean`` (dim,) is the mean of the scaled rows.  The first ``weak`` axes are computed in double precision.
    """

    source: StreamedRows
    mean: Tensor
    axes: Tensor
    weak: int
    dtype: torch.dtype
    strong: Tensor = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "strong", self.axes[:, self.weak :].to(self.dtype))

    def __len__(self) -> int:
        return len(self.source)

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.source), self.axes.shape[1] + 1

    @property
    def device(self) -> torch.device:
        return self.mean.device

    def element_size(self) -> int:
        return self.dtype.itemsize

    def double(self) -> StreamedDesign:
        """Return the same design in double precision."""
        return replace(self, dtype=torch.float64)

    @property
    def chunk_rows(self) -> int:
        """The number of rows in memory at once."""
        return max(1, min(len(self), CHUNK_BYTES // (self.element_size() * self.source.shape[1])))

    def chunks(self) -> Iterator[tuple[slice, Chunk]]:
        """Yield all rows, in order: one pass."""
        read = Reader(self.source, torch.float64 if self.weak else self.dtype, self.mean)
        for rows, chunk in read.chunks(self.chunk_rows):
            weak = (chunk @ self.axes[:, : self.weak]).to(self.dtype) if self.weak else None
            yield rows, Chunk(chunk.to(self.dtype), weak)

    def logits(self, weights: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Yield the logits (rows, outputs) of weights (outputs, columns); read nothing if only intercepts are set."""
        if not weights[:, :-1].any():
            for start in range(0, len(self), self.chunk_rows):
                rows = slice(start, min(start + self.chunk_rows, len(self)))
                yield rows, weights[:, -1].repeat(rows.stop - rows.start, 1)
            return
        turned = self.turned(weights)
        for rows, chunk in self.chunks():
            yield rows, chunk.times(turned)

    def fill_held_out(self, oof: np.ndarray, weights: Tensor, number: np.ndarray) -> None:
        """Fill ``oof`` (Cs, rows, outputs) with each row's logits by the fit that omits its fold: one pass.

        ``weights`` (folds, Cs, outputs, columns); ``number`` (rows,) is the fold of each row.
        """
        flat = weights.flatten(0, 2).to(self.device, self.dtype)
        for rows, logits in self.logits(flat):
            by_fold = logits.reshape(len(logits), *weights.shape[:3]).cpu().numpy()
            oof[:, rows] = by_fold[np.arange(len(logits)), number[rows]].transpose(1, 0, 2)

    def turned(self, weights: Tensor) -> Turned:
        """Return weights (outputs, columns) in the features' own coordinates."""
        own = weights[:, self.weak : -1] @ self.strong.T
        return Turned(own, weights[:, : self.weak], weights[:, -1])

    def rows(self, chunk: Chunk) -> Tensor:
        """Return a chunk's rows of the design (rows, columns)."""
        parts = [chunk.own @ self.strong, chunk.own.new_ones(len(chunk.own), 1)]
        return torch.cat(parts if chunk.weak is None else [chunk.weak, *parts], dim=1)

    def losses(self, fits: FitSet, number: Tensor) -> tuple[StreamedLoss, Tensor, Tensor]:
        """Return the losses of problems of the fits of these numbers, their total weights and their base rates."""
        return StreamedLoss.of(fits, number, self.dtype)

    def block(self, batch: ScaledProblems) -> StreamedBlock:
        """Return all rows as the one block of a batch of problems."""
        return StreamedBlock(self, batch)

    def hessian(self, loss: Loss, weights: Tensor, penalty: Tensor, *, whole: bool) -> Tensor:
        """Return Σ w (diag(p) - p pᵀ) ⊗ z zᵀ, and δ on the diagonal, of one problem's weights (outputs, columns).

        Whole (1, size, size), or its diagonal blocks (outputs, columns, columns): one pass.
        """
        outputs, columns = weights.shape
        blocks = weights.new_zeros(outputs, columns, columns)
        coupled = weights.new_zeros(outputs * columns, outputs * columns) if whole else None
        turned = self.turned(weights)
        for rows, chunk in self.chunks():
            here, design = loss.rows(rows), self.rows(chunk)
            p = here.probabilities(chunk.times(turned)[:, None])[:, 0]
            weight = here.weights.reshape(-1, 1)
            for block, column in zip(blocks, (weight * p * (1 - p)).T, strict=True):
                add_gram(block, design, design * column[:, None])
            if coupled is not None:
                pairs = ((weight.sqrt() * p)[:, :, None] * design[:, None, :]).flatten(1)
                coupled.addmm_(pairs.T, pairs, alpha=-1)
        blocks = blocks.triu() + blocks.triu(1).mT + torch.diag(penalty)
        if coupled is None:
            return blocks
        for k in range(outputs):
            own = slice(k * columns, (k + 1) * columns)
            coupled[own, own] = blocks[k]
        return coupled[None]


@dataclass(frozen=True)
class Turned:
    """Weights of the features' own coordinates (outputs, dim), of the weak axes (outputs, weak), and intercepts."""

    own: Tensor
    weak: Tensor
    intercept: Tensor


@dataclass(frozen=True)
class Chunk:
    """Centred rows (rows, dim), and their coordinates on the weak axes (rows, weak); None without any."""

    own: Tensor
    weak: Tensor | None

    def times(self, weights: Turned) -> Tensor:
        """Return the logits (rows, outputs)."""
        logits = torch.addmm(weights.intercept, self.own, weights.own.T)
        return logits if self.weak is None else logits.addmm_(self.weak, weights.weak.T)


class Reader:
    """Reads rows, scales them as their source requires, and centres them, in one precision.

    In single precision, the mean rounded to float32 is subtracted first and the rest later: the first difference is
    exact even if a column's mean is many times its spread.
    """

    def __init__(self, source: StreamedRows, dtype: torch.dtype, mean: Tensor | None) -> None:
        self.source, self.dtype, self.mean = source, dtype, mean
        self.scaling = scaling = source.scaling
        device = torch.device("cpu") if mean is None else mean.device
        dim = source.shape[1]
        self.device = device
        shift, factor = np.zeros(dim), np.ones(dim)
        self.clip, self.unit, self.root = np.inf, False, None
        if scaling is not None:
            shift, factor, self.clip, self.unit = scaling.mean, 1 / scaling.scale, scaling.clip, scaling.unit
            self.root = None if scaling.root is None else torch.from_numpy(scaling.root).to(device)
        shift_tensor = torch.from_numpy(shift).to(device)
        centre = torch.zeros_like(shift_tensor) if mean is None else mean
        if self.clip == np.inf and not self.unit:
            # (x - shift) factor - centre  =  (x - (shift + centre / factor)) factor
            shift_tensor, centre = shift_tensor + centre / torch.from_numpy(factor).to(device), torch.zeros_like(centre)
        self.shift = shift_tensor.to(dtype)
        self.rest = (-(shift_tensor - self.shift.double()) * torch.from_numpy(factor).to(device)).to(dtype)
        self.factor = torch.from_numpy(factor).to(device).to(dtype)
        self.centre = centre.to(dtype) if centre.any() else None

    def chunks(self, at_once: int) -> Iterator[tuple[slice, Tensor]]:
        """Yield (rows, those rows), `at_once` at a time: one pass."""
        for rows, raw in self.source.read_ahead(at_once):
            yield rows, self.prepared(raw)

    def prepared(self, raw: np.ndarray) -> Tensor:
        """Return rows as they are stored scaled and centred; they may be overwritten."""
        chunk = torch.from_numpy(raw).to(self.device).to(self.dtype)
        if self.root is not None:
            chunk = torch.where(self.root, chunk.clamp(min=0).sqrt_(), chunk)
        chunk = torch.addcmul(self.rest, chunk.sub_(self.shift), self.factor, out=chunk)
        if self.clip < np.inf:
            chunk.clamp_(-self.clip, self.clip)
        if self.unit:
            chunk /= torch.linalg.vector_norm(chunk, dim=1, keepdim=True).clamp_(min=1e-12)
        return chunk if self.centre is None else chunk.sub_(self.centre)


class StreamedBlock:
    """All rows of a streamed design, for the problems of a batch: RowBlock's counterpart, without a row's logits.

    ``value`` (problems,) and ``gradient`` (problems, outputs, columns) are the losses and their derivatives at
    ``weights``.
    """

    def __init__(self, design: StreamedDesign, batch: ScaledProblems) -> None:
        self.design, self.loss, self.weights = design, batch.loss, batch.start.clone()
        self.problems = torch.arange(len(batch.start), device=design.device)
        self.value, self.gradient = self._evaluate(self.problems, self.weights)
        self.move, self.tried = torch.zeros_like(self.weights), torch.zeros_like(self.weights[:, 0, 0])
        self.trial = self.value, self.gradient

    def _evaluate(self, some: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return losses and derivatives of some problems at these weights: one pass for all of them."""
        problems, outputs, columns = weights.shape
        design, loss = self.design, self.loss.select(some)
        # As in RowBlock the problems lie innermost.
        turned = design.turned(weights.transpose(0, 1).flatten(0, 1))
        value = torch.zeros(problems, dtype=torch.float64, device=weights.device)
        own = torch.zeros(problems * outputs, design.axes.shape[0], dtype=torch.float64, device=weights.device)
        weak = own.new_zeros(problems * outputs, design.weak)
        intercept = own.new_zeros(problems * outputs)
        for rows, chunk in design.chunks():
            logits = chunk.times(turned)
            residual = torch.empty_like(logits)
            step = max(1, LOGITS // logits.shape[1])
            here = loss.rows(rows)
            for start in range(0, len(logits), step):
                part = slice(start, start + step)
                some_rows, own_loss = logits[part].view(-1, outputs, problems).transpose(1, 2), here.rows(part)
                value += own_loss.value(some_rows)
                residual[part] = own_loss.residual(some_rows).transpose(1, 2).flatten(1)
            own += residual.T @ chunk.own if residual.shape[1] < THIN else (chunk.own.T @ residual).T
            intercept += residual.sum(0)
            if chunk.weak is not None:
                weak += residual.T @ chunk.weak
        gradient = torch.cat([weak, own @ design.axes[:, design.weak :], intercept[:, None]], dim=1)
        return value, gradient.reshape(outputs, problems, columns).transpose(0, 1).to(weights.dtype)

    def differentiate(self, value: Tensor, gradient: Tensor) -> None:
        """Add the rows' losses to the problems' values, and their derivatives by the weights to the gradients."""
        value.index_add_(0, self.problems, self.value.to(value.dtype))
        gradient.index_add_(0, self.problems, self.gradient)

    def aim(self, move: Tensor) -> None:
        """Prepare a move of the problems' weights."""
        self.move, self.tried = move[self.problems], torch.zeros_like(self.tried)
        self.trial = self.value.clone(), self.gradient.clone()

    def add_slope(self, slope: Tensor, length: Tensor) -> None:
        """Add the losses' slopes along the move at these lengths: one pass for the problems whose length is new."""
        at = length[self.problems]
        new = torch.nonzero((at != self.tried) & self.move.flatten(1).any(1))[:, 0]
        if len(new):
            there = self.weights[new] + at[new, None, None] * self.move[new]
            self.trial[0][new], self.trial[1][new] = self._evaluate(new, there)
            self.tried[new] = at[new]
        slope.index_add_(0, self.problems, (self.trial[1] * self.move).sum((1, 2)))

    def go(self, length: Tensor) -> None:
        """Move by these lengths, the last ones tried."""
        self.weights = self.weights + length[self.problems, None, None] * self.move
        self.value, self.gradient = self.trial

    def keep(self, kept: Tensor, problems: int) -> bool:
        """Drop all but the kept of `problems` problems, and renumber them; returns whether the block has any left."""
        number = torch.full((problems,), -1, device=kept.device)
        number[kept] = torch.arange(len(kept), device=kept.device)
        moved = number[self.problems]
        here = torch.nonzero(moved >= 0)[:, 0]
        self.problems, self.loss = moved[here], self.loss.select(here)
        for name in ("weights", "value", "gradient", "tried"):
            setattr(self, name, getattr(self, name)[here])
        return len(here) > 0


@dataclass(frozen=True)
class StreamedLoss:
    """Losses whose row weights are computed chunk by chunk, for problems of the fits ``distinct[position]``.

    ``totals`` (distinct,) are the fits' total weights; ``balance`` (distinct, classes) is the factor of each class's
    rows; ``absent`` (distinct, outputs) as in Softmax.
    """

    fits: FitSet
    distinct: Tensor
    totals: Tensor
    balance: Tensor
    absent: Tensor
    position: Tensor
    dtype: torch.dtype

    @classmethod
    def of(cls, fits: FitSet, number: Tensor, dtype: torch.dtype) -> tuple[StreamedLoss, Tensor, Tensor]:
        """Return the losses of problems of the fits of these numbers, their total weights and their base rates."""
        device = fits.sample_weight.device
        distinct, position = torch.unique(number, return_inverse=True)
        classes = max(2, fits.outputs)
        totals, rates, balance, absent = [], [], [], []
        for i in distinct.tolist():
            weight = fits.weights(i)
            mass = class_mass(fits.classes(i), weight, classes)
            totals.append(weight.sum())
            rates.append((mass if fits.softmax else mass[1:]) / totals[-1])
            factors = fits.balance(i)
            balance.append(
                torch.ones(classes, dtype=torch.float64, device=device)
                if factors is None
                else torch.nn.functional.pad(factors, (0, classes - len(factors)))
            )
            absent.append(torch.where(fits.counts(i) > 0, 0.0, -torch.inf))
        position = position.to(device)
        loss = cls(
            fits, distinct.to(device), torch.stack(totals), torch.stack(balance), torch.stack(absent), position, dtype
        )
        base = torch.stack(rates)
        return loss, loss.totals[position], torch.where(base > 0, base, 0.5)[position]

    def rows(self, rows: slice) -> Loss:
        """Return the losses over these rows, with their weights."""
        fits, labels = self.fits, self.fits.targets.shape[1]
        fold, label = self.distinct // labels, self.distinct % labels
        used = fits.members[rows][:, fold]
        if fits.known is not None:
            used = used & fits.known[rows][:, label]
        classes = fits.targets[rows][:, label]
        weight = torch.where(used, fits.sample_weight[rows, None], 0)
        if fits.class_weight is not None:
            weight = weight * self.balance[torch.arange(len(self.distinct), device=weight.device), classes]
        share = (weight / self.totals).to(self.dtype)
        if fits.softmax:
            return Softmax(fits.targets[rows, 0], share[:, self.position], self.absent.to(self.dtype)[self.position])
        signs = (2 * classes - 1).to(self.dtype)
        if labels == 1:
            return Sigmoid(signs[:, :1, None], share[:, self.position, None])
        return Sigmoid(signs[:, self.position, None], share[:, self.position, None])

    def select(self, problems: Tensor) -> StreamedLoss:
        """Return the losses of these problems only."""
        used, position = torch.unique(self.position[problems], return_inverse=True)
        parts = {name: getattr(self, name)[used] for name in ("distinct", "totals", "balance", "absent")}
        return replace(self, position=position, **parts)

    def to(self, dtype: torch.dtype) -> StreamedLoss:
        """Return the same losses in another precision."""
        return replace(self, dtype=dtype)


def stream_basis(source: StreamedRows, *, dtype: torch.dtype, device: torch.device) -> Basis:
    """Centre the rows and find an orthonormal basis close to their eigenbasis, from Gram matrices in double precision.

    One pass computes the Gram matrix of a sample of the rows.  If a direction is weak, two more compute that of all
    rows and the spread along the weak directions.  Raises FitError for NaN or infinity.
    """
    rows, dim = source.shape
    at_once = max(1, CHUNK_BYTES // (8 * dim))
    near = Reader(source, torch.float64, None).prepared(source.raw(slice(0, at_once))).mean(0).to(device)
    few = min(rows, SAMPLED * dim)
    total, gram = _moments(source, near, sample_rows(rows, few).to(device), dtype)
    if not torch.isfinite(total).all():
        column = int(torch.nonzero(~torch.isfinite(total))[0])
        raise FitError(f"Features must be finite, found NaN or infinity in column {column}.")
    squares, axes = torch.linalg.eigh(gram, UPLO="U")
    mean, weak, taken = near + total / rows, int((squares < STRONG * squares.sum()).sum()), few
    if weak:
        if few < rows:
            _, gram = _moments(source, mean, torch.arange(rows, device=device), torch.float64)
            squares, axes = torch.linalg.eigh(gram, UPLO="U")
            weak, taken = int((squares < STRONG * squares.sum()).sum()), rows
        squares[:weak] = 0
        for _, chunk in Reader(source, torch.float64, mean).chunks(at_once):
            squares[:weak] += (chunk @ axes[:, :weak]).square().sum(0)
    # As in basis._cut_rank: directions that hold only rounding.
    floor = squares.max().clamp(min=0) * (torch.finfo(torch.float64).eps * max(rows, dim)) ** 2
    kept = torch.nonzero(squares > floor)
    first = int(kept[0]) if len(kept) else dim
    eigenvalues = torch.cat([squares[first:] / taken, mean.new_ones(1)])
    weak = max(0, weak - first) if dtype != torch.float64 else 0
    design = StreamedDesign(source, mean, axes[:, first:], weak, dtype)
    return Basis(mean, axes[:, first:], eigenvalues, None, design, torch.arange(rows, device=device))


def _moments(source: StreamedRows, near: Tensor, sample: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return the sum of rows - near (dim,), and the centred Gram matrix of the sampled rows: one pass.

    Rows are read in ``dtype``; all else is float64.  The Gram matrix is corrected for the true mean of the sample.
    """
    total, drawn = torch.zeros_like(near), torch.zeros_like(near)
    gram = torch.zeros(len(near), len(near), dtype=torch.float64, device=near.device)
    for rows, chunk in Reader(source, dtype, near).chunks(max(1, CHUNK_BYTES // (8 * len(near)))):
        total += chunk.sum(0, dtype=torch.float64)
        first, last = torch.searchsorted(sample, torch.tensor([rows.start, rows.stop], device=sample.device)).tolist()
        some = chunk[sample[first:last] - rows.start].double()
        drawn += some.sum(0)
        add_gram(gram, some, some)
    return total, gram - torch.outer(drawn, drawn) / len(sample)
