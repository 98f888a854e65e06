"""Hashes that stand for patients: made with a secret of the cache, so that nobody guesses who is meant."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from mt.errors import CacheError
from mt.system import files

VARIABLE = "MT_ID_SALT"
_FILE = ".id-salt"
_DIGITS = 16


def id_salt(cache_dir: Path) -> bytes:
    """Return the secret that a cache's patients are hashed with: `MT_ID_SALT`, else the cache's own, made once.

    Raises:
        CacheError: the cache cannot be written, or its secret cannot be read.
    """
    given = os.environ.get(VARIABLE)
    if given:
        return given.encode()
    path = cache_dir / _FILE
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            files.write_first(path, secrets.token_hex(32).encode())
        return path.read_bytes()
    except OSError as error:
        raise CacheError(f"Cannot keep the secret {path}: {error.strerror}. Set {VARIABLE} instead.") from error


def known_salt(cache_dir: Path) -> bytes | None:
    """Return the secret of a cache that has hashed anything; None where nothing was."""
    if os.environ.get(VARIABLE) or (cache_dir / _FILE).exists():
        return id_salt(cache_dir)
    return None


def hashed(value: str, salt: bytes) -> str:
    """Return the hash of a value: 16 hexadecimal digits of HMAC-SHA256."""
    return hmac.new(salt, value.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:_DIGITS]


def hashed_id(id_: str, salt: bytes) -> str:
    """Return the hash that stands for an image's id where `--hash-ids` asks for it."""
    return hashed(f"id:{id_}", salt)
