"""One budget -> a fitted DVME.  Everything here sees the budget and nothing else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from mt.fuse.blend_start import BlendStart
from mt.fuse.dvme.coordinates import LEAST, kept_directions
from mt.fuse.dvme.inputs import Inputs
from mt.fuse.dvme.module import DVME
from mt.fuse.dvme.problem import DVMEProblem, NetworkShape
from mt.fuse.dvme.recipes import BLEND, CHOICES, Recipe, recipes_of
from mt.fuse.dvme.selection import ChosenRecipe, DVMEFitter
from mt.fuse.dvme.training import predict
from mt.probe.methods.linear import known_outputs, link
from mt.probe.protocols import Probe
from mt.system.device import one_thread, pick_device, tf32
from mt.types import Array, LabelledRows

Floats = npt.NDArray[np.float64]
BLEND_CLASSES = 3  # blend is tried from 3 classes: with fewer it has no LDA
BLEND_ROWS = 500  # blend is tried up to 500 rows: above, its folds take longer than all other steps, and gain little
SMALL = 2_000  # below 2,000 rows one thread per product is fastest, whatever else runs on the machine
_BLOCK = 4096  # rows turned into float64 at once


@dataclass(frozen=True)
class FittedDVME:
    """A network with its inputs' scaling, for the outputs that the draw could teach.

    outputs (m,): the classes, or labels of a multilabel task, that the network predicts; base (K,): the probabilities
    of the other ones.  model is None if the draw holds only one class.  It computes in float64, rounded once at the
    end.  blend: the probe on all models, None if its share of the prediction is 0.
    """

    model: DVME | None
    inputs: Inputs
    task: str
    n_classes: int
    outputs: npt.NDArray[np.int64]
    base: Floats
    choice: ChosenRecipe
    blend: Probe | None = None

    def predict(self, embeddings: Sequence[Array]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Return probabilities, (n,) of class 1 for binary, else (n, K), and the attention each model gets (n, M)."""
        n, n_models = len(embeddings[0]), len(self.inputs.scalings)
        out, received = np.tile(self.base, (n, 1)), np.full((n, n_models), 1 / n_models)
        for start in range(0, n, _BLOCK) if self.model is not None else ():
            rows = slice(start, start + _BLOCK)
            assert self.model is not None
            logits, attention = predict(self.model, self.inputs.apply([X[rows] for X in embeddings], "float64"))
            out[rows, self.outputs] = link(logits.numpy(), self.task)
            received[rows] = attention.numpy()
        if self.blend is not None:
            share = self.choice.share
            out = share * out + (1 - share) * self.blend.probabilities(np.concatenate(embeddings, axis=1))
        return (out[:, 1] if self.task == "binary" else out).astype(np.float32), received.astype(np.float32)

    def probabilities(self, embeddings: Sequence[Array]) -> npt.NDArray[np.float32]:
        """Return float32 probabilities, (n,) of class 1 for binary, else (n, K)."""
        return self.predict(embeddings)[0]


@dataclass(frozen=True)
class DVMEOptions:
    """The recipes that DVME chooses among, and its size.

    recipes: the first is kept unless another is better by more than a standard error on held-out rows of the budget;
    "blend" is tried for three or more classes without weights, on budgets of at most 500 rows.
    class_weight: "balanced" weights classes inversely to their rows.  width: of the tokens.  heads: of the attention.
    """

    recipes: Sequence[Recipe] = recipes_of(CHOICES["dvme"])
    class_weight: Literal["balanced"] | None = None
    width: int = 512
    heads: int = 8


@tf32(allowed=False)
def fit_dvme(
    embeddings: Sequence[Array],
    y: Array,
    *,
    task: str,
    n_classes: int,
    groups: Sequence[Any] | Array | None = None,
    options: DVMEOptions | None = None,
    seed: int = 0,
    device: str = "cpu",
) -> FittedDVME:
    """Fit DVME on a budget: M embeddings (n, d_m), labels y (n,) or (n, L), and groups (n,) if known.

    The recipe is chosen inside the budget, then trained on all of it for the median of the folds' epochs.
    Deterministic in `seed` on one device.
    """
    options = options or DVMEOptions()
    where = pick_device(device, float64=True, values=sum(one.size for one in embeddings))
    outputs, base = known_outputs(y, task, n_classes)
    inputs = Inputs.learn(embeddings)
    if not len(outputs):
        return FittedDVME(
            None, inputs, task, n_classes, outputs, base, ChosenRecipe(options.recipes[0], 0, 1.0, flags=("one_class",))
        )
    numbered = y[:, outputs] if task == "multilabel" else np.searchsorted(outputs, y)
    X = [x.to(where) for x in inputs.apply(embeddings)]
    shape = shape_of(options, inputs.dims, len(y), 1 if task == "binary" else len(outputs), task)
    patients = None if groups is None else np.asarray(groups)
    problem = DVMEProblem(X, numbered, patients, shape, len(outputs), seed, options.class_weight)
    threads = torch.get_num_threads()
    networks = [recipe for recipe in options.recipes if recipe != BLEND] or recipes_of(["start"])
    wanted = BLEND in options.recipes and task == "multiclass" and options.class_weight is None
    blend = None
    if wanted and len(outputs) >= BLEND_CLASSES and len(y) <= BLEND_ROWS:
        blend = BlendStart.of(embeddings, LabelledRows(embeddings[0], y, groups), n_classes, seed=seed, device=device)
    of_folds = None if blend is None else lambda fold: blend.out_of_fold(fold)[:, outputs]
    with one_thread(wanted=len(y) < SMALL):
        choice, model = DVMEFitter(problem, threads=threads, blend=of_folds).fit(networks)
    whole = blend.whole() if blend is not None and choice.share < 1 else None
    return FittedDVME(model, inputs, task, n_classes, outputs, base, choice, whole)


def shape_of(options: DVMEOptions, dims: Sequence[int], rows: int, n_outputs: int, task: str) -> NetworkShape:
    """Return the network's shape; tokens are at most as wide as a vote per output plus the directions need."""
    heads = options.heads
    held = max(LEAST, *(kept_directions(rows, dim) for dim in dims)) + n_outputs
    width = max(min(options.width, heads * math.ceil(held / heads)), heads * math.ceil(n_outputs / heads))
    return NetworkShape(tuple(dims), n_outputs, task, width, heads)
