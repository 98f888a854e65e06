"""The steps of a backbone from its images to its embedding: what is frozen, and what trains at which rate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import nn

from mt.backbones.networks.averaged import AveragedViews


class BackboneBlock:
    """One step of a backbone, for rates and freezing: its modules and the parameters they hold.

    earlier: ids of parameters that an earlier step holds too, which are that step's.
    """

    def __init__(self, modules: Sequence[nn.Module], own: Sequence[nn.Parameter] = ()) -> None:
        self.modules = list(modules)
        self.own = list(own)
        self.earlier: frozenset[int] = frozenset()

    @property
    def parameters(self) -> list[nn.Parameter]:
        every = dict.fromkeys([*self.own, *(p for module in self.modules for p in module.parameters())])
        return [parameter for parameter in every if id(parameter) not in self.earlier]


def blocks(backbone: nn.Module) -> list[BackboneBlock]:
    """Return the steps of a backbone from its images to its embedding: the stem, then each block.

    Blocks are the children of its sequences (a ResNet's `layer1` ... `layer4`, a transformer's `blocks`, stages with
    blocks of their own).  What comes before the first, and a backbone's own parameters (class token, positions), is
    the stem; what follows a block belongs to it (final norms).  Averaging over views adds no step.
    """
    if isinstance(backbone, AveragedViews):
        backbone = backbone.network
    found = [BackboneBlock([], list(backbone.parameters(recurse=False)))]
    for child, in_sequence in _units(backbone):
        if in_sequence:
            found.append(BackboneBlock([child]))
        else:
            found[-1].modules.append(child)
    seen: frozenset[int] = frozenset()
    for block in found:
        block.earlier = seen
        seen |= set(map(id, block.parameters))
    return [block for block in found if block.parameters]


def _units(module: nn.Module, *, in_sequence: bool = False) -> Iterator[tuple[nn.Module, bool]]:
    for child in module.children():
        if _is_sequence(child):
            yield from _units(child, in_sequence=True)
        elif _is_sequence(getattr(child, "blocks", None)):
            yield from _units(child, in_sequence=in_sequence)
        elif any(True for _ in child.parameters()):
            yield child, in_sequence


def _is_sequence(module: object) -> bool:
    """Return whether a module is a sequence of blocks, which have layers of their own: a stem's layers do not."""
    if not isinstance(module, (nn.Sequential, nn.ModuleList)):
        return False
    holding = [child for child in module if any(True for _ in child.parameters())]
    return bool(holding) and all(any(True for _ in child.children()) for child in holding)
