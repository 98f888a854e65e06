"""Trained networks beside their start: their probabilities are mixed, so that failed training costs no accuracy.

WiSE-FT (Wortsman et al., CVPR 2022) mixes weights.  At the rates that convolutional networks need with few labels, the
weights in between compute neither network: on 100 digits, 0.49 of the cases were right half-way from a start of 0.77 to
a trained network of 0.96, and 0.96 with mixed probabilities.  Mixing costs a second pass if the share is below 1.

Where the cached stage chose `blend` (`mt.fuse.blend_start`), the start predicts beside it, as the row `dvme` does.

What the trained networks say is a mean, for that of several trainings is better than one (Lakshminarayanan et al.,
NeurIPS 2017): of the trainings on the whole budget, and of the trials, which the choice has trained anyway.  All trials
together weigh as much as one training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from mt.fuse.end_to_end.network import EndToEnd
from mt.types import Array

if TYPE_CHECKING:
    from mt.fuse.dvme.fit import FittedDVME
    from mt.probe.protocols import Probe

_LEAST = 1e-30  # of a probability whose logarithm is taken


@dataclass(frozen=True)
class StartBlend:
    """The probe `blend` beside the start's network.

    share: of the network in the start's probabilities.  outputs (m,): the classes that the network predicts.
    """

    probe: Probe
    share: float
    outputs: Array

    @classmethod
    def of(cls, start: FittedDVME) -> StartBlend | None:
        """Return the blend of a cached stage, None if it has no share there."""
        return None if start.blend is None else cls(start.blend, start.choice.share, start.outputs)

    def beside(self, logits: Tensor, embeddings: Sequence[Tensor]) -> Tensor:
        """Return the logits (N, m) of both together; embeddings: of the backbones, (N, d_m), M of them."""
        X = np.concatenate([one.float().cpu().numpy() for one in embeddings], axis=1)
        blend = torch.from_numpy(self.probe.probabilities(X)[:, self.outputs]).double()
        network = torch.softmax(logits.cpu().double(), dim=-1)
        p = self.share * network + (1 - self.share) * blend
        return p.clamp_min(_LEAST).log().to(logits.device, torch.float32)


def mix_logits(start: Tensor, trained: Tensor, share: float, task: str) -> Tensor:
    """Return the logits (n, outputs) of (1 - share) times the start's probabilities plus share times the trained."""
    if share in (0.0, 1.0):
        return trained if share else start
    return mean_logits([start, trained], [1 - share, share], task)


def mean_logits(parts: Sequence[Tensor], weights: Sequence[float], task: str) -> Tensor:
    """Return the logits (n, outputs) of the weighted mean of the probabilities of several, each (n, outputs).

    One logit, and each label of a multilabel task, is the log-odds of a class.
    """
    stacked = torch.stack(list(parts)).double()
    logs = torch.tensor(weights, dtype=torch.float64, device=stacked.device).log()[:, None, None]
    if task == "multilabel" or stacked.shape[-1] == 1:
        sigmoid = nn.functional.logsigmoid
        return torch.logsumexp(logs + sigmoid(stacked), 0) - torch.logsumexp(logs + sigmoid(-stacked), 0)
    return torch.logsumexp(logs + torch.log_softmax(stacked, dim=-1), 0)


class Blended(nn.Module):
    """What predicts: trained networks and their start, mixed by the share of the trained, divided by the temperature.

    start: None where it has no share.  trained: empty where they have none.  blend: what predicts beside the start.
    trials: networks that together weigh as much as one of the trained.
    """

    def __init__(
        self,
        start: EndToEnd | None,
        trained: Sequence[EndToEnd],
        task: str,
        *,
        share: float,
        temperature: float = 1.0,
        blend: StartBlend | None = None,
        trials: Sequence[EndToEnd] = (),
    ) -> None:
        super().__init__()
        self.start = start if share < 1 else None
        self.blend = blend if share < 1 else None
        self.trained = list(trained) if share > 0 else []
        self.trials = list(trials) if share > 0 else []
        self._moved = nn.ModuleList([*self.trained, *self.trials])  # so that they move to a device with the start
        self.task, self.share, self.temperature = task, share, temperature

    @property
    def parts(self) -> list[EndToEnd]:
        """The start and the trained networks, if their shares are above 0."""
        return [*([self.start] if self.start else []), *self.trained]

    @property
    def n_outputs(self) -> int:
        return self.parts[0].n_outputs

    @property
    def n_models(self) -> int:
        return self.parts[0].n_models

    def with_attention(self, images: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the logits (N, outputs), and the attention (N, heads, M, M), mixed as the probabilities are."""
        found = [self._before(images)] if self.start else []
        found += [self._after(images)] if self.trained else []
        (start, before), (trained, after) = found[0], found[-1]
        share = self.share if len(found) > 1 else 1.0
        logits = mix_logits(start.float(), trained.float(), share, self.task) / self.temperature
        return logits, (1 - share) * before + share * after

    def _after(self, images: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the logits of the trained networks and of the trials together, and their attention."""
        parts = [*self.trained, *self.trials]
        if len(parts) == 1:
            return parts[0].with_attention(images)
        each = 1 / (len(self.trained) + bool(self.trials))
        weights = [each] * len(self.trained) + [each / len(self.trials) for _ in self.trials]
        logits, attention = zip(*(part.with_attention(images) for part in parts), strict=True)
        mixed = torch.stack([weight * one for weight, one in zip(weights, attention, strict=True)]).sum(dim=0)
        return mean_logits([one.float() for one in logits], weights, self.task), mixed

    def _before(self, images: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the start's logits, those of blend included, and its attention."""
        assert self.start is not None
        embeddings = self.start.embeddings(images)
        logits, attention = self.start.of_embeddings(embeddings)
        return (self.blend.beside(logits, embeddings) if self.blend else logits), attention
