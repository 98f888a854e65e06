"""Whether a run may resume a partial file: only if it computes the same numbers for the same rows."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mt.cache.feature_file import format
from mt.cache.feature_file.rewrite import resealed
from mt.cache.feature_file.rows import hash_of
from mt.cache.names import JSON
from mt.errors import CacheError
from mt.system import files

if TYPE_CHECKING:
    import numpy as np

ADOPTED = {"batch_size", "threads"}  # a resumed run takes these from the file
MIXED = "mixed_compute"
_WARNING = "Rows were computed on different devices or versions (--allow-mixed)."


def agree(
    partial: Path,
    arrays: Mapping[str, np.ndarray],
    manifest: dict[str, JSON],
    *,
    dim: int,
    dtype: str,
    allow_mixed: bool,
) -> bool:
    """Return whether the run may write into the file as it is; False if its different compute must be recorded first.

    Raises CacheError, naming what differs, if the file has other rows or another fingerprint, or if device or versions
    differ without `allow_mixed`.
    """
    there, layout = _read(partial)
    ours = {"fingerprints": manifest.get("fingerprints"), "rows": hash_of(arrays), "dim": dim, "dtype": dtype}
    theirs = {
        "fingerprints": there.get("fingerprints"),
        "rows": there["rows"],
        "dim": layout.dim,
        "dtype": layout.dtype,
    }
    if other := list(differences(theirs, ours)):
        raise CacheError(f"{partial} is of something else ({'; '.join(other[:3])}). To make it again, use --overwrite.")
    here = manifest.get("compute", {})
    differing = "; ".join(differences(there.get("compute", {}), here))
    if not differing:
        return True
    if not allow_mixed:
        raise CacheError(
            f"{partial} was begun with other settings ({differing}). Resume where it began, mix knowingly with "
            "--allow-mixed, or make it again with --overwrite."
        )
    return any(not list(differences(known, here)) for known in there.get(MIXED, []))


def with_other_compute(partial: Path, temporary: Path, arrays: Mapping[str, np.ndarray], compute: JSON) -> None:
    """Record in the manifest what computes the further rows: in a new sealed file with the same blocks."""
    manifest, _ = _read(partial)
    manifest[MIXED] = [*manifest.get(MIXED, []), compute]
    manifest["warnings"] = with_warning(manifest.get("warnings", []))
    resealed(partial, temporary, arrays, manifest)
    files.rename(temporary, partial)


def with_warning(warnings: Sequence[str]) -> list[str]:
    """Return a manifest's warnings, the last of which says that its rows are mixed."""
    return [*(text for text in warnings if text != _WARNING), _WARNING]


def _read(partial: Path) -> tuple[dict[str, JSON], format.FileLayout]:
    descriptor = format.open_for_reading(partial)
    try:
        layout = format.read_layout(descriptor, partial)
        return format.read_manifest(descriptor, layout, partial), layout
    finally:
        os.close(descriptor)


def differences(there: JSON, here: JSON, at: str = "") -> Iterator[str]:
    """Yield each leaf in which two values differ, as `name: in the file, here`."""
    if isinstance(there, dict) and isinstance(here, dict):
        for key in sorted({*there, *here} - ADOPTED):
            yield from differences(there.get(key), here.get(key), f"{at}.{key}" if at else key)
    elif there != here:
        yield f"{at}: {there} in the file, {here} here"
