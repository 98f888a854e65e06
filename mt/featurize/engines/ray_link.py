"""Join a Ray cluster: at the address that `--engine ray[:ADDRESS]` names, or on this machine."""

from __future__ import annotations

import logging
import os
import socket
from typing import Any

from mt.errors import InputError, MissingExtraError, MtError

EXTRA = "pip install 'medical-transfer[ray]'"
PATIENCE = 5.0  # seconds in which the address must answer
_ASKED: dict[tuple[str, str], str | None] = {}  # of the clusters joined here: Ray's address and job, to what was asked


def address_of(engine: str) -> str | None:
    """Return the address in `ray:ADDRESS`, in `ray` that of RAY_ADDRESS; None joins or starts one on this machine."""
    return engine.partition(":")[2] or os.environ.get("RAY_ADDRESS") or None


def join(engine: str) -> Any:
    """Join the cluster, unless this process has joined one, and return the module `ray`.

    The process stays in the cluster until it ends: in one that leaves and joins again, Ray (2.60) now and then never
    answers its workers, which then wait for their arguments without end.

    Raises:
        MissingExtraError: Ray is not installed.
        InputError: not an address, no cluster answers at it, or this process has joined another one.
        MtError: the cluster runs other versions, or Ray does not start.
    """
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError(f"--engine ray needs Ray, which is not installed. Install it: {EXTRA}") from error
    address = address_of(engine)
    if ray.is_initialized():
        _check_same(address, _ASKED.get(_connection(ray), address))
        return ray
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
    _ASKED[_connection(ray)] = address
    return ray


def _connection(ray: Any) -> tuple[str, str]:
    context = ray.get_runtime_context()
    return context.gcs_address, context.get_job_id()


def _check_same(address: str | None, asked: str | None) -> None:
    """Raise InputError if `join` has joined a cluster that was asked for otherwise."""
    if address == asked:
        return
    wanted, other = (f"--engine ray:{one}" if one else "--engine ray" for one in (address, asked))
    raise InputError(f"This process has joined {other}, and can join one cluster: {wanted} needs another process.")


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
