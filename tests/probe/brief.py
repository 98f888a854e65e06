"""Protocols made brief for tests: the same recipe with fewer gradient steps."""

from __future__ import annotations

from dataclasses import replace

from mt.probe.method_settings import Head
from mt.probe.protocols import PROTOCOLS, Protocol


def brief(name: str) -> Protocol:
    protocol = PROTOCOLS[name]
    if not isinstance(protocol.method, Head):
        return protocol
    few = {"steps": 20} if protocol.method.steps else {"epochs": 5}
    return replace(protocol, method=replace(protocol.method, **few))
