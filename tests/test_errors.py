"""The name that is proposed in place of an unknown one."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from mt.errors import nearest
from mt.probe.protocols import PROTOCOLS
from mt.probe.scores.metrics import METRICS


@pytest.mark.parametrize(
    ("typed", "known", "meant"),
    [
        ("knn-dino", PROTOCOLS, "dino-knn"),
        ("Linear DINO", PROTOCOLS, "dino-linear"),
        ("DINO-KNN", PROTOCOLS, "dino-knn"),
        ("knn", PROTOCOLS, "dino-knn"),
        ("dino-linaer", PROTOCOLS, "dino-linear"),
        ("auroc", METRICS, "roc_auc"),
        ("AUC-ROC", METRICS, "roc_auc"),
        ("acc", METRICS, "accuracy"),
        ("QWK", METRICS, "quadratic_kappa"),
        ("kappa", METRICS, "quadratic_kappa"),
        ("accuracy balanced", METRICS, "balanced_accuracy"),
        ("auroc", PROTOCOLS, None),
        ("", PROTOCOLS, None),
        ("--", PROTOCOLS, None),
        ("zzz", PROTOCOLS, None),
    ],
)
def test_synonyms_parts_in_another_order_and_close_spellings_are_proposed(
    typed: str, known: Iterable[str], meant: str | None
) -> None:
    assert nearest(typed, list(known)) == meant
