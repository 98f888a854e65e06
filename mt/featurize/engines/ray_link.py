"""Join a Ray cluster: at the address that `--engine ray[:ADDRESS]` names, or on this machine."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mt.errors import InputError, MissingExtraError, MtError

EXTRA = "pip install 'medical-transfer[ray]'"
PATIENCE = 5.0  # seconds in which the address must answer


def address_of(engine: str) -> str | None:
    """Return the address in `ray:ADDRESS`; None in `ray`, which joins or starts a cluster on this machine."""
    return engine.partition(":")[2] or None


@contextmanager
def joined(engine: str) -> Iterator[Any]:
    """Join the cluster for the block and yield the module `ray`; an existing connection is used and kept.

    Raises:
        MissingExtraError: Ray is not installed.
        InputError: not an address, or no cluster answers at it.
        MtError: the cluster runs other versions, or Ray does not start.
    """
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError(f"--engine ray needs Ray, which is not installed. Install it: {EXTRA}") from error
    if ray.is_initialized():
        yield ray
        return
    address = address_of(engine)
    _check_reachable(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
    except ConnectionError as error:
        raise _unreachable(address or "auto", error) from error
    except Exception as error:  # Ray raises RuntimeError and others, in many lines
        text = " ".join(str(error).split())
        if "ersion mismatch" in text:
            raise MtError(
                f"The Ray cluster runs other versions. {text} Install the same ones on every machine."
            ) from error
        raise MtError(f"Ray could not be joined or started ({text[:300]}). Try: ray status") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _check_reachable(address: str | None) -> None:
    """Raise InputError if nothing listens at HOST:PORT: Ray itself would try for a minute and print pages."""
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if not address or address in ("auto", "local"):
        return
    if not colon or not port.isdigit():
        raise InputError(f"--engine ray:{address} names no address: expected ray:HOST:PORT, such as ray:10.0.0.1:6379.")
    try:
        socket.create_connection((host, int(port)), PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise _unreachable(address, error) from error


def _unreachable(address: str, error: Exception) -> InputError:
    reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
    return InputError(
        f"No Ray cluster answers at {address} ({reason}). Start one there with ray start --head, or use this "
        "machine: --engine ray"
    )
