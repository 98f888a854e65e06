"""The parts of a protocol: a method with its settings, and which labels choose among its candidates.

A method's `kind` enters hashes.  Its `fitter` names the function that fits it, which is imported when it is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal


@dataclass(frozen=True)
class Logistic:
    """Logistic regression for one or more C, ascending: minimise `C * sum(loss) + 0.5 * ||w||^2`.

    tol: estimated relative objective gap at which the solver stops.
    """

    kind: ClassVar[str] = "Logistic"
    fitter: ClassVar[str] = "mt.probe.methods.linear:fit_logistic_probes"
    Cs: tuple[float, ...]
    max_iter: int = 1000
    tol: float = 1e-5
    dtype: Literal["float32", "float64"] = "float32"
    class_weight: Literal["balanced"] | None = None


@dataclass(frozen=True)
class Head:
    """A linear layer trained by gradient steps; every (learning rate, weight decay) is one candidate.

    batch: rows per step.  epochs, steps: one of them says how long to train.
    cosine: whether the learning rate decays to 0 by a cosine.  patience: training stops when this share of all epochs
    brings no improvement on held-out rows; None trains to the end.  runs: seeds whose probabilities are averaged.
    start_sd: weights start normal with this standard deviation and biases at 0; None is torch.nn.Linear's own start.
    """

    kind: ClassVar[str] = "Head"
    fitter: ClassVar[str] = "mt.probe.methods.gradient_heads:fit_heads"
    optimizer: Literal["adam", "adamw", "sgd"]
    learning_rates: tuple[float, ...]
    batch: int
    epochs: int | None = None
    steps: int | None = None
    weight_decays: tuple[float, ...] = (0.0,)
    momentum: float = 0.0
    cosine: bool = False
    patience: float | None = None
    runs: int = 1
    start_sd: float | None = None


@dataclass(frozen=True)
class Neighbours:
    """A vote of the k nearest training rows by cosine similarity.

    ks: candidates for k.  vote: "weighted" by exp(similarity / temperature), or "majority".
    """

    kind: ClassVar[str] = "Neighbours"
    fitter: ClassVar[str] = "mt.probe.methods.neighbours:fit_votes"
    ks: tuple[int, ...]
    vote: Literal["weighted", "majority"]
    temperature: float = 0.07


@dataclass(frozen=True)
class Blend:
    """The mean probability of logistic regression and shrinkage LDA, both on transformed features.

    transforms: the first is taken unless another is clearly better on held-out rows; "root" takes the square root of
    features that have no negative value.
    least: the number of classes from which LDA is part of the mean.  With fewer classes, ordered classes or several
    labels, the logistic regression predicts alone.
    shrinkages: candidates for the shrinkage of LDA's covariance; None is Ledoit and Wolf's estimate.
    temperatures: candidates for the temperature that divides LDA's logits.
    """

    kind: ClassVar[str] = "Blend"
    fitter: ClassVar[str] = "mt.probe.methods.blend:fit_blends"
    logistic: Logistic
    transforms: tuple[Literal["root", "none"], ...] = ("root", "none")
    least: int = 3
    shrinkages: tuple[float | None, ...] = (0.9, None, 0.99)
    temperatures: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0)


@dataclass(frozen=True)
class BlendFour:
    """Four models combined: logistic regression and shrinkage LDA, each on the features and on their square roots.

    least, shrinkages, temperatures: as in `Blend`.
    final_temperatures: candidates for the temperature that divides the logarithm of the combined probabilities.
    """

    kind: ClassVar[str] = "BlendFour"
    fitter: ClassVar[str] = "mt.probe.methods.blend_four:fit_four_blends"
    logistic: Logistic
    least: int = 3
    shrinkages: tuple[float | None, ...] = (0.9, None, 0.99)
    temperatures: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0)
    final_temperatures: tuple[float, ...] = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.35, 1.5)


@dataclass(frozen=True)
class Propagate:
    """Label propagation over all train rows, most of them without a label, averaged with logistic regression.

    neighbours: edges per row of the graph.  alpha: the share of a row's score that comes from its neighbours.
    weights: candidates for the share of propagation in the mean.
    temperatures: candidates for the temperature that divides the logarithm of propagated probabilities.
    """

    kind: ClassVar[str] = "Propagate"
    fitter: ClassVar[str] = "mt.probe.methods.propagation:fit_propagations"
    logistic: Logistic
    neighbours: int = 10
    alpha: float = 0.95
    weights: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75)
    temperatures: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0, 4.0)


Method = Logistic | Head | Neighbours | Blend | BlendFour | Propagate


@dataclass(frozen=True)
class Validation:
    """Which labels choose the settings: always labels of the budget, unless `--select val` is given.

    kind: "folds" (stratified group folds; every row is predicted out of fold), "holdout" (`fraction` of the budget is
    held out) or "none" (nothing is chosen).
    seed: the seed of the hold-out; None is the draw's own.  ties: which of equally good C (or k) is taken.
    repeats: how many times the folds are drawn if the budget has fewer than `few` rows per class; losses are averaged.
    """

    kind: Literal["folds", "holdout", "none"]
    folds: int = 5
    fraction: float = 0.0
    seed: int | None = None
    ties: Literal["smaller", "larger"] = "smaller"
    repeats: int = 1
    few: int = 0
