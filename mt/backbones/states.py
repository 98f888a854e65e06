"""Finding a network's state in a checkpoint by its structure: any nesting, any prefix, exactly one that fits.

Training scripts wrap a state in dictionaries (`state_dict`, `model`, `teacher`) and its names in prefixes (`module.`,
`_orig_mod.`, `backbone.`).  Every dictionary of tensors is looked at, under every prefix that ends in the network's own
names.  Heads and training leftovers are dropped by name; anything else that is left over, missing or of another shape
does not fit.  Two states that fit and differ (a student and its teacher, weights and their moving average) are never
chosen between: `FILE::teacher` says which.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mt.backbones.layouts import SEPARATOR
from mt.errors import WeightsError

State = dict[str, torch.Tensor]
Adapt = Callable[[State], State]
COUNTER = "num_batches_tracked"  # bookkeeping of batch norms: old files lack it, and evaluation never reads it
# First parts of names beside the backbone, as training code calls them: heads, projections, decoders, queues.
HEADS = (
    "fc",
    "head",
    "heads",
    "classifier",
    "last_linear",
    "head_dist",
    "linear",
    "logits",
    "project",
    "predict",
    "mlp_head",
    "prototypes",
    "decoder",
    "queue",
    "contrastive",
    "online",
    "aux",
    "momentum_head",
    "criterion",
    "loss",
)
# Last parts of names that training leaves in a backbone and evaluation does not read.
LEFTOVERS = ("mask_token", COUNTER, "n_averaged", "logit_scale", "temperature", "queue", "queue_ptr")
_DEPTH = 5
_SHOWN = 3


@dataclass(frozen=True)
class StateCandidate:
    """One dictionary of a checkpoint read under one prefix: how it differs from the network's state.

    label: where it is, for example `teacher.backbone`; state: the tensors that carry the network's names.
    """

    label: str
    state: State
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    wrong: tuple[str, ...]

    @property
    def fits(self) -> bool:
        return not (self.missing or self.unexpected or self.wrong)

    def faults(self) -> str:
        """Return in words what does not fit."""
        said = {"missing": self.missing, "unexpected": self.unexpected, "wrong shape": self.wrong}
        return "; ".join(f"{fault}: {some(keys)}" for fault, keys in said.items() if keys)


def find_state(
    content: Mapping[str, Any],
    network: Mapping[str, torch.Tensor],
    file: Path,
    *,
    pick: str | None = None,
    drop: Sequence[str] = (),
    adapt: Adapt | None = None,
) -> State:
    """Return the one state in a checkpoint that fits the network, in the network's names and types.

    pick: a word of the state's place in the file, as `FILE::teacher` gives it.  drop: first parts of further names that
    are not the network's.  adapt: brings a state to the network's shapes (position embeddings) before it is compared.

    Raises:
        WeightsError: none fits (the nearest is named, with what does not), or several differ.
    """
    found = list(_candidates(content, network, (*HEADS, *drop), adapt))
    if pick is not None:
        named = [one for one in found if pick == one.label or pick in one.label.split(".")]
        if not named:
            places = some(sorted({one.label or "the top level" for one in found}))
            raise WeightsError(f"{file} has no state '{pick}'. Found: {places or 'none'}.")
        found = named
    fitting = _distinct([one for one in found if one.fits])
    if len(fitting) > 1:
        labels = [one.label or "the top level" for one in fitting]
        choices = " or ".join(f"--weights {file}{SEPARATOR}{one.label.split('.')[0]}" for one in fitting if one.label)
        raise WeightsError(
            f"{file} holds {len(fitting)} states that fit the network and differ: {some(labels)}. Choose one: {choices}"
        )
    if not fitting:
        raise _nothing_fits(found, content, network, file)
    return typed(fitting[0].state, network)


def typed(state: State, network: Mapping[str, torch.Tensor]) -> State:
    """Return a state in the network's types, with the counters that evaluation does not read."""
    return {
        name: state[name].detach().to(like.dtype) if name in state else torch.zeros((), dtype=like.dtype)
        for name, like in network.items()
    }


