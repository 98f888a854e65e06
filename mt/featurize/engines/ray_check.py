"""Check the nodes of a Ray cluster: package versions, and the folders that workers read."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mt.featurize.engines.ray_link import join

ANSWER = 120.0  # seconds that a node has to import its packages and answer


@dataclass(frozen=True)
class NodeCheck:
    """One node.  differing: versions that differ from this machine's, in words.  unread: folders it cannot read.

    problem: why the check failed.
    """

    host: str
    resources: Mapping[str, float]
    differing: Sequence[str] = ()
    unread: Sequence[str] = ()
    problem: str = ""


def look_at_nodes(engine: str, folders: Sequence[str]) -> Iterator[NodeCheck]:
    """Yield the check of every node of the cluster that `--engine` names.

    folders: folders that workers must be able to read.  Raises as `ray_link.join` does.
    """
    ray = join(engine)
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here, look = installed(), ray.remote(looked)
    asked = []
    for node in ray.nodes():
        if node["Alive"]:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            asked.append((node, look.options(num_cpus=0, scheduling_strategy=there).remote(list(folders))))
    for node, found in asked:
        host, resources = str(node["NodeManagerHostname"]), node["Resources"]
        try:
            versions, unread = ray.get(found, timeout=ANSWER)
        except ray.exceptions.RayError as error:
            yield NodeCheck(host, resources, problem=last_line(error))
            continue
        differing = [
            f"{name} {versions.get(name)} (here {here[name]})" for name in here if versions.get(name) != here[name]
        ]
        yield NodeCheck(host, resources, differing, unread)


def installed() -> dict[str, str]:
    """Return the versions that must be the same on every machine."""
    from mt.featurize.embed import versions

    return {"python": platform.python_version(), **versions()}


def looked(folders: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Return, on a node, its versions and the folders that it cannot read."""
    return installed(), [folder for folder in folders if not os.access(folder, os.R_OK)]


def last_line(error: Any) -> str:
    """Return the last line of a Ray error's text: the error itself, below its traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[-1][:200]
