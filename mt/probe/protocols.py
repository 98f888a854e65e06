"""The protocols: complete recipes for probing, by name and with their sources, and what a fit by one returns.

`mt probe --list-protocols` prints them.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal
from typing import Protocol as Interface

from mt.cache.names import digest
from mt.errors import InputError, unknown
from mt.probe.method_settings import Blend, BlendFour, Head, Logistic, Method, Neighbours, Propagate, Validation
from mt.probe.solver.request import Solver, check_solver, get_solver
from mt.types import SINGLE_LABEL, TASKS, Array

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

REVISION = 3  # raised whenever the numbers of any protocol change


@dataclass(frozen=True)
class Protocol:
    """One recipe.  Every field that changes a number enters the identity of a score; the prose does not."""

    name: str
    title: str
    source: str
    method: Method
    validation: Validation
    scaling: Literal["standardize", "none", "l2"]
    selection_metric: Literal["log_loss", "accuracy", "balanced_accuracy", "macro_f1"] | None
    tasks: tuple[str, ...] = SINGLE_LABEL
    validation_source: str = ""
    embedding: str = "the backbone's own, from the cache"
    published: str = ""
    deviations: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str:
        """The sha256 of every setting that changes a number, and of the revision of our code.

        The method enters by its `kind`, which must not change when its class is renamed.
        """
        settings = dataclasses.asdict(self)
        for prose in ("title", "source", "validation_source", "embedding", "published", "deviations"):
            del settings[prose]
        if self.validation.repeats == 1:  # omitted, so that scores stored before these fields existed stay valid
            del settings["validation"]["repeats"], settings["validation"]["few"]
        return digest({"revision": REVISION, "kind": self.method.kind, **settings})

    @property
    def logistic(self) -> Logistic | None:
        """The logistic regression that the method is or contains; None if it has none."""
        if isinstance(self.method, Logistic):
            return self.method
        return self.method.logistic if isinstance(self.method, (Blend, BlendFour, Propagate)) else None

    def check_select(self, select: str) -> None:
        """Raise InputError for a validation split if the protocol chooses nothing: its labels would count unused."""
        if select == "val" and self.validation.kind == "none":
            raise InputError(
                f"Protocol '{self.name}' chooses no setting; remove --select val, or take another protocol: "
                "mt probe --list-protocols"
            )

    def check_task(self, task: str, dataset: str) -> None:
        """Raise InputError for a dataset whose task the protocol is not defined for."""
        if task not in self.tasks:
            raise InputError(
                f"Protocol '{self.name}' is defined for {', '.join(self.tasks)}; {dataset} is {task}. "
                "See: mt probe --list-protocols"
            )


def _powers(start: float, stop: float, count: int) -> tuple[float, ...]:
    """Return `count` powers of ten from 10^start to 10^stop, evenly spaced in the exponent."""
    step = (stop - start) / (count - 1)
    return tuple(10.0 ** (start + step * i) for i in range(count))


# The values of C of protocol `default`. Fusion sweeps the same values, equal to the last bit.
DEFAULT_CS = _powers(-3, 3, 13)

_FOLDS = "as default; with fewer than 10 rows per class three draws of the folds, their losses averaged"
_REPEATED = Validation("folds", folds=5, repeats=3, few=10)
_OUR_CARVE = "its own validation split became a stratified, group-aware fifth of the budget (or --select val)"
_OUR_LIMITS = (
    "C = 1, flagged fixed_C, where a class has too few rows or groups to hold any out",
    "with --select val C is chosen there and fitted on the budget alone; theirs adds the validation rows to the refit",
)
_SKLEARN_STOP = "fitted to a relative objective gap of 1e-5; theirs stops at scikit-learn's gradient tolerance 1e-4"

PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            name="default",
            title="L2 logistic regression, features clipped at 5 standard deviations, C chosen inside the budget",
            source="mt, docs/protocols.md",
            method=Logistic(Cs=DEFAULT_CS),
            validation=Validation("folds", folds=5),
            scaling="standardize",
            selection_metric="log_loss",
            tasks=TASKS,
            validation_source=(
                "up to 5 stratified group folds of the budget, pooled out of fold, ties to the smaller C; "
                "C = 1, flagged fixed_C, where a class has fewer than two groups"
            ),
        ),
        Protocol(
            name="blend",
            title="Mean probability of logistic regression and shrinkage LDA, on square roots of the features",
            source="mt, docs/protocols.md; Ledoit and Wolf, Journal of Multivariate Analysis 88 (2004)",
            method=Blend(Logistic(Cs=DEFAULT_CS)),
            validation=_REPEATED,
            scaling="standardize",
            selection_metric="log_loss",
            tasks=TASKS,
            validation_source=(
                f"{_FOLDS}; square roots of features without a negative value, unless the features as they are have a "
                "lower log loss by more than a standard error"
            ),
            deviations=("two classes, classes in order and several labels: logistic regression alone (no_lda)",),
        ),
        Protocol(
            name="blend-four",
            title="Logistic regression and shrinkage LDA, each on the features and on their square roots",
            source="mt, docs/protocols.md; Ledoit and Wolf, Journal of Multivariate Analysis 88 (2004)",
            method=BlendFour(Logistic(Cs=DEFAULT_CS)),
            validation=_REPEATED,
            scaling="standardize",
            selection_metric="log_loss",
            tasks=TASKS,
            validation_source=f"{_FOLDS}; LDA's settings and the temperature by the log loss of the same held-out rows",
            deviations=("two classes, classes in order and several labels: logistic regression alone (no_lda)",),
        ),
        Protocol(
            name="propagate",
            title="Labels propagated over the train images without a label, averaged with logistic regression",
            source="mt, docs/protocols.md; Zhou et al., Learning with Local and Global Consistency, NIPS 2003",
            method=Propagate(Logistic(Cs=DEFAULT_CS)),
            validation=_REPEATED,
            scaling="standardize",
            selection_metric="log_loss",
            validation_source=f"{_FOLDS}; weight and temperature by the log loss of the same held-out rows",
            deviations=("uses the images of the whole train split, without their labels (uses_unlabelled)",),
        ),
        Protocol(
            name="dinov2-logreg",
            title="DINOv2's logistic regression sweep",
            source="facebookresearch/dinov2, dinov2/eval/log_regression.py (read at b8931f7)",
            method=Logistic(Cs=_powers(-6, 5, 45), tol=1e-8, dtype="float64"),
            validation=Validation("holdout", fraction=0.1, seed=0),
            scaling="none",
            selection_metric="accuracy",
            validation_source="a random 10 % of the budget, seed 0; then refitted on all of it",
            embedding="class token of the last block after the final norm, not L2-normalised",
            published="cuML in float64, max_iter 1000, tol 1e-12; the 10 % by top-1 accuracy, of ties the smaller C",
            deviations=(
                "tol 1e-12 of cuML's gradient became a relative objective gap of 1e-8 in float64",
                "the 10 % is stratified and keeps groups together; their split is plainly random",
                *_OUR_LIMITS,
            ),
        ),
        Protocol(
            name="ssl-transfer",
            title="Ericsson et al.'s linear transfer",
            source="linusericsson/ssl-transfer, linear.py (CVPR 2021; read at 416913f)",
            method=Logistic(Cs=_powers(-5, 6, 45)),
            validation=Validation("holdout", fraction=0.2, seed=0, ties="larger"),
            scaling="none",
            selection_metric="accuracy",
            validation_source=(
                "20 % of the budget, seed 0, ties to the larger C (theirs tries weight decays in ascending order and "
                "keeps the first best); then refitted on all of it"
            ),
            embedding="pooled features of a ResNet-50, as the backbone gives them",
            published="45 weight decays, logspaced 1e-6 ... 1e5, C = 1 / weight decay; lbfgs, max_iter 100, warm start",
            deviations=(
                "fitted to a relative objective gap of 1e-5; theirs stops after 100 steps and hides the warning",
                "the 20 % is stratified and keeps groups together; their split is plainly random, or the dataset's own",
                "by accuracy for every dataset; theirs takes mean per-class accuracy for four of eleven, mAP for one",
                "no temperature is fitted: theirs is cross-validated on the test split",
                *_OUR_LIMITS,
            ),
        ),
        Protocol(
            name="clip",
            title="CLIP's linear probe example",
            source="openai/CLIP, README.md, linear-probe evaluation (read at d05afc4)",
            method=Logistic(Cs=(0.316,)),
            validation=Validation("none"),
            scaling="none",
            selection_metric=None,
            validation_source="none: C is fixed at 0.316",
            embedding="the image encoder's output, not L2-normalised",
            published="scikit-learn, max_iter 1000, on CIFAR-100; says that C should be found on a validation split",
            deviations=(_SKLEARN_STOP,),
        ),
        Protocol(
            name="prism",
            title="PRISM's logistic regression",
            source="the prism benchmark; settings as published, its code was not at hand to compare with",
            method=Logistic(Cs=(1.0,)),
            validation=Validation("none"),
            scaling="none",
            selection_metric=None,
            validation_source="none: C is fixed at 1",
            published=(
                "max_iter 1000; fractions 1, 5, 10, 25, 50, 100 %; seeds 42, 123, 456; at least 1 row per class; "
                "ECE with 15 bins"
            ),
            deviations=(
                _SKLEARN_STOP,
                "fractions and seeds are the command's (--fraction, --seeds)",
                "no temperature is fitted: theirs is fitted on test labels",
            ),
        ),
        Protocol(
            name="patho-bench",
            title="Patho-Bench's linear probe",
            source=(
                "mahmoodlab/Patho-Bench, advanced_usage/configs/linprobe/linprobe.yaml and "
                "patho_bench/experiments/LinearProbeExperiment.py (read at 660e770)"
            ),
            method=Logistic(Cs=(0.5,), max_iter=10_000, class_weight="balanced"),
            validation=Validation("none"),
            scaling="none",
            selection_metric=None,
            validation_source="none: C is fixed at 0.5",
            embedding="the backbone's own, one row per image; theirs is pooled per slide or patient",
            published="C = 0.5, balanced, max_iter 10,000, 100 bootstraps (its function's defaults: C = 1, unbalanced)",
            deviations=(
                _SKLEARN_STOP,
                "one fit per draw; theirs fits its published folds and reports their mean",
                "intervals are ours: 1,000 resamples, of groups where there are groups",
            ),
        ),
        Protocol(
            name="eva",
            title="kaiko eva's linear head",
            source="kaiko-ai/eva, configs/vision/pathology/offline/classification, leaderboards.md (read at 73b61a7)",
            method=Head("adamw", (3e-4,), 256, steps=12_500, weight_decays=(0.01,), patience=0.2, runs=5),
            validation=Validation("holdout", fraction=0.2),
            scaling="none",
            selection_metric="balanced_accuracy",
            validation_source="a fifth of the budget: early stopping, and the best step by balanced accuracy is kept",
            published=(
                "AdamW as torch has it (weight decay 0.01; the table of its leaderboard says 0), lr 3e-4, batch 256, "
                "at most 12,500 steps in whole epochs, patience 20 % of the epochs, 5 runs"
            ),
            deviations=(
                _OUR_CARVE,
                "the probabilities of the 5 runs are averaged; eva averages their scores",
                "held-out rows are scored at most 500 times, not after each of up to 12,500 epochs",
                "binary tasks have two softmax outputs instead of one sigmoid",
            ),
        ),
        Protocol(
            name="thunder",
            title="THUNDER's linear probing",
            source="MICS-Lab/thunder, tasks/train_eval_probe.py and config/adaptation/frozen.yaml (read at 6fe47e0)",
            method=Head("adam", (1e-3, 1e-4, 1e-5), 64, epochs=200, weight_decays=(0.0, 1e-3, 1e-4)),
            validation=Validation("holdout", fraction=0.2),
            scaling="none",
            selection_metric="macro_f1",
            validation_source=(
                "a fifth of the budget: the best of 9 settings and 200 epochs by macro F1 is kept, of ties the "
                "earliest epoch, then the first setting"
            ),
            deviations=(_OUR_CARVE, "the 9 settings start from one draw of weights; theirs draws one for each"),
        ),
        Protocol(
            name="dino-linear",
            title="DINO's linear classifier",
            source="facebookresearch/dino, eval_linear.py (read at 7c446df)",
            method=Head("sgd", (0.001,), 256, epochs=100, momentum=0.9, cosine=True, start_sd=0.01),
            validation=Validation("none"),
            scaling="none",
            selection_metric=None,
            validation_source="none: the last epoch is kept",
            embedding="class tokens of the last 4 blocks (ViT-S), from the cache",
            published=(
                "learning rate 0.001 x batch / 256, weight decay 0, cosine to 0 over 100 epochs; weights start normal "
                "with deviation 0.01; ViT-B: the last class token and mean patch token"
            ),
            deviations=(
                "batch 256 at rate 0.001; their command trains with 8 x 128 at 0.004",
                "trained on cached embeddings of un-augmented images; theirs sees random crops and flips",
                "theirs reports the best epoch on the validation labels",
            ),
        ),
        Protocol(
            name="dino-knn",
            title="DINO's weighted nearest neighbours",
            source="facebookresearch/dino, eval_knn.py (read at 7c446df)",
            method=Neighbours((10, 20, 100, 200), "weighted", temperature=0.07),
            validation=Validation("folds", folds=5),
            scaling="l2",
            selection_metric="accuracy",
            validation_source="up to 5 stratified group folds of the budget; ties to the smaller k",
            embedding="class token of the last block, L2-normalised (backbone dino:cls1)",
            published="reports every k on the test split",
            deviations=("one k is chosen inside the budget", "k is cut to the rows there are"),
        ),
        Protocol(
            name="thunder-knn",
            title="THUNDER's nearest neighbours",
            source="MICS-Lab/thunder, tasks/knn_classification.py and config/task/knn.yaml (read at 6fe47e0)",
            method=Neighbours((1, 3, 5, 10, 20, 30, 40, 50), "majority"),
            validation=Validation("folds", folds=5),
            scaling="l2",
            selection_metric="macro_f1",
            validation_source="up to 5 stratified group folds of the budget by macro F1; ties to the smaller k",
            deviations=(
                "its validation split became folds of the budget (or --select val)",
                "k is cut to the rows there are",
                "probabilities are shares of the votes; theirs has none",
            ),
        ),
    )
}


def get_protocol(name: str) -> Protocol:
    """Return a protocol by name.  Raises InputError, with the closest name, if there is none."""
    if name not in PROTOCOLS:
        raise unknown("protocol", name, PROTOCOLS, see="mt probe --list-protocols")
    return PROTOCOLS[name]


class Probe(Interface):
    """A fitted probe: embeddings (n, dim) -> float32 probabilities, (n,) for binary and (n, K) otherwise."""

    def probabilities(self, X: Array) -> npt.NDArray[np.float32]: ...


@dataclass(frozen=True)
class Fitting:
    """How probes are fitted: by which protocol, by which solver if it uses logistic regression, on which device.

    A run has one for all of its datasets; call `on` to set the task before fitting.
    widths: the number of columns of each model, if the features of several models are concatenated.
    """

    protocol: Protocol
    solver_name: str = "torch"
    device: str = "cpu"
    task: str = ""
    n_classes: int = 0
    widths: tuple[int, ...] = ()

    def on(self, task: str, n_classes: int) -> Fitting:
        """Return a copy for labels of this task."""
        return replace(self, task=task, n_classes=n_classes)

    @property
    def multilabel(self) -> bool:
        return self.task == "multilabel"

    @property
    def solver(self) -> Solver | None:
        """The solver; None if the protocol has no logistic regression."""
        return get_solver(self.solver_name) if self.protocol.logistic else None

    @property
    def batched(self) -> bool:
        """Whether fitting several draws together takes less time than one after another."""
        return self.solver is not None and self.solver.batched

    def versions(self) -> dict[str, Any]:
        """Return the versions of what computes a fit: our revisions and the libraries."""
        ours: dict[str, Any] = {"mt": version("medical-transfer"), "protocol": self.protocol.fingerprint[:12]}
        if self.solver:
            ours["solver"] = self.solver.revision
        return ours | {name: version(name) for name in ("numpy", "torch", "scikit-learn")}

    def identity(self) -> dict[str, Any]:
        """Return what enters the identity of a question.  Raises InputError for a solver that the protocol ignores."""
        solver = check_solver(self.solver_name)
        if self.protocol.logistic:
            return {"protocol": self.protocol.fingerprint, "solver": [solver.name, solver.revision]}
        if solver.name != "torch":
            raise InputError(
                f"Protocol '{self.protocol.name}' does not use logistic regression; remove --solver {solver.name}, or "
                "take another protocol: mt probe --list-protocols"
            )
        return {"protocol": self.protocol.fingerprint, "solver": None}


@dataclass(frozen=True)
class FoldPredictions:
    """Predictions of the rows of a budget, each made without the labels of its fold.

    p: probabilities (repeats, n, outputs) of the classes in the budget, ascending.  fold: (repeats, n) fold numbers.
    y: (n,) the class of each row, as a number of its output.  known: (repeats, n) whether the rows that the fold was
    fitted on hold the row's class.
    """

    p: Array
    fold: Array
    y: Array
    known: Array

    def losses(self, p: Array | None = None) -> Array:
        """Return each row's log loss (n,), the mean over repeats; NaN where no repeat can score the row.

        p: other probabilities of the same shape, to score instead.
        """
        import numpy as np

        of_class = (self.p if p is None else p)[:, np.arange(len(self.y)), self.y]
        losses = np.where(self.known, -np.log(np.maximum(of_class, 1e-12)), 0.0).sum(axis=0)
        counts = self.known.sum(axis=0)
        return np.asarray(np.where(counts > 0, losses / np.maximum(counts, 1), np.nan))

    def kept(self, outputs: Array, n_classes: int, *, binary: bool) -> Array:
        """Return the mean over repeats in the form of `Fitted.held_out`; outputs: the class of each column of `p`."""
        import numpy as np

        p = np.zeros((len(self.y), n_classes))
        counts = self.known.sum(axis=0)
        p[:, outputs] = np.where(self.known[:, :, None], self.p, 0.0).sum(axis=0) / np.maximum(counts, 1)[:, None]
        p[counts == 0] = np.nan
        return np.asarray(p[:, 1] if binary else p, dtype=np.float32)


@dataclass(frozen=True)
class Fitted:
    """A probe with its chosen settings, the scores that chose them, and the flags that a reader should know.

    held_out: out-of-fold probabilities of the budget's rows, float32 (n,) for binary and (n, K) otherwise; NaN where a
    row has none.  None unless the folds cover every row.
    folded: the predictions of each repeat of the folds, if folds chose the settings and each row has one label.
    """

    probe: Probe
    settings: dict[str, Any]
    selection: dict[str, Any]
    flags: tuple[str, ...] = ()
    held_out: Array | None = None
    folded: FoldPredictions | None = None
