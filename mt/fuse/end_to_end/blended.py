"""The trained network beside its start: their probabilities are mixed, so that failed training costs no accuracy.

WiSE-FT (Wortsman et al., CVPR 2022) mixes weights.  At the rates that convolutional networks need with few labels, the
weights in between compute neither network: on 100 digits, 0.49 of the cases were right half-way from a start of 0.77 to
a trained network of 0.96, and 0.96 with mixed probabilities.  Mixing costs a second pass if the share is below 1.

Where the cached stage chose `blend` (`mt.fuse.blend_start`), the start predicts beside it, as the row `dvme` does.
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
    """Return the logits (n, outputs) of (1 - share) times the start's probabilities plus share times the trained ones.

    One logit, and each label of a multilabel task, is the log-odds of a class.
    """
    if share in (0.0, 1.0):
        return trained if share else start
    parts = torch.stack([start, trained]).double()
    weights = torch.tensor([1 - share, share], dtype=torch.float64, device=parts.device).log()[:, None, None]
    if task == "multilabel" or parts.shape[-1] == 1:
        sigmoid = nn.functional.logsigmoid
        return torch.logsumexp(weights + sigmoid(parts), 0) - torch.logsumexp(weights + sigmoid(-parts), 0)
    return torch.logsumexp(weights + torch.log_softmax(parts, dim=-1), 0)


class Blended(nn.Module):
    """The network that predicts: the trained one and its start, mixed by the share, then divided by the temperature.

    One of them is None if its share is 0.  blend: what predicts beside the start.
    """

    def __init__(
        self,
        start: EndToEnd | None,
        trained: EndToEnd | None,
        task: str,
        *,
        share: float,
        temperature: float = 1.0,
        blend: StartBlend | None = None,
    ) -> None:
        super().__init__()
        self.start = start if share < 1 else None
        self.blend = blend if share < 1 else None
        self.trained = trained if share > 0 else None
        self.task, self.share, self.temperature = task, share, temperature

    @property
    def parts(self) -> list[EndToEnd]:
        """The networks whose share is above 0."""
        return [part for part in (self.start, self.trained) if part is not None]

    @property
    def n_outputs(self) -> int:
        return self.parts[0].n_outputs

    @property
    def n_models(self) -> int:
        return self.parts[0].n_models

    def with_attention(self, images: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the logits (N, outputs), and the attention (N, heads, M, M), mixed as the probabilities are."""
        found = [self._before(images)] if self.start else []
        found += [self.trained.with_attention(images)] if self.trained else []
        (start, before), (trained, after) = found[0], found[-1]
        share = self.share if len(found) > 1 else 1.0
        logits = mix_logits(start.float(), trained.float(), share, self.task) / self.temperature
        return logits, (1 - share) * before + share * after

    def _before(self, images: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the start's logits, those of blend included, and its attention."""
        assert self.start is not None
        embeddings = self.start.embeddings(images)
        logits, attention = self.start.of_embeddings(embeddings)
        return (self.blend.beside(logits, embeddings) if self.blend else logits), attention
