"""How much memory this process can still take, and amounts of memory in words."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from mt.errors import InputError

_UNLIMITED = 1 << 60  # cgroup v1 writes a number near 2^63 where there is no limit


def available_memory(root: Path = Path("/")) -> int:
    """Return the bytes of memory that this process can still take; page cache counts as free.

    Linux: the least of MemAvailable and of what the process's control groups (containers, Slurm jobs) have left.
    Elsewhere: all memory of the machine.  root: the folder that holds proc and sys.
    """
    meminfo = _numbers(root / "proc/meminfo")
    if "MemAvailable:" in meminfo:
        machine = meminfo["MemAvailable:"] * 1024
    else:
        machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(0, min([machine, *_left_in_groups(root)]))


def check_memory(what: str, needed: int, instead: str, *, limit: int | None = None) -> None:
    """Raise InputError where work needs more than ``limit`` bytes, or without one more than there is to take.

    what: the subject of the message.  instead: what to type, in whole sentences.
    """
    room = available_memory() if limit is None else limit
    if needed > room:
        there = "is available" if limit is None else "is what --memory allows"
        raise InputError(f"{what} needs about {in_units(needed)} of memory; {in_units(room)} {there}. {instead}")


def in_units(amount: float) -> str:
    """Return an amount of bytes in the unit that suits it, as `--memory` takes it."""
    for unit, size in (("TB", 1 << 40), ("GB", 1 << 30)):
        if amount >= size:
            return f"{amount / size:.3g} {unit}"
    return f"{max(1, round(amount / (1 << 20)))} MB"


def _left_in_groups(root: Path) -> Iterator[int]:
    """Yield what each control group of this process has left, its parents included (cgroup v1 and v2)."""
    file = root / "proc/self/cgroup"
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else ():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            mount, limit, used, kinds = "sys/fs/cgroup", "memory.max", "memory.current", ""
        elif "memory" in controllers.split(","):
            mount, limit, used, kinds = (
                "sys/fs/cgroup/memory",
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
                "total_",
            )
        else:
            continue
        # In a container the path may be the host's, and the group then lies at the mount itself.
        group = Path(path.lstrip("/"))
        for here in (root / mount / one for one in (group, *group.parents)):
            most, taken = _number(here / limit), _number(here / used)
            if most is not None and taken is not None and most < _UNLIMITED:
                cached = _numbers(here / "memory.stat")
                yield most - taken + sum(cached.get(f"{kinds}{one}_file", 0) for one in ("active", "inactive"))


def _number(file: Path) -> int | None:
    """Return the number that a file holds, None without one: `max` stands for no limit."""
    text = file.read_text(encoding="ascii").strip() if file.is_file() else ""
    return int(text) if text.isdigit() else None


def _numbers(file: Path) -> dict[str, int]:
    """Return the number that follows the first word of each line; empty without the file."""
    lines = [line.split() for line in file.read_text(encoding="ascii").splitlines()] if file.is_file() else []
    return {words[0]: int(words[1]) for words in lines if len(words) > 1 and words[1].isdigit()}
