"""The fits of one call that differ in their rows or their label, and the row weights of each."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Groups:
    """Fits that differ in their rows or their label; each is to be solved at every C.

    ``targets`` (rows, labels) holds class numbers (one column) or 0/1 a label; ``members`` (rows, folds) says which
    rows a fold fits; ``sample_weight`` (rows,).  Group g is fold g // labels, label g % labels.  ``class_weight`` is
    None, "balanced", or a weight a class number.
    """

    softmax: bool
    outputs: int
    targets: Tensor
    members: Tensor
    sample_weight: Tensor
    class_weight: Tensor | str | None

    def ordered(self, order: Tensor) -> Groups:
        """Return the same fits with their rows in this order."""
        return replace(
            self, targets=self.targets[order], members=self.members[order], sample_weight=self.sample_weight[order]
        )

    @property
    def count(self) -> int:
        return self.members.shape[1] * self.targets.shape[1]

    def classes(self, group: int) -> Tensor:
        """Return the group's class number of every row (rows,)."""
        return self.targets[:, group % self.targets.shape[1]]

    def counts(self, group: int) -> Tensor:
        """Return how many rows of positive weight each class has in the group."""
        classes = self.classes(group)[self.weights(group) > 0]
        return torch.bincount(classes, minlength=self.outputs if self.softmax else 2)

    def weights(self, group: int) -> Tensor:
        """Return each row's weight in the group (rows,), float64, not normalised."""
        classes = self.classes(group)
        weight = torch.where(self.members[:, group // self.targets.shape[1]], self.sample_weight, 0)
        if isinstance(self.class_weight, Tensor):
            return weight * self.class_weight[classes]
        if self.class_weight == "balanced":
            # scikit-learn: n / (classes present · rows of the class), rows counted by their sample weight.
            total = class_mass(classes, weight, int(classes.max()) + 1)
            present = (total > 0).sum()
            balance = torch.where(total > 0, weight.sum() / (present * total), 0)
            return weight * balance[classes]
        return weight


def class_mass(classes: Tensor, weights: Tensor, n_classes: int) -> Tensor:
    """Return the sum of weights of each class; on the CPU, since CUDA adds in no fixed order."""
    return torch.bincount(classes.cpu(), weights=weights.cpu(), minlength=n_classes).to(weights.device)
