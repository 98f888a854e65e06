"""The rounds of a solve, from cheap to expensive.

All problems first iterate in the design's precision, rescaled by the Hessian's diagonal after each round.  Hard
problems of a tall design continue with full Hessians along C, and what then remains continues in float64.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mt.probe.solver.basis import Basis, Dense, Design, Diagonal, gram_of, stacked
from mt.probe.solver.fits import Continuation, FitSet, Loss, Sigmoid, Softmax, class_mass
from mt.probe.solver.lbfgs import AT_ONCE, Minima, ScaledProblems, logits_by_rows, minimise

# Iterations of each round.  If classes separate, p (1 - p) and with it the Hessian's diagonal in the eigenbasis fall by
# orders of magnitude.  So each round is scaled by the diagonal at its start.
ROUNDS = (30, 40, 80, 80, 80, 80)
# From TALL rows per column on, an iteration of a few problems takes at least as long as a Hessian: then BEFORE_HESSIANS
# rounds run without Hessians and WITH_HESSIANS with them, before float64.
TALL, BEFORE_HESSIANS, WITH_HESSIANS = 4, 2, 4
# Share of a block's weight that is omitted in single precision: if classes separate, most rows have little weight.
NEGLIGIBLE = 1e-3
# After EASY iterations, plus one per EASY_COLUMNS columns, the gap estimate is not reliable.
EASY, EASY_COLUMNS = 50, 16
# Smallest share of the first round's curvature by which a later round scales, since p (1 - p) underflows.
FLOOR = 1e-6
# Up to this many outputs are rotated into the axes of their mean Hessian.
COUPLED = 32
# Fewest rows of a design that are weighted at once.
MIN_ROWS = 512
# Copies of one Hessian in memory while it is factorised.
HESSIAN_COPIES = 4
# The Hessian is recomputed after this many iterations.
ROUND = 30
# Up to this many coefficients a problem's Hessian costs no more than a few iterations.
CHEAP = 500
# Up to this many coefficients a problem's whole Hessian is used; above it, each output's own block.
WHOLE = 2500
# Hard problems iterate to this fraction of the tolerance, since their gap is under-estimated.
SHARP = 0.1
# Problems that end in the first round iterate to this fraction, which fixes probabilities to 1e-3.
SETTLED = 0.001


@dataclass(frozen=True)
class PenalisedProblems:
    """Problems in one basis, each at one C of some path along C.

    ``penalty`` (problems, columns) and ``curvature`` (problems, outputs, columns), the Hessian's diagonal in the
    eigenbasis at the base rates, are float64.  ``path`` and ``C`` (problems,) are on the CPU.
    """

    basis: Basis
    loss: Loss
    penalty: Tensor
    curvature: Tensor
    path: Tensor
    C: np.ndarray

    @property
    def design(self) -> Design:
        return self.basis.design

    def select(self, problems: Tensor) -> PenalisedProblems:
        """Return these problems only."""
        at = problems.to(self.design.device)
        cpu = problems.cpu()
        return PenalisedProblems(
            self.basis, self.loss.select(at), self.penalty[at], self.curvature[at], self.path[cpu], self.C[cpu.numpy()]
        )


def problems_of(basis: Basis, fits: FitSet, number: Tensor, Cs: np.ndarray) -> tuple[PenalisedProblems, Tensor]:
    """Return the problems of the fits of these numbers, each at its C, and weights that predict the base rates."""
    design, columns = basis.design, len(basis.eigenvalues)
    loss, totals, rates = (
        _losses(fits, number, design.dtype) if isinstance(design, Tensor) else design.losses(fits, number)
    )
    penalty = (1 / (torch.from_numpy(Cs).to(totals) * totals))[:, None].repeat(1, columns)
    penalty[:, -1] = 0
    curvature = (rates * (1 - rates))[..., None] * basis.eigenvalues + penalty[:, None, :]
    start = torch.zeros_like(curvature)
    start[..., -1] = rates.log() - ((1 - rates).log() if not fits.softmax else 0)
    return PenalisedProblems(basis, loss, penalty, curvature, number, Cs), start


def _base_rates(fits: FitSet, distinct: Tensor, weights: Tensor, totals: Tensor) -> Tensor:
    """Return the weighted rate of each output (fits, outputs); a class that is absent gets the rate ½."""
    rates = torch.empty(len(distinct), fits.outputs, dtype=torch.float64, device=weights.device)
    for k, i in enumerate(distinct.tolist()):
        mass = class_mass(fits.classes(i), weights[:, k], max(2, fits.outputs)) / totals[k]
        rates[k] = mass if fits.softmax else mass[1:]
    return torch.where(rates > 0, rates, 0.5)


def _losses(fits: FitSet, number: Tensor, dtype: torch.dtype) -> tuple[Loss, Tensor, Tensor]:
    """Return the losses of problems of the fits of these numbers, their total weights and their base rates."""
    distinct, position = torch.unique(number, return_inverse=True)
    weights = torch.stack([fits.weights(int(i)) for i in distinct], dim=1)
    totals, position = weights.sum(0), position.to(weights.device)
    rates = _base_rates(fits, distinct, weights, totals)
    loss = _loss(fits, distinct, (weights / totals).to(dtype), position)
    return loss, totals[position], rates[position]


def _loss(fits: FitSet, distinct: Tensor, weights: Tensor, position: Tensor) -> Loss:
    """Return the losses of problems of the fits ``distinct[position]``; weights (rows, distinct fits) sum to one."""
    if fits.softmax:
        counts = torch.stack([fits.counts(int(i)) for i in distinct])
        absent = torch.where(counts > 0, 0.0, -torch.inf).to(weights.dtype)
        return Softmax(fits.targets[:, 0], weights[:, position], absent[position])
    classes = torch.stack([fits.classes(int(i)) for i in distinct], dim=1)
    return Sigmoid((2 * classes - 1).to(weights.dtype)[:, position, None], weights[:, position, None])


def begin(each: Sequence[PenalisedProblems], starts: Sequence[Tensor], *, tol: float, max_iter: int) -> list[Minima]:
    """Minimise every problem of each basis for one round, in the design's precision; returns float64 weights.

    Afterwards too few problems remain for efficient products: collect those of several calls for `finish`.
    """
    fits = _round(each, starts, tol=tol, max_iter=min(ROUNDS[0], max_iter), sharp=SETTLED)
    return [Minima(found.weights.double(), found.gap.double(), found.n_iter) for found in fits]


def finish(problems: PenalisedProblems, found: Minima, *, tol: float, max_iter: int, memory: int) -> None:
    """Minimise to the tolerance the problems that `begin` did not, in place, in the rotated design.

    ``memory`` is how many bytes Hessians may take; a problem too large for that keeps the diagonal scaling in float64.
    """
    design, coefs = problems.design, found.weights[0].numel()
    numbers = _hessian_size(found.weights[:1])
    at_once = memory // (numbers * design.element_size()) - HESSIAN_COPIES
    dense = len(design) >= TALL * design.shape[1] and coefs > CHEAP and at_once > 0
    rounds = ROUNDS[1:BEFORE_HESSIANS] if dense else ROUNDS[1:]
    _continue(found, _late(found, tol, max_iter), problems, rounds, tol, max_iter)
    if dense:
        late = _late(found, tol, max_iter)
        for paths in _parts(torch.from_numpy(np.unique(problems.path[late])), at_once):
            some = late[torch.isin(problems.path[late], paths)]
            _continue_by_hessians(found, some, problems, tol=tol, max_iter=max_iter)
    easy = max_iter if dense else EASY + design.shape[1] // EASY_COLUMNS
    hard = torch.nonzero(~(found.gap <= tol).cpu() | (found.n_iter > easy))[:, 0]
    hard = hard[found.n_iter[hard] < max_iter]
    if len(hard) and coefs > CHEAP:
        # A Hessian costs more than many iterations of all problems together.
        _continue(found, hard, problems, ROUNDS, SHARP * tol, max_iter)
        hard = _late(found, tol, max_iter)
    if len(hard):
        _finish_in_float64(found, hard, problems, tol=tol, max_iter=max_iter, memory=memory)


def _finish_in_float64(
    found: Minima, hard: Tensor, problems: PenalisedProblems, *, tol: float, max_iter: int, memory: int
) -> None:
    """Minimise some problems to the tolerance, in place, one after another, with Hessians if memory allows."""
    exact, numbers = problems.design.double(), _hessian_size(found.weights[:1])
    for problem in hard[:, None]:
        left = max_iter - int(found.n_iter[problem])
        alone, at = problems.select(problem), found.weights[problem]
        loss, penalty = alone.loss.to(torch.float64), alone.penalty
        if HESSIAN_COPIES * numbers * exact.element_size() <= memory:
            again = _by_hessians(exact, loss, penalty, at, tol=SHARP * tol, max_iter=left)
        else:
            batch = ScaledProblems(exact, loss, penalty, Diagonal.of(alone.curvature), at)
            [again] = minimise([batch], tol=SHARP * tol, max_iter=left, sharp=SETTLED)
        found.weights[problem], found.gap[problem] = again.weights, again.gap
        found.n_iter[problem] += again.n_iter


def _late(found: Minima, tol: float, max_iter: int) -> Tensor:
    """Return the numbers of the problems that have not ended."""
    return torch.nonzero(~(found.gap <= tol).cpu() & (found.n_iter < max_iter))[:, 0]


def _continue(
    found: Minima, some: Tensor, problems: PenalisedProblems, rounds: Sequence[int], tol: float, max_iter: int
) -> None:
    """Continue some problems for these rounds, in place."""
    if len(some) == 0 or len(rounds) == 0:
        return
    at = some.to(found.weights.device)
    left = max_iter - int(found.n_iter[some].max())
    more = _by_diagonals(problems.select(some), found.weights[at], rounds, tol=tol, max_iter=left, sharp=SHARP)
    found.weights[at], found.gap[at] = more.weights, more.gap
    found.n_iter[some] += more.n_iter


def _by_diagonals(
    problems: PenalisedProblems, start: Tensor, rounds: Sequence[int], *, tol: float, max_iter: int, sharp: float
) -> Minima:
    """Minimise in the design's precision, in rounds, each scaled by the diagonal of the Hessian at its start."""
    found = Minima(
        start.to(problems.design.dtype),
        start.new_full((len(start),), torch.inf),
        torch.zeros(len(start), dtype=torch.int64),
    )
    active = torch.arange(len(start), device=start.device)
    for steps in rounds:
        left = max_iter - int(found.n_iter[active.cpu()].max())
        part = problems.select(active)
        [done] = _round([part], [found.weights[active]], tol=tol, max_iter=min(steps, left), sharp=sharp)
        found.weights[active], found.gap[active] = done.weights, done.gap.double()
        found.n_iter[active.cpu()] += done.n_iter
        active = active[~(done.gap <= tol)]
        if len(active) == 0 or steps >= left:
            break
    return Minima(found.weights.double(), found.gap, found.n_iter)


