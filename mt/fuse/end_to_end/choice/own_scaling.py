"""The temperature scaling that end-to-end training does by itself: held-out log loss before and after, as stored."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from mt.probe.questions import Budget
from mt.probe.scores.score_tables import row_name
from mt.results.store import Score, ScoreStore
from mt.terminal.progress import counted


def own_scalings(scores: Iterable[Score], store: ScoreStore) -> list[dict[str, Any]]:
    """Return a row per dataset, network and budget: means over the draws that have held-out rows.

    A fit that an earlier version stored lacks these losses.
    """
    found: dict[tuple[str, str, Budget], dict[str, dict[str, Any]]] = {}
    for score in scores:
        if score.protocol == "end-to-end":
            kept = store.fit(score.fit).outcome["selection"].get("scaling")
            if kept:
                place = score.dataset, row_name(score), Budget(score.fraction, score.shots)
                found.setdefault(place, {})[score.fit] = kept
    return [
        {
            "own_scaling": row,
            "dataset": dataset,
            **vars(budget),
            "temperature": float(np.mean([one["temperature"] for one in fits.values()])),
            "log_loss_held_out": np.mean([one["log_loss"] for one in fits.values()], axis=0).tolist(),
            "draws": len(fits),
        }
        for (dataset, row, budget), fits in found.items()
    ]


def said(row: dict[str, Any]) -> str:
    """Return a row as a sentence."""
    before, after = row["log_loss_held_out"]
    budget = Budget(row["fraction"], row["shots"])
    return (
        f"{row['dataset']}, {budget}: {row['own_scaling']} divides its logits by the temperature of its held-out rows, "
        f"{row['temperature']:.2f}: held-out log loss {before:.3f} -> {after:.3f} (means over "
        f"{counted(row['draws'], 'draw')})"
    )
