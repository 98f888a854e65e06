"""Training end to end: what the networks of the trials add to the trained one, on the same networks.

    python -m benchmarks.trial_networks --folder DIR [--set NAME ...] [--labels N ...] [--seeds 3] [--model NAME ...]

Fits one model, or several together, as `benchmarks.finetune` does, in the same folder and score database, and keeps in
DIR/trials what the trained network says of the test cases alone, and what it says with the trials, both at the
temperature that was chosen and without the start's share.  Fits that the database holds already are not made again, so
nothing is known of their networks: run this one first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks._finetune_table import with_error
from benchmarks.finetune import MODELS, Place, fitted_places, parser_of
from benchmarks.own_heads import of_classes
from mt.fuse.end_to_end.blended import Blended
from mt.fuse.end_to_end.choice.fit import Fitter
from mt.fuse.end_to_end.network import EndToEnd
from mt.fuse.end_to_end.request import Settings


def main() -> None:
    """Fit what is not there, then print the table."""
    parser = parser_of(__doc__.splitlines()[0], (100,))
    parser.add_argument("--model", nargs="*", choices=MODELS, default=list(MODELS[:1]))
    asked = parser.parse_args()
    places = fitted_places(asked, lambda place: fit(place, asked.model))
    print(f"\n| set, labels, {' + '.join(asked.model)} | draws | trained alone | with the trials | difference |")
    print("|---|---|---|---|---|")
    for place in places:
        print_row(place, asked.model)


def fit(place: Place, models: Sequence[str]) -> None:
    """Fit every draw, and keep what its networks say; nothing where no trial predicts."""
    for seed in range(place.seeds):
        with recording() as seen:
            replace(place, seeds=seed + 1).train(models, Settings())
        if seen["alone"]:
            kept(place, models, seed).parent.mkdir(exist_ok=True)
            alone, together = (np.concatenate(seen[name]) for name in ("alone", "together"))
            np.savez(kept(place, models, seed), outputs=seen["outputs"], alone=alone, together=together)


@contextmanager
def recording() -> Iterator[dict[str, Any]]:
    """Keep what the trained network says of the test cases, alone and with the trials, after temperature scaling."""
    seen: dict[str, Any] = {"alone": [], "together": []}
    after, blend = Blended._after, Fitter._blended

    def both(self: Blended, trained: EndToEnd, images: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        found = after(self, trained, images)
        if self.trials:
            seen["alone"].append((trained.with_attention(images)[0].float() / self.temperature).numpy())
            seen["together"].append((found[0].float() / self.temperature).numpy())
        return found

    def blended(self: Fitter, start: Any, *arguments: Any) -> Any:
        seen["outputs"] = start.outputs
        return blend(self, start, *arguments)

    for where, name, one in ((Blended, "_after", both), (Fitter, "_blended", blended)):
        setattr(where, name, one)
    try:
        yield seen
    finally:
        for where, name, one in ((Blended, "_after", after), (Fitter, "_blended", blend)):
            setattr(where, name, one)


def kept(place: Place, models: Sequence[str], seed: int) -> Path:
    return place.folder / "trials" / f"{place.of.name}-{place.labels}-{'-'.join(models)}-{seed}.npz"


def print_row(place: Place, models: Sequence[str]) -> None:
    """Print one set and budget, if a draw of it was kept."""
    paths = [kept(place, models, seed) for seed in range(place.seeds)]
    found = [np.load(path) for path in paths if path.exists()]
    if not found:
        return
    y = place.aligned(MODELS[0]).first.cases.y
    ways = {
        name: np.array([judged(torch.from_numpy(one[name]), y, one["outputs"]) for one in found])
        for name in ("alone", "together")
    }
    cells = [f"{with_error(list(values[:, 0]))}, {values[:, 1].mean():.3f}" for values in ways.values()]
    cells.append(", ".join(with_error(list(values)) for values in (ways["together"] - ways["alone"]).T))
    print(f"| {place.of.name}, {place.labels} | {len(found)} | {' | '.join(cells)} |")


def judged(logits: Tensor, y: Any, outputs: Any) -> tuple[float, float]:
    """Return the accuracy and the log loss of logits (n, K or 1); outputs: the classes that they are of."""
    every = of_classes(logits.double())
    truth = torch.from_numpy(np.searchsorted(outputs, y) if logits.shape[1] > 1 else y).long()
    return float((every.argmax(dim=1) == truth).double().mean()), float(nn.functional.cross_entropy(every, truth))


if __name__ == "__main__":
    main()
