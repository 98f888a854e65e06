"""Which optional parts of `mt` are installed, read from the package's own metadata."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, requires, version

DISTRIBUTION = "medical-transfer"
DEVELOPMENT = {"test", "dev"}  # extras of the people who change `mt`


def missing_of_extras() -> dict[str, list[str]]:
    """Return for each extra, in alphabetical order, the distributions it names that are not installed."""
    missing: dict[str, list[str]] = {}
    for requirement in requires(DISTRIBUTION) or ():
        if named := re.match(r"""([\w.-]+).*\bextra == ['"]([\w-]+)['"]""", requirement):
            name, extra = named.groups()
            if extra not in DEVELOPMENT:
                missing.setdefault(extra, []).extend([] if _installed(name) else [name])
    return dict(sorted(missing.items()))


def _installed(name: str) -> bool:
    try:
        return bool(version(name))
    except PackageNotFoundError:
        return False
