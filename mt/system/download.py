"""Downloading weights: resumed after a break, checked, and never half-written under the final name."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from mt.errors import WeightsError
from mt.system import files
from mt.terminal import progress

TIMEOUT = 30.0
ATTEMPTS = 5
_CHUNK = 1 << 20
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class _Known:
    """What the server said of a file that is partly here; the rest is requested only if it has not changed since."""

    url: str
    validator: str | None = None
    total: int | None = None


class _Broken(Exception):
    """The transfer ended early in a way that another attempt may mend."""


def download(
    url: str,
    path: Path,
    *,
    known_hash: str | None = None,
    check: Callable[[Path], None] = lambda part: None,
    help_offline: str = "",
    pause: Callable[[float], None] = time.sleep,
    timeout: float = TIMEOUT,
) -> None:
    """Fetch `url` into `path`, which appears at once and whole, or not at all.

    The received part of an interrupted download stays beside it as `.part` and is resumed if the server allows it.
    `known_hash` is the beginning of the file's hash ("sha256:0676ba61", "md5:..."); `check` reads the finished
    part and raises WeightsError if it is not the expected kind of file.  The sha256 is recorded beside the file; a
    later download that differs from the record is refused.  One process downloads, others wait for it.
    timeout: seconds without an answer.

    Raises:
        WeightsError: the file cannot be downloaded or is not the right one; the message says what to fetch by hand.
    """
    from filelock import FileLock

    if not _allowed(url):
        raise WeightsError(f"{url} was not fetched: weights come over https only.")
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f"{path.name}.lock")):
        if path.exists():
            return
        try:
            part = _fetch(url, path, pause, timeout)
        except (_Broken, urllib.error.URLError, OSError, http.client.HTTPException) as error:
            raise WeightsError(_by_hand(url, path, error, help_offline)) from error
        try:
            sha256 = _verify(url, part, path, known_hash)
            check(part)
        except WeightsError:
            part.unlink()
            _part_facts(path).unlink(missing_ok=True)
            raise
        files.write_whole(_record(path), f"{sha256}  {path.name}\n".encode())
        files.rename(part, path)
        _part_facts(path).unlink(missing_ok=True)


def check_recorded(path: Path, sha256: Callable[[Path], str] | None = None) -> None:
    """Raise WeightsError if the file differs from the sha256 recorded when it was downloaded, if there is a record.

    sha256: returns the hash of a file, such as from an index; None: the file is read.
    """
    record = _record(path)
    if not record.is_file():
        return
    expected = record.read_text().split(maxsplit=1)[0]
    found = sha256(path) if sha256 is not None else files.hash_of(path)
    if found != expected:
        raise WeightsError(
            f"{path} changed since it was downloaded: sha256 {found[:12]} now, {expected[:12]} then. "
            f"Delete it to fetch it again, or delete {record.name} if you replaced it on purpose."
        )


def _fetch(url: str, path: Path, pause: Callable[[float], None], timeout: float) -> Path:
    """Return the whole file as `.part`, resuming an earlier part, after at most `ATTEMPTS` attempts."""
    part = path.with_name(f"{path.name}.part")
    for attempt in range(ATTEMPTS):
        try:
            _transfer(url, part, _part_facts(path), timeout)
            return part
        except (_Broken, TimeoutError, ConnectionError, http.client.HTTPException) as error:
            last: Exception = error
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code not in (408, 429):
                raise
            last = error
        if attempt + 1 < ATTEMPTS:
            pause(2.0**attempt)
    raise last


def _transfer(url: str, part: Path, facts: Path, timeout: float) -> None:
    """Append what is missing to `part`; raises `_Broken` if the end was not reached."""
    known = _read_facts(facts, url)
    have = part.stat().st_size if part.exists() and known.validator else 0
    headers = {"Accept-Encoding": "identity", "User-Agent": "medical-transfer"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": known.validator or ""}
    try:
        response = _OPENER.open(urllib.request.Request(url, headers=headers), timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()  # the exception is also the open response
        if error.code != 416:
            raise
        if have == known.total:  # everything had arrived
            return
        part.unlink()
        raise _Broken("the server's file is shorter than what was there of it") from error
    with response:
        resumes = response.status == 206 and _range_start(response) == have
        if response.status == 206 and not resumes:
            part.unlink(missing_ok=True)
            raise _Broken("the server resumed at another place")
        length = response.headers.get("Content-Length")
        start = have if resumes else 0
        total = start + int(length) if length is not None and length.isdigit() else None
        files.write_whole(facts, json.dumps(asdict(_Known(url, _validator(response), total))).encode())
        with open(part, "ab" if resumes else "wb") as file:
            _copy(response, file, start, total, part.name)
    size = part.stat().st_size
    if total is not None and size != total:
        raise _Broken(f"the connection ended after {size} of {total} bytes")


def _copy(response: Any, file: IO[bytes], start: int, total: int | None, label: str) -> None:
    with progress.bar(label, total or 0, unit="bytes", done=start) as advance:
        try:
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                advance(len(chunk))
        finally:
            file.flush()
            files.sync(file.fileno())


class _HttpsStays(urllib.request.HTTPRedirectHandler):
    """Follow redirects, but never from https to an unencrypted connection."""

    def redirect_request(self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: Any) -> Any:
        if not _allowed(newurl):
            fp.close()
            raise WeightsError(f"{req.full_url} redirects to {newurl}: weights come over https only.")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


_OPENER = urllib.request.build_opener(_HttpsStays)


def _allowed(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)


def _validator(response: Any) -> str | None:
    """Return what identifies this version of the file to the server: a strong ETag, else its date."""
    etag: str | None = response.headers.get("ETag")
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")


def _range_start(response: Any) -> int | None:
    """Return the first byte's place in a `Content-Range: bytes 100-199/200` header."""
    value = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
    return int(value) if value.isdigit() else None


def _read_facts(facts: Path, url: str) -> _Known:
    try:
        known = _Known(**json.loads(facts.read_text()))
    except (OSError, ValueError, TypeError):
        return _Known(url)
    return known if known.url == url else _Known(url)


def _verify(url: str, part: Path, path: Path, known_hash: str | None) -> str:
    """Return the part's sha256 once it agrees with the published hash and with an earlier download's record."""
    sha256 = files.hash_of(part)
    if known_hash is not None:
        algorithm, _, beginning = known_hash.partition(":")
        found = sha256 if algorithm == "sha256" else files.hash_of(part, algorithm)
        if not found.startswith(beginning):
            raise WeightsError(
                f"{url} sent the wrong content, which was deleted: its {algorithm} begins "
                f"{found[:8]}, expected {beginning}. Try again, or fetch it elsewhere."
            )
    record = _record(path)
    if record.is_file() and (seen := record.read_text().split(maxsplit=1)[0]) != sha256:
        raise WeightsError(
            f"{url} sent another file than when it was first fetched: sha256 {sha256[:12]} now, {seen[:12]} then. "
            f"If that is expected, delete {record} and try again."
        )
    return sha256


def _by_hand(url: str, path: Path, error: Exception, help_offline: str) -> str:
    reason = error if isinstance(error, urllib.error.HTTPError) else getattr(error, "reason", None) or error
    return (
        f"Could not download {url} ({reason}). Fetch it where there is a network and put it at {path}, "
        f"or pass --weights FILE. {help_offline}"
    ).rstrip()


def _record(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _part_facts(path: Path) -> Path:
    return path.with_name(f"{path.name}.part.json")
