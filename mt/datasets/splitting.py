"""The splits that we draw: stratified, never through a group, and stated so that anyone can draw them again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mt.cache.feature_file.rows import is_unlabelled
from mt.stratification import stratified_parts
from mt.types import Texts, sortable

# Enters fingerprints, so it keeps the name that the function had in the first release.
ALGORITHM = "mt.cache.stratify.stratified_parts, revision 1"


def draw_splits(
    ids: Sequence[str],
    labels: np.ndarray,
    *,
    fractions: Mapping[str, float],
    groups: Sequence[str] | None = None,
    seed: int = 0,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the rows of each split, ascending, and the record of how they were drawn.

    Rows are drawn in the order of their sorted ids, so the order in which a disk lists files changes nothing.  `labels`
    is (n,) or (n, L).
    The record holds algorithm, fractions, seed, rows per split and the sha256 of each id list.  A row without any
    label takes no part in the draw: it joins the first split, or that of its group.
    """
    by_id, without = np.argsort(sortable(ids)), is_unlabelled(labels)
    by_id = by_id[~without[by_id]]
    kept_together = None if groups is None else _taken(groups, by_id)
    parts = np.zeros(len(ids), dtype=np.int64)
    parts[by_id] = stratified_parts(labels[by_id], kept_together, list(fractions.values()), seed)
    if groups is not None and len(by_id) < len(ids):
        of_group = {groups[row]: int(parts[row]) for row in by_id.tolist()}
        for row in np.flatnonzero(without).tolist():
            parts[row] = of_group.get(groups[row], 0)
    rows = {name: np.flatnonzero(parts == part) for part, name in enumerate(fractions)}
    record = {
        "algorithm": ALGORITHM,
        "fractions": dict(fractions),
        "seed": seed,
        "rows": {name: len(chosen) for name, chosen in rows.items()},
        "ids_sha256": {name: ids_sha256(_taken(ids, chosen)) for name, chosen in rows.items()},
    }
    return rows, record


def ids_sha256(ids: Sequence[str]) -> str:
    """Return the sha256 of the sorted ids, one per line in UTF-8: `sort ids.txt | sha256sum` in the C locale."""
    hashed = hashlib.sha256()
    for id_ in sorted(ids) if not isinstance(ids, Texts) else Texts(np.sort(ids.encoded, kind="stable")):
        hashed.update(f"{id_}\n".encode())
    return hashed.hexdigest()


def _taken(values: Sequence[str], rows: np.ndarray) -> Sequence[str]:
    return values[rows] if isinstance(values, Texts) else [values[int(row)] for row in rows]
