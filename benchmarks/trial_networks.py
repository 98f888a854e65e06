"""Training end to end: what the second rate and the networks of the trials add, on the same networks.

    python -m benchmarks.trial_networks --folder DIR [--set NAME ...] [--labels N ...] [--seeds 3] [--model NAME ...]

Fits one model, or several together, as `benchmarks.finetune` does, in the same folder and score database, and keeps in
DIR/trials what each network says of the test cases, at the temperature that was chosen and without the start's share:
the trained ones, that of the better rate in the race first, then those of the trials.  Fits that the database holds
already are not made again, so nothing is known of their networks: run this one first.
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
from mt.fuse.end_to_end.blended import Blended, mean_logits
from mt.fuse.end_to_end.choice.fit import Fitter
from mt.fuse.end_to_end.request import Settings

WAYS = ("better rate of the race", "all rates", "with the trials")


def main() -> None:
    """Fit what is not there, then print the table."""
    parser = parser_of(__doc__.splitlines()[0], (100,))
    parser.add_argument("--model", nargs="*", choices=MODELS, default=list(MODELS[:1]))
    asked = parser.parse_args()
    places = fitted_places(asked, lambda place: fit(place, asked.model))
    print(f"\n| set, labels, {' + '.join(asked.model)} | draws | {' | '.join(WAYS)} | second rate adds | trials add |")
    print("|---|---|---|---|---|---|---|")
    for place in places:
        print_row(place, asked.model)


def fit(place: Place, models: Sequence[str]) -> None:
    """Fit every draw, and keep what its networks say; nothing where no trial predicts."""
    for seed in range(place.seeds):
        with recording() as seen:
            replace(place, seeds=seed + 1).train(models, Settings())
        if seen["batches"]:
            kept(place, models, seed).parent.mkdir(exist_ok=True)
            every = np.concatenate(seen["batches"], axis=1)
            facts = {name: seen[name] for name in ("outputs", "trained", "temperature")}
            np.savez(kept(place, models, seed), every=every, **facts)


@contextmanager
def recording() -> Iterator[dict[str, Any]]:
    """Keep the logits (networks, n, K) of every batch of test cases, where trials predict, and the temperature."""
    seen: dict[str, Any] = {"batches": []}
    after, blend = Blended._after, Fitter._blended

    def each(self: Blended, images: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        if self.trials:
            every = [one.with_attention(images)[0].float() for one in (*self.trained, *self.trials)]
            seen["batches"].append(torch.stack(every).numpy())
            seen.update(trained=len(self.trained), temperature=self.temperature)
        return after(self, images)

    def blended(self: Fitter, start: Any, *arguments: Any) -> Any:
        seen["outputs"] = start.outputs
        return blend(self, start, *arguments)

    setattr(Blended, "_after", each)  # noqa: B010
    setattr(Fitter, "_blended", blended)  # noqa: B010
    try:
        yield seen
    finally:
        setattr(Blended, "_after", after)  # noqa: B010
        setattr(Fitter, "_blended", blend)  # noqa: B010


def kept(place: Place, models: Sequence[str], seed: int) -> Path:
    return place.folder / "trials" / f"{place.of.name}-{place.labels}-{'-'.join(models)}-{seed}.npz"


def print_row(place: Place, models: Sequence[str]) -> None:
    """Print one set and budget, if a draw of it was kept."""
    paths = [kept(place, models, seed) for seed in range(place.seeds)]
    found = [np.load(path) for path in paths if path.exists()]
    if not found:
        return
    y = place.aligned(MODELS[0]).first.cases.y
    task = "multiclass" if found[0]["every"].shape[-1] > 1 else "binary"
    judged_draws = []
    for one in found:
        every, trained = torch.from_numpy(one["every"]), int(one["trained"])
        found_ways = [logits / float(one["temperature"]) for logits in ways(every, trained, task)]
        judged_draws.append([judged(logits, y, one["outputs"]) for logits in found_ways])
    values = np.array(judged_draws)  # (draws, ways, accuracy and log loss)
    cells = [f"{with_error(list(way[:, 0]))}, {way[:, 1].mean():.3f}" for way in values.swapaxes(0, 1)]
    for less, more in ((0, 1), (1, 2)):
        cells.append(", ".join(with_error(list(gain)) for gain in (values[:, more] - values[:, less]).T))
    print(f"| {place.of.name}, {place.labels} | {len(found)} | {' | '.join(cells)} |")


def ways(every: Tensor, trained: int, task: str) -> list[Tensor]:
    """Return the logits (n, K) of each of WAYS from those of every network (networks, n, K), the trained ones first.

    All trials together weigh as much as one trained network.
    """
    trials = mean_logits(list(every[trained:]), [1 / len(every[trained:])] * len(every[trained:]), task)
    both = [*every[:trained], trials]
    return [mean_logits(both[:n], [1 / n] * n, task) for n in (1, trained, trained + 1)]


def judged(logits: Tensor, y: Any, outputs: Any) -> tuple[float, float]:
    """Return the accuracy and the log loss of logits (n, K or 1); outputs: the classes that they are of."""
    every = of_classes(logits.double())
    truth = torch.from_numpy(np.searchsorted(outputs, y) if logits.shape[1] > 1 else y).long()
    return float((every.argmax(dim=1) == truth).double().mean()), float(nn.functional.cross_entropy(every, truth))


if __name__ == "__main__":
    main()
