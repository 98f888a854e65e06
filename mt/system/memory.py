"""Amounts of memory as people type them, and the cap on what a run takes of a GPU's."""

from __future__ import annotations

import os
import re

from mt.errors import InputError

_UNITS = {"": 30, "G": 30, "M": 20, "T": 40}  # powers of two, as torch and Slurm count
_AMOUNT = re.compile(r"(\d+\.?\d*|\.\d+)\s*([GMT]?)(?:i?B)?", re.IGNORECASE)


def bytes_of(amount: str, option: str) -> int:
    """Return the bytes that `4`, `4GB` or `512MB` are; a number alone is in GB, and a GB is 2^30 bytes.

    Raises:
        InputError: the text is not an amount above zero; `option` is named.
    """
    match = _AMOUNT.fullmatch(amount.strip())
    found = int(float(match[1]) * (1 << _UNITS[match[2].upper()])) if match else 0
    if found < 1:
        raise InputError(f"{option} takes an amount of memory such as 4, 4GB or 512MB; got '{amount}'.")
    return found


def cap_gpu_memory(amount: int, device: str) -> str | None:
    """Let this process take at most `amount` bytes of a CUDA device's memory; return a line where that has no effect.

    The cap is on what torch allocates.  CUDA's own context, some hundred MB, comes on top.  Work that needs more ends
    as on a card of that size: a batch is halved, and what cannot be halved is refused in one line.
    """
    import torch

    from mt.system.device import pick_device

    where = pick_device(device)
    if where.type != "cuda":
        return f"Note: --gpu-memory has no effect: this run computes on {where}."
    if str(where) == "cuda":  # each process of a torchrun has a card of its own
        where = torch.device("cuda", int(os.environ.get("LOCAL_RANK", torch.cuda.current_device())))
    total = torch.cuda.get_device_properties(where).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, amount / total), where)
    return None
