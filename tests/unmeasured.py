"""The environment of a process whose coverage is not measured: measuring takes memory, and writes a file at the end."""

from __future__ import annotations

import os


def environment() -> dict[str, str]:
    """Return this process's environment without what starts coverage in others."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_PROCESS")}
