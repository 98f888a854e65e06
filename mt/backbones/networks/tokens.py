"""Embeddings from the tokens of other libraries' transformers, by one set of rules for all of them."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import nn

from mt.backbones.embeddings import CLASS_RULES, POOLED, unfitting

N_LAST = 4  # blocks whose class tokens `cls4` concatenates


class TokenNetwork(nn.Module):
    """A network of another library: images (N, 3, H, W) -> embeddings (N, dim), by an embedding rule.

    `n_prefix` tokens stand before those of the patches: the class token first if `has_class`, then the registers.
    """

    def __init__(self, network: nn.Module, rule: str, *, has_class: bool, n_prefix: int) -> None:
        super().__init__()
        self.network = network
        self.rule = rule
        self.has_class = has_class
        self.n_prefix = n_prefix

    @abstractmethod
    def pooled(self, images: torch.Tensor) -> torch.Tensor | None:
        """Return the model's own pooled output, None where it has none."""

    @abstractmethod
    def tokens(self, images: torch.Tensor) -> torch.Tensor | None:
        """Return the last block's tokens (N, T, D) after the final norm, None where the network has no tokens."""

    @abstractmethod
    def class_tokens(self, images: torch.Tensor) -> list[torch.Tensor] | None:
        """Return the class tokens of the last four blocks through the final norm; None where they cannot be had."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the embeddings."""
        found = self._embedding(images)
        assert found is not None, "the rule was checked when the network was loaded"
        return found

    def check(self, images: torch.Tensor, name: str) -> int:
        """Return the embedding's width.

        Raises:
            InputError: the rule does not fit; the message names the rules that do.
        """
        found = self._embedding(images)
        if found is None:
            raise unfitting(name, self.rule, self._fitting(images))
        return found.shape[1]

    def _embedding(self, images: torch.Tensor) -> torch.Tensor | None:
        if self.rule in CLASS_RULES and not self.has_class:
            return None
        if self.rule == POOLED:
            return self.pooled(images)
        if self.rule == "cls4":
            layers = self.class_tokens(images)
            return None if layers is None else torch.cat(layers, dim=1)
        tokens = self.tokens(images)
        return None if tokens is None else by_rule(tokens, self.rule, self.n_prefix)

    def _fitting(self, images: torch.Tensor) -> list[str]:
        """Return the rules that fit, the class token first: it is what most authors use."""
        rules = []
        if self.tokens(images) is not None:
            rules += ["cls", "mean", "cls+mean"] if self.has_class else ["mean"]
            if self.has_class and self.class_tokens(images) is not None:
                rules.append("cls4")
        return [*rules, POOLED] if self.pooled(images) is not None else rules


def by_rule(tokens: torch.Tensor, rule: str, n_prefix: int) -> torch.Tensor:
    """Return `cls`, `mean` or `cls+mean` of tokens (N, T, D), of which the first `n_prefix` are not patches."""
    mean = tokens[:, n_prefix:].mean(dim=1)
    if rule == "mean":
        return mean
    return tokens[:, 0] if rule == "cls" else torch.cat((tokens[:, 0], mean), dim=1)