def some(names: Sequence[str]) -> str:
    """Return the first few names, and how many there are."""
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown}, ... ({len(names)} in all)"


def _candidates(
    content: Mapping[str, Any], network: Mapping[str, torch.Tensor], heads: Sequence[str], adapt: Adapt | None
) -> Iterator[StateCandidate]:
    """Yield every dictionary of tensors under every prefix in which it holds some of the network's names."""
    for place, tensors in _dictionaries(content):
        for prefix in _prefixes(tensors, network):
            inside = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
            yield compared(".".join((*place, *prefix.split(".")[:-1])), inside, network, heads, adapt)


def _dictionaries(content: Mapping[Any, Any], place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], State]]:
    tensors = {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, torch.Tensor)}
    if tensors:
        yield place, tensors
    for key, value in content.items() if len(place) < _DEPTH else ():
        if isinstance(value, Mapping) and isinstance(key, str) and "optim" not in key.lower():
            yield from _dictionaries(value, (*place, key))


def _prefixes(tensors: Mapping[str, Any], network: Mapping[str, Any]) -> list[str]:
    """Return the prefixes before the network's names, most frequent first; those under half as frequent are omitted."""
    counts: Counter[str] = Counter()
    for key in tensors:
        parts = key.split(".")
        counts.update(".".join(parts[:n]) for n in range(len(parts)) if ".".join(parts[n:]) in network)
    most = max(counts.values(), default=0)
    return [f"{prefix}." if prefix else "" for prefix, count in counts.most_common() if 2 * count >= most]


def compared(
    label: str,
    inside: Mapping[str, Any],
    network: Mapping[str, torch.Tensor],
    heads: Sequence[str] = (),
    adapt: Adapt | None = None,
) -> StateCandidate:
    """Return how tensors by their names differ from a network's state; names of `heads` and leftovers are dropped."""
    own = {key: value for key, value in inside.items() if key in network}
    unexpected = tuple(key for key in inside if key not in network and not _is_beside(key, heads))
    missing = tuple(key for key in network if key not in own and not key.endswith(COUNTER))
    if adapt is not None and not missing:
        own = adapt(own)
    wrong = tuple(
        f"{key} {tuple(getattr(value, 'shape', ()))} instead of {tuple(network[key].shape)}"
        for key, value in own.items()
        if getattr(value, "shape", None) != network[key].shape
    )
    return StateCandidate(label, own, missing, unexpected, wrong)


def _is_beside(key: str, heads: Sequence[str]) -> bool:
    """Return whether a name is one of a head, or one that training leaves behind."""
    first, last = key.split(".")[0], key.rsplit(".", 1)[-1]
    return last in LEFTOVERS or any(first == head or first.startswith((f"{head}_", f"{head}or")) for head in heads)


def _distinct(candidates: Sequence[StateCandidate]) -> list[StateCandidate]:
    """Return the candidates whose tensors differ; of equal ones the first."""
    kept: list[StateCandidate] = []
    for one in candidates:
        if not any(_equal(one.state, other.state) for other in kept):
            kept.append(one)
    return kept


def _equal(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(
        value is other[key] or torch.equal(value, other[key]) for key, value in one.items()
    )


def _nothing_fits(
    found: Sequence[StateCandidate], content: Mapping[str, Any], network: Mapping[str, torch.Tensor], file: Path
) -> WeightsError:
    near = max(found, key=lambda one: len(one.state) - len(one.unexpected) - len(one.wrong), default=None)
    if near is None or 4 * len(near.state) < len(network):
        return WeightsError(
            f"{file} does not hold the network's weights: expected keys such as {some(list(network))}, "
            f"found {some([str(key) for key in content])}."
        )
    where = f" The nearest is '{near.label}'." if near.label else ""
    return WeightsError(
        f"{file} does not fit the network.{where} {near.faults()}. Is it the right file? See: mt models NAME"
    )
