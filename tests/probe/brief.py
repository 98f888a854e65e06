"""Protocols changed for tests: the same recipe with other settings of its method."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

from mt.probe.method_settings import Head
from mt.probe.protocols import PROTOCOLS, Protocol

M = TypeVar("M")


def brief(name: str) -> Protocol:
    """Return a protocol with fewer gradient steps."""
    method = PROTOCOLS[name].method
    if not isinstance(method, Head):
        return PROTOCOLS[name]
    return changed(name, steps=20) if method.steps else changed(name, epochs=5)


def changed(name: str, **settings: Any) -> Protocol:
    """Return a protocol with other values of these settings of its method."""
    method: Any = PROTOCOLS[name].method
    return replace(PROTOCOLS[name], method=replace(method, **settings))


def method_of(protocol: Protocol, kind: type[M]) -> M:
    """Return the method of a protocol, which is of this kind."""
    assert isinstance(protocol.method, kind)
    return protocol.method
