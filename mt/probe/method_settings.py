"""What a protocol is made of: a method with its settings, and where the labels that choose among them come from.

A method's `kind` enters hashes; its `fitter` is the function that fits it, imported when it is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal


@dataclass(frozen=True)
class Logistic:
    """L2 logistic regression over one or more C, ascending; `C * sum(loss) + 0.5 * ||w||^2`."""

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

    start_sd: weights start normal with this standard deviation and without bias; None is torch.nn.Linear's own start.
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
    """A vote of the k nearest training rows by cosine similarity."""

    kind: ClassVar[str] = "Neighbours"
    fitter: ClassVar[str] = "mt.probe.methods.neighbours:fit_votes"
    ks: tuple[int, ...]
    vote: Literal["weighted", "majority"]
    temperature: float = 0.07


@dataclass(frozen=True)
class Blend:
    """The mean probability of logistic regression and shrinkage LDA, both on transformed features.

    transforms: the first is taken unless another is clearly better on held-out rows; "root" is the square root, of
    features without a negative value.
    least: classes from which on LDA is part of the mean; with fewer, and for classes in order or several labels, the
    logistic regression predicts alone.
    shrinkages: candidates for that of LDA's covariance; None is Ledoit and Wolf's.
    temperatures: candidates for what divides LDA's logits.
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
    """Logistic regression and shrinkage LDA, each on the features and on their square roots: the four together.

    least, shrinkages, temperatures: as of `Blend`.
    final_temperatures: candidates for what divides the logarithms of the four together.
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

    weights: candidates for the share of propagation in the mean.
    temperatures: candidates for what divides the logarithms of propagated probabilities.
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
    """Where the labels that choose a setting come from, always inside the budget unless `--select val` is given.

    kind: "folds" (stratified group folds, all rows predicted out of fold), "holdout" (a share of the budget) or "none".
    seed: of the hold-out; None is the draw's own.  ties: which of equally good C (or k) is taken.
    repeats: how many times the folds are drawn, and losses averaged, where the budget has fewer than `few` rows per
    class.
    """

    kind: Literal["folds", "holdout", "none"]
    folds: int = 5
    fraction: float = 0.0
    seed: int | None = None
    ties: Literal["smaller", "larger"] = "smaller"
    repeats: int = 1
    few: int = 0
