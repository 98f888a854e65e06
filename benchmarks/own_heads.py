"""Several models trained end to end: what the models' own heads add to DVME's logits, on the same trained networks.

    python -m benchmarks.own_heads --folder DIR [--set NAME ...] [--labels N ...] [--seeds 3] [--table]

Fits what `benchmarks.finetune --method dvme` fits, without the networks of the trials, in the same folder, with a score
database of its own, and keeps in DIR/heads what each head of the network at the better rate of the race says of the
test cases.  Log losses are at the temperature that is best on the test cases, for every way of predicting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks._finetune_table import with_error
from benchmarks._recipe_changes import Change
from benchmarks.finetune import MODELS, Place, fitted_places, parser_of
from mt.fuse.end_to_end.blended import Blended
from mt.fuse.end_to_end.choice import schedule
from mt.fuse.end_to_end.request import Settings
from mt.types import Array

WITHOUT_TRIALS = Change(constant=(schedule, "LONG_ENOUGH", float("inf")))
TEMPERATURES = torch.logspace(-2, 2, 81, base=2, dtype=torch.float64)
# From the logits of every head (1 + M, n, K), DVME's first: those that predict.
WAYS: dict[str, Callable[[Tensor], Tensor]] = {
    "DVME alone": lambda every: every[0],
    "mean of own heads": lambda every: every[1:].mean(dim=0),
    "halves": lambda every: (every[0] + every[1:].mean(dim=0)) / 2,
    "halves of probabilities": lambda every: (every[0].softmax(-1) + every[1:].softmax(-1).mean(dim=0)).log(),
}


def main() -> None:
    """Fit what is not there, then print the table."""
    asked = parser_of(__doc__.splitlines()[0], (100, 300)).parse_args()
    places = fitted_places(asked, fit)
    print(f"\n| set, labels | draws | {' | '.join(f'{way}: accuracy, log loss' for way in WAYS)} | halves less DVME |")
    print("|---|---|" + "---|" * (len(WAYS) + 1))
    for place in places:
        print_row(place)


def fit(place: Place) -> None:
    """Fit every draw, and keep what the heads say of its test cases; nothing if the trained network has no share."""
    place = replace(place, scores="scores-own-heads.sqlite")
    for seed in range(place.seeds):
        with recording() as seen, WITHOUT_TRIALS.made():
            replace(place, seeds=seed + 1).train(MODELS, Settings())
        rows = [one for one in place.stored() if one.method == "dvme, unfrozen" and one.seed == seed]
        if seen and rows and rows[0].share:  # a draw that repeats another has no row
            kept(place, seed).parent.mkdir(exist_ok=True)
            np.save(kept(place, seed), np.concatenate(seen, axis=1))


@contextmanager
def recording() -> Iterator[list[Array]]:
    """Keep the logits of all heads (1 + M, n, K) of the first trained network, of each batch that it predicts with."""
    seen: list[Array] = []
    plain = Blended._after

    def recorded(self: Blended, images: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        network = self.trained[0]
        if len(network.own):
            parts = zip(network.scalings, network.embeddings(images), strict=True)
            scaled = [scale(x) for scale, x in parts]
            own = [head(x) for head, x in zip(network.own, scaled, strict=True)]
            seen.append(torch.stack([network.head.with_attention(scaled)[0], *own]).float().numpy())
        return plain(self, images)

    setattr(Blended, "_after", recorded)  # noqa: B010
    try:
        yield seen
    finally:
        setattr(Blended, "_after", plain)  # noqa: B010


def kept(place: Place, seed: int) -> Path:
    return place.folder / "heads" / f"{place.of.name}-{place.labels}-{seed}.npy"


def print_row(place: Place) -> None:
    """Print one set and budget, if a draw of it was kept."""
    found = [np.load(kept(place, seed)) for seed in range(place.seeds) if kept(place, seed).exists()]
    if not found:
        return
    y = torch.from_numpy(place.aligned(MODELS[0]).first.cases.y).long()
    heads = [of_classes(torch.from_numpy(one).double()) for one in found]
    ways = {name: np.array([judged(way(every), y) for every in heads]) for name, way in WAYS.items()}
    cells = [f"{accuracy:.3f}, {loss:.3f}" for accuracy, loss in (values.mean(axis=0) for values in ways.values())]
    less = ways["halves"] - ways["DVME alone"]
    cells.append(", ".join(with_error(list(values)) for values in less.T))
    print(f"| {place.of.name}, {place.labels} | {len(found)} | {' | '.join(cells)} |")


def of_classes(logits: Tensor) -> Tensor:
    """Return a logit per class (..., K); one alone is the log-odds of the second of two."""
    return torch.cat([torch.zeros_like(logits), logits], dim=-1) if logits.shape[-1] == 1 else logits


def judged(logits: Tensor, y: Tensor) -> tuple[float, float]:
    """Return the accuracy, and the log loss at the best temperature."""
    losses = [float(nn.functional.cross_entropy(logits / T, y)) for T in TEMPERATURES]
    return float((logits.argmax(dim=1) == y).double().mean()), min(losses)


if __name__ == "__main__":
    main()
