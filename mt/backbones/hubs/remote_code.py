"""Code that a repository of transformers brings for its model: found, fetched, hashed; run only where it was allowed.

`auto_map` in config.json names its classes.  transformers copies their modules and those that these import from the
same folder.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from mt.backbones.hubs.repository import PublishedFiles, fetched, library
from mt.errors import WeightsError

FLAG = "--trust-remote-code"


def with_code(files: PublishedFiles, name: str) -> PublishedFiles:
    """Return the files with the modules that config.json names, and those that these import, fetched beside it.

    Raises:
        WeightsError: a module is missing, or belongs to another repository than the one that was allowed.
    """
    config: dict[str, Any] = json.loads((files.path / "config.json").read_text(encoding="utf-8"))
    modules = sorted({_module(value, name) for value in _classes(config.get("auto_map") or {})})
    relative: Callable[[Path], list[str]] = library(
        "transformers.dynamic_module_utils", f"'{name}'"
    ).get_relative_imports
    found: dict[str, Path] = {}
    while modules:
        module = modules.pop()
        file = f"{module.replace('.', '/')}.py"
        if file not in found:
            path = fetched(files, file, name=name)
            if path is None:
                raise WeightsError(f"'{name}' names code in {file}, which its repository does not have.")
            found[file] = path
            modules += relative(path)
    code = tuple(sorted(found))
    return replace(files, files=(*files.files, *found.values()), watched=(*files.watched, *found.values()), code=code)


def _classes(auto_map: dict[str, Any]) -> list[str]:
    """Return the classes that an `auto_map` names; a tokenizer's entry is a list with gaps."""
    values = [one for value in auto_map.values() for one in (value if isinstance(value, list) else [value])]
    return [one for one in values if isinstance(one, str)]


def _module(value: str, name: str) -> str:
    other, separator, local = value.rpartition("--")
    if separator:
        raise WeightsError(
            f"'{name}' needs code from another repository, '{other}', which mt does not run. Wrap the model yourself: "
            "--model module:FILE.py:FUNCTION"
        )
    return local.rpartition(".")[0]
