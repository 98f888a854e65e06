"""Remarks about many images, counted, so that each is reported once."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any


class Notes:
    """Counts of remarks that decoding makes; several threads may add at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._warnings: Counter[str] = Counter()
        self._warned = 0

    def __getstate__(self) -> dict[str, Any]:
        """Return the counts: a process that decodes for another one has a lock of its own."""
        with self._lock:
            return {name: value for name, value in vars(self).items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._lock = threading.Lock()

    def add(self, what: str) -> None:
        """Count one image."""
        with self._lock:
            self._counts[what] += 1

    def add_warnings(self, texts: list[str]) -> None:
        """Count what a library warned of while it read one image."""
        if texts:
            with self._lock:
                self._warnings.update(texts)
                self._warned += 1

    def merge(self, other: Notes) -> None:
        """Add what another process counted."""
        with self._lock:
            self._counts.update(other._counts)
            self._warnings.update(other._warnings)
            self._warned += other._warned

    def lines(self) -> list[str]:
        """Return one line per kind of note, and one for all warnings of libraries."""
        with self._lock:
            lines = [f"{what}: {count:,}" for what, count in sorted(self._counts.items())]
            if self._warnings:
                (common, times), kinds = self._warnings.most_common(1)[0], len(self._warnings)
                total = sum(self._warnings.values())
                lines.append(
                    f"warnings of pydicom: {total:,}, on {self._warned:,} of the files, of {kinds:,} "
                    f"{'kind' if kinds == 1 else 'kinds'}; most often ({times:,}): {common}"
                )
            return lines
