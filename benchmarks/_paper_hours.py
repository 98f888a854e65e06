"""The hours of the study of Truong et al. (ML4H 2021), reckoned from measured rates, for `benchmarks.gpu`."""

from __future__ import annotations

import math

from mt.fuse.end_to_end.choice.held_out import ENOUGH, FIFTHS
from mt.fuse.end_to_end.choice.schedule import schedule_for

PCAM = 327_680  # images
# The paper's study: images of its four datasets, rows of their train splits, models, and draws of 1, 10 and 100 %.
PAPER = {
    "pcam": (PCAM, 262_144),
    "aptos2019": (3_662, 2_930),
    "pneumonia": (5_856, 5_232),
    "nih-cxr14": (112_120, 86_524),
}
PAPER_MODELS, PAPER_DRAWS = 4, {0.01: 5, 0.1: 5, 1.0: 1}  # share of the labels: draws


def paper_hours(*, featurize: float, train: float) -> tuple[float, str]:
    """Return the hours that the paper's study takes, and the parts that they add up from.

    featurize: images per second of one pass through all backbones.  train: images per second of a training step of one
    backbone.  Each draw tries two candidates and trains both, as each backbone alone and as all of them fused.  The
    start and the network of a trial predict its held-out rows, the trained networks the budget, and all of them, as if
    each had a share, the test cases.  Probing and fusing on features, optimizer steps of the heads and checkpoints are
    omitted.
    """
    images = sum(total for total, _ in PAPER.values())
    trained = predicted = 0
    for total, rows in PAPER.values():
        for share, draws in PAPER_DRAWS.items():
            n = round(rows * share)
            fifths = min(FIFTHS, math.ceil(ENOUGH * FIFTHS / n))
            schedule = schedule_for(n, None, n_candidates=2, n_fifths=fifths)
            trained += draws * sum(schedule.images(n))
            networks = 1 + schedule.refits * (1 + fifths * schedule.keeps_trials)
            held = 2 * schedule.refits * fifths * n // FIFTHS
            predicted += draws * (held + schedule.refits * n + networks * (total - rows))
    seconds = {
        "featurizing": images / featurize,
        "training": 2 * PAPER_MODELS * trained / train,
        "predicting": 2 * predicted / featurize,
    }
    hours = {name: value / 3600 for name, value in seconds.items()}
    return sum(hours.values()), ", ".join(f"{name} {value:.2f}" for name, value in hours.items())
