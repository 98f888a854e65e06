"""What is known of the runs of a fit that are done, so that a checkpoint of a later run is enough to resume from."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from mt.fuse.end_to_end.checkpoint import Checkpoint
from mt.fuse.end_to_end.choice.shares import HeldOut


@dataclass(frozen=True)
class Record:
    """The runs of a fit by their number: trials come first, then trainings on the whole budget.

    held_out: what each trial predicted.  outcomes: the networks that are still needed, as `Run.outcome` gives them.
    """

    held_out: list[HeldOut] = field(default_factory=list)
    outcomes: dict[int, dict[str, Tensor]] = field(default_factory=dict)

    @classmethod
    def of(cls, found: Checkpoint) -> Record:
        """Return what a checkpoint records."""
        held_out: dict[int, dict[str, Tensor]] = {}
        outcomes: dict[int, dict[str, Tensor]] = {}
        for name, tensor in found.tensors.items():
            kind, _, rest = name.partition(".")
            number, _, key = rest.partition(".")
            if kind == "tried":
                held_out.setdefault(int(number), {})[key] = tensor
            elif kind == "outcome":
                outcomes.setdefault(int(number), {})[key] = tensor
        return cls([HeldOut(**held_out[number]) for number in sorted(held_out)], outcomes)

    def tensors(self) -> dict[str, Tensor]:
        """Return everything by name, as a checkpoint keeps it."""
        runs = [("tried", number, vars(cases)) for number, cases in enumerate(self.held_out)]
        runs += [("outcome", number, network) for number, network in self.outcomes.items()]
        return {f"{kind}.{number}.{key}": tensor for kind, number, found in runs for key, tensor in found.items()}

    def drop_networks(self, numbers: set[int]) -> None:
        """Forget the networks of some runs."""
        for number in numbers:
            self.outcomes.pop(number, None)