def _round(
    each: Sequence[PenalisedProblems], starts: Sequence[Tensor], *, tol: float, max_iter: int, sharp: float
) -> list[Minima]:
    """Minimise in the designs' precision, scaled by the diagonals of the Hessians at the start."""
    batches = []
    for part, start in zip(each, starts, strict=True):
        low = part.design.dtype
        penalty, at = part.penalty.to(low), start.to(low)
        scaling = _diagonal(part.basis, part.loss, penalty, at, FLOOR * part.curvature.to(low))
        batches.append(ScaledProblems(part.design, part.loss, penalty, scaling, at))
    return minimise(batches, tol=tol, max_iter=max_iter, sharp=sharp)


def _diagonal(basis: Basis, loss: Loss, penalty: Tensor, weights: Tensor, least: Tensor) -> Diagonal:
    """Return the scaling by the diagonals of the problems' Hessians.

    No entry is smaller than ``least`` (problems, outputs, columns).  Up to COUPLED outputs are first rotated into
    the axes of their mean Hessian Σ w (diag(p) - p pᵀ).  If the design is not rotated or not in memory, each output's
    mean curvature over the rows is used for all of them.
    """
    design = basis.design
    problems, outputs, columns = weights.shape
    flat = weights.reshape(-1, columns)
    step = max(MIN_ROWS, AT_ONCE // len(flat))

    def probabilities() -> Iterator[tuple[slice, Tensor, Tensor]]:
        for rows, logits in logits_by_rows(design, flat, step):
            here = loss.rows(rows)
            p = here.probabilities(logits.reshape(-1, problems, outputs))
            yield rows, p.transpose(0, 1), here.weights.reshape(-1, problems, 1).transpose(0, 1)

    axes = None
    if 1 < outputs <= COUPLED:
        mean = torch.zeros(problems, outputs, outputs, dtype=torch.float64, device=weights.device)
        for _, p, w in probabilities():
            mean += torch.diag_embed((w * p).sum(1)) - (w * p).mT @ p
        axes = torch.linalg.eigh(mean).eigenvectors.to(weights.dtype)
    diagonal = torch.zeros_like(flat)
    for rows, p, w in probabilities():
        spread = w * (p * (1 - p) if axes is None else _variance(p, axes))
        by_row = spread.transpose(0, 1).flatten(1)
        if basis.eigenvectors is None and isinstance(design, Tensor):
            diagonal.addmm_(by_row.T, design[rows].square())
        else:
            diagonal += by_row.sum(0)[:, None] * basis.eigenvalues.to(diagonal)
    curvature = torch.maximum(diagonal.reshape(weights.shape) + penalty[:, None, :], least)
    if axes is not None:
        # Along the first axis all outputs move together, which leaves a softmax unchanged: only rounding is there.
        curvature[:, 0] = curvature[:, 1:].amax(1)
    return Diagonal.of(curvature, basis.eigenvectors, axes)


def _variance(p: Tensor, axes: Tensor) -> Tensor:
    """Return the variances (problems, rows, outputs) of each axis' entries under probabilities p of the same shape."""
    mean = p @ axes
    return sum((p[..., k, None] * (axes[:, None, k] - mean).square() for k in range(p.shape[2])), torch.zeros_like(p))


def _continue_by_hessians(
    found: Minima, late: Tensor, problems: PenalisedProblems, *, tol: float, max_iter: int
) -> None:
    """Continue problems with Hessians in the design's precision, in place, one problem of every path at a time.

    Each starts at the extrapolation of its path if that has a lower objective than its weights.  A path keeps its
    Hessian as long as ROUND iterations suffice.
    """
    design, paths = problems.design, Continuation()
    scalings: dict[int, Dense] = {}
    late = late[np.argsort(problems.C[late.numpy()], kind="stable")]
    while len(late):
        first = np.unique(problems.path[late], return_index=True)[1]
        some, late = late[first], late[np.setdiff1d(np.arange(len(late)), first)]
        on, Cs, at = problems.path[some].tolist(), problems.C[some.numpy()], some.to(design.device)
        here = found.weights[at]
        found.weights[at] = _better(problems.select(some), here, paths.towards(on, Cs, here))
        _round_by_round(found, some, problems, scalings, tol=tol, max_iter=max_iter)
        paths.add(on, Cs, found.weights[at])


def _round_by_round(
    found: Minima, some: Tensor, problems: PenalisedProblems, scalings: dict[int, Dense], *, tol: float, max_iter: int
) -> None:
    """Continue problems of different paths, in place, with their paths' scalings, recomputed after each round."""
    design = problems.design
    for _ in range(WITH_HESSIANS):
        part, at = problems.select(some), some.to(design.device)
        penalty, start = part.penalty.to(design.dtype), found.weights[at].to(design.dtype)
        for k, path in enumerate(part.path.tolist()):
            if path not in scalings:
                one = torch.tensor([k], device=design.device)
                scalings[path] = _dense(design, part.loss.select(one), penalty[one], start[one])
        scaling = stacked([scalings[path] for path in part.path.tolist()])
        steps = min(ROUND, max_iter - int(found.n_iter[some].max()))
        batch = ScaledProblems(design, part.loss, penalty, scaling, start)
        [done] = minimise([batch], tol=tol, max_iter=steps, sharp=SHARP)
        found.weights[at], found.gap[at] = done.weights.double(), done.gap.double()
        found.n_iter[some] += done.n_iter
        some = some[~(done.gap <= tol).cpu() & (done.n_iter > 0) & (found.n_iter[some] < max_iter)]
        if len(some) == 0:
            return
        for path in problems.path[some].tolist():
            del scalings[path]


def _better(problems: PenalisedProblems, here: Tensor, there: Tensor) -> Tensor:
    """Return for each problem the weights (problems, outputs, columns) with the lower objective."""

    def objective(weights: Tensor) -> Tensor:
        flat = weights.to(problems.design.dtype).flatten(0, 1)
        data_loss = torch.zeros_like(weights[:, 0, 0])
        for rows, logits in logits_by_rows(problems.design, flat, len(problems.design)):
            data_loss += problems.loss.rows(rows).value(logits.reshape(len(logits), *weights.shape[:2]))
        return data_loss + 0.5 * (problems.penalty[:, None] * weights.square()).sum((1, 2))

    return torch.where((objective(there) < objective(here))[:, None, None], there, here)


def _dense(design: Design, loss: Loss, penalty: Tensor, weights: Tensor) -> Dense:
    """Return the scaling of one problem by its Hessian."""
    return Dense.of(_hessian(design, loss, penalty, weights), design.shape[1])


def _by_hessians(design: Design, loss: Loss, penalty: Tensor, start: Tensor, *, tol: float, max_iter: int) -> Minima:
    """Continue one problem in rounds, each scaled by the Hessian at its start."""
    found = Minima(start, torch.full_like(penalty[:, 0], torch.inf), torch.zeros(1, dtype=torch.int64))
    while bool(found.gap > tol) and int(found.n_iter) < max_iter:
        batch = ScaledProblems(design, loss, penalty, _dense(design, loss, penalty, found.weights), found.weights)
        steps = min(ROUND, max_iter - int(found.n_iter))
        [done] = minimise([batch], tol=tol, max_iter=steps, sharp=SETTLED)
        found = Minima(done.weights, done.gap, found.n_iter + done.n_iter)
        if int(done.n_iter) == 0:
            break
    return found


def _hessian_size(weights: Tensor) -> int:
    """Return how many numbers the Hessian of weights (1, outputs, columns) holds."""
    outputs, columns = weights.shape[1:]
    return weights.numel() ** 2 if weights.numel() <= WHOLE else outputs * columns**2


def _hessian(design: Design, loss: Loss, penalty: Tensor, weights: Tensor) -> Tensor:
    """Return the Hessian of one problem: whole (1, size, size), or its blocks (outputs, columns, columns)."""
    outputs, columns = weights.shape[1:]
    alone = outputs == 1 or weights.numel() > WHOLE
    if not isinstance(design, Tensor):
        return design.hessian(loss, weights[0], penalty[0], whole=not alone)
    p = loss.probabilities((design @ weights[0].T)[:, None])[:, 0]
    weight = loss.weights.reshape(-1, 1)
    negligible = NEGLIGIBLE if alone and design.dtype != torch.float64 else 0.0
    blocks = torch.stack([_weighted_gram(design, column, negligible) for column in (weight * p * (1 - p)).T])
    blocks += torch.diag(penalty[0])
    if alone:
        return blocks
    # Σ w (diag(p) - p pᵀ) ⊗ z zᵀ: the product of two probabilities couples their outputs.
    coupled = (weight.sqrt() * p)[:, :, None] * design[:, None, :]
    whole = -(coupled.flatten(1).T @ coupled.flatten(1))
    for k in range(outputs):
        own = slice(k * columns, (k + 1) * columns)
        whole[own, own] = blocks[k]
    return whole[None]


def _weighted_gram(design: Tensor, weight: Tensor, negligible: float) -> Tensor:
    """Return Σ weight z zᵀ over the heaviest rows, which hold all but a negligible share of the weight."""
    order = weight.argsort(descending=True)
    total = weight[order].cumsum(0)
    kept = order[: 1 + int((total < (1 - negligible) * total[-1]).sum())].sort().values
    gram = gram_of(design, kept, weight)
    return gram.triu() + gram.triu(1).T


def _parts(tensor: Tensor, size: int) -> list[Tensor]:
    """Return the tensor in consecutive parts of at most `size` entries."""
    return [tensor[start : start + size] for start in range(0, len(tensor), size)]
