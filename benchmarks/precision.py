"""How far bfloat16 moves embeddings and probe scores: `python -m benchmarks precision`.

Digits and generated tissue through `efficientnet-lite0` with its published weights, and through DINO with random ones.
Embeddings: the distance between both relative to the embedding's length, its median and largest over the test images.
Scores: the headline metric of `mt probe` at 10 % and 100 % of the labels, mean over draws, in bfloat16 minus float32.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from benchmarks._pairs import machine
from mt import ProbeRequest, extract, open_features, run_probe
from mt.featurize.request import Compute, FeaturizeRequest

IMAGES = 400
CASES = (
    ("digits", "efficientnet-lite0", None),
    ("synthetic@400", "efficientnet-lite0", None),
    ("digits", "dino", "random"),
)
SIZE = 96


def main() -> None:
    """Print one line per dataset and backbone."""
    print(f"  {machine()}; {IMAGES} images per split, {SIZE} pixels")
    print("  | dataset | backbone | distance, median | largest | score at 10 % | at 100 % | bfloat16 minus float32 |")
    print("  |---|---|---|---|---|---|---|")
    for dataset, model, weights in CASES:
        with tempfile.TemporaryDirectory() as name:
            both = [featurized(Path(name) / precision, dataset, model, weights, precision) for precision in PRECISIONS]
            scores = [probed(Path(name) / precision) for precision in PRECISIONS]
        moved = np.linalg.norm(both[1] - both[0], axis=1) / np.linalg.norm(both[0], axis=1)
        differences = ", ".join(f"{other - one:+.4f}" for one, other in zip(*scores, strict=True))
        print(
            f"  | {dataset} | {model} ({weights or 'published'}) | {np.median(moved):.4f} | {moved.max():.4f} "
            f"| {scores[0][0]:.4f} | {scores[0][1]:.4f} | {differences} |",
            flush=True,
        )


PRECISIONS = ("float32", "bfloat16")


def featurized(cache: Path, dataset: str, model: str, weights: str | None, precision: str) -> np.ndarray:
    """Return the test embeddings."""
    request = FeaturizeRequest(
        [dataset],
        [model],
        cache_dir=cache,
        weights=[weights] if weights else [],
        image_size=SIZE,
        limit=IMAGES,
        compute=Compute(device="cpu", precision=precision),
    )
    (test,) = [result.path for result in extract(request) if result.split == "test"]
    return np.asarray(open_features(test).embeddings)


def probed(cache: Path) -> list[float]:
    """Return the mean headline score at 10 % and at 100 % of the labels."""
    answers = run_probe(ProbeRequest(cache_dir=cache, fractions=(0.1, 1.0), seeds=3, device="cpu", everything=True))
    means = {}
    for fraction in (0.1, 1.0):
        means[fraction] = float(np.mean([score.value for score in answers.scores if score.fraction == fraction]))
    return list(means.values())


if __name__ == "__main__":
    main()
