"""What `--decoder device` brings and how far it moves embeddings and probe scores."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from mt import ProbeRequest, extract, load_dataset, open_features, run_probe
from mt.datasets import DatasetSettings
from mt.datasets.settings import SettingWords
from mt.featurize.request import Compute, FeaturizeRequest

QUALITY = 90


@dataclass(frozen=True)
class Moved:
    """Distances between embeddings relative to their length, and headline scores at 10 % of the labels."""

    median: float
    largest: float
    by_pillow: float
    by_device: float


def write_tissue(folder: Path, count: int, side: int) -> None:
    """Write the synthetic tissue as JPEG, by split and class: a task that probes learn."""
    dataset = load_dataset(f"synthetic@{count}")
    for name in ("train", "test"):
        split = dataset.splits[name]
        for row, label in enumerate(split.labels):
            path = folder / name / dataset.class_names[int(label)] / f"{row:05}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            (patch,) = split.images.load(row, row + 1)
            Image.fromarray(np.asarray(patch)).resize((side, side), Image.Resampling.BICUBIC).save(
                path, quality=QUALITY
            )


def moved(folder: Path, model: str, device: str, cache: Path) -> Moved:
    """Featurize a folder by both decoders, probe both, and return how far they are from each other."""
    embeddings, scores = [], []
    decoders: tuple[SettingWords, ...] = ({"decoder": "pillow"}, {"decoder": "device"})
    for words in decoders:
        place = cache / words["decoder"]
        request = FeaturizeRequest(
            [f"folder:{folder}"],
            [model],
            cache_dir=place,
            weights=["random"],
            settings=DatasetSettings(**words),
            compute=Compute(device=device),
        )
        (test,) = [result.path for result in extract(request) if result.split == "test"]
        embeddings.append(np.asarray(open_features(test).embeddings))
        answers = run_probe(ProbeRequest(cache_dir=place, fractions=(0.1,), seeds=3, device="cpu", everything=True))
        scores.append(float(np.mean([score.value for score in answers.scores])))
    distance = np.linalg.norm(embeddings[1] - embeddings[0], axis=1) / np.linalg.norm(embeddings[0], axis=1)
    return Moved(float(np.median(distance)), float(distance.max()), *scores)
