"""The rivals of DVME on disk, as `mt.results.model_files` writes them: probes, and the rule that combines them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mt.backbones.recorded import described
from mt.probe.protocols import get_protocol
from mt.probe.saved import put_together, taken_apart
from mt.results.model_files import Tensors, check_classes, check_format, read_tensors, whole
from mt.types import Array

if TYPE_CHECKING:
    from mt.probe.protocols import Fitting, Probe
    from mt.probe.questions import Question
    from mt.probe.saved import ModelFolder
    from mt.results.store import Fit

FORMAT = "mt-combined"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class CombinedProbes:
    """Probes on the embeddings of several models.

    rule: "concat" and "blend" have one probe on all embeddings side by side, "average" the mean of one probe per model,
    "best-single" the probe of the one model in `models`.
    models: places of the models that the probes read, among those that were compared.
    """

    rule: str
    probes: tuple[Probe, ...]
    models: tuple[int, ...]

    def probabilities(self, embeddings: Sequence[Array]) -> Array:
        """Return float32 probabilities, (n,) for binary and (n, K) otherwise, of one matrix per model in `models`."""
        if self.rule in ("concat", "blend"):
            return self.probes[0].probabilities(np.concatenate(embeddings, axis=1))
        found = [probe.probabilities(X) for probe, X in zip(self.probes, embeddings, strict=True)]
        return found[0] if self.rule == "best-single" else mean_of(found)


def fitting_of(method: str, fitting: Fitting, embeddings: Sequence[Array] = ()) -> Fitting:
    """Return how the probe on all embeddings (n, d_m) is fitted: `blend` has a protocol of its own."""
    if method != "blend":
        return fitting
    return replace(fitting, protocol=get_protocol("blend-four"), widths=tuple(X.shape[1] for X in embeddings))


def mean_of(probabilities: Sequence[Array]) -> Array:
    """Return the mean of several models' probabilities, float32."""
    mean: Array = np.mean([p.astype(np.float64) for p in probabilities], axis=0).astype(np.float32)
    return mean


def save_combined(folder: ModelFolder, question: Question, fitted: CombinedProbes, fit: Fit) -> None:
    """Write combined probes with all that is needed to predict later."""
    parts = [taken_apart(probe) for probe in fitted.probes]
    tensors = {f"{number}.{name}": array for number, (some, _) in enumerate(parts) for name, array in some.items()}
    folder.write(
        question,
        fit,
        tensors,
        {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "rule": fitted.rule,
            "task": fit.outcome["task"],
            "n_classes": len(fit.outcome["class_names"]),
            "probes": [rebuild for _, rebuild in parts],
            "backbones": described([question.pair.train[place] for place in fitted.models]),
        },
    )


def read_combined(file: Path, about: Mapping[str, Any]) -> CombinedProbes:
    """Read what `save_combined` wrote; file, about: the path and the content of its JSON.

    Raises InputError for another format, a newer version, and files that do not fit together.
    """
    check_format(file, about, FORMAT, FORMAT_VERSION)
    with whole(file):
        check_classes(about)
        tensors = read_tensors(file, about)
        rule, backbones = about["rule"], about["backbones"]
        probes = tuple(put_together(_part(tensors, number), one) for number, one in enumerate(about["probes"]))
        expected = {"concat": 1, "blend": 1, "average": len(backbones), "best-single": 1}
        if rule not in expected or len(probes) != expected[rule]:
            raise ValueError(f"rule {rule} with {len(probes)} probes on {len(backbones)} backbones")
        return CombinedProbes(rule, probes, tuple(range(len(backbones))))


def _part(tensors: Tensors, number: int) -> Tensors:
    start = f"{number}."
    return {name.removeprefix(start): array for name, array in tensors.items() if name.startswith(start)}
