"""Training end to end: how the shares of the trained network and of its start are chosen, on the same networks.

    python -m benchmarks.start_share --folder DIR [--set NAME ...] [--labels N ...] [--seeds 3] [--model NAME] [--table]

Fits one model in the folder of `benchmarks.finetune`, with a score database of its own.  The trained network (with its
trials) and its start both predict the test cases, also where one would have no share; DIR/shares keeps their logits and
the held-out ones, so every rule is asked of the same networks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks._finetune_table import with_error
from benchmarks._recipe_changes import Change
from benchmarks.finetune import MODELS, Place, fitted_places, parser_of
from benchmarks.own_heads import of_classes
from mt.fuse.end_to_end import blended
from mt.fuse.end_to_end.choice import fit as fitting
from mt.fuse.end_to_end.choice import shares
from mt.fuse.end_to_end.choice.shares import HeldOut, choose_share
from mt.fuse.end_to_end.request import Settings

RULES = {
    "as it is": Change(),
    "lowest loss": Change(constant=(shares, "LEAST", 0.0)),
    "trained alone": Change(constant=(shares, "SHARES", (1.0,))),
    "halves": Change(constant=(shares, "SHARES", (0.5,))),
}


def main() -> None:
    """Fit what is not there, then print the table."""
    parser = parser_of(__doc__.splitlines()[0], (100,))
    parser.add_argument("--model", choices=MODELS, default=MODELS[0])
    asked = parser.parse_args()
    places = fitted_places(asked, lambda place: fit(place, asked.model))
    print(
        f"\n| set, labels, {asked.model} | draws | {' | '.join(f'{rule}: accuracy, log loss' for rule in RULES)} ",
        end="",
    )
    print("| draws that differ from the lowest loss |\n|---|---|" + "---|" * (len(RULES) + 1))
    for place in places:
        print_row(place, asked.model)


def fit(place: Place, model: str) -> None:
    """Fit every draw that is not kept."""
    n = len(place.aligned(model).first.cases.ids)
    for seed in range(place.seeds):
        path = kept(place, model, seed)
        if path.exists():
            continue
        with recording() as seen:
            replace(place, seeds=seed + 1, scores="scores-start-share.sqlite").train([model], Settings())
        if "fifths" in seen:
            start, trained = (np.concatenate(parts)[-n:] for parts in zip(*seen["predicted"], strict=True))
            fifths: dict[str, Any] = {
                f"{k}.{name}": value.numpy()
                for k, one in enumerate(seen["fifths"])
                for name, value in vars(one).items()
            }
            path.parent.mkdir(exist_ok=True)
            np.savez(path, start=start, trained=trained, task=seen["task"], outputs=seen["outputs"], **fifths)


@contextmanager
def recording() -> Iterator[dict[str, Any]]:
    """Give both networks half; keep the held-out logits of the choice, and all that both predict, test cases last."""
    seen: dict[str, Any] = {"predicted": []}
    places = (fitting, "choose_share"), (fitting.Fitter, "_blended"), (blended, "mix_logits")
    before: list[Any] = [getattr(where, name) for where, name in places]

    def chosen(fifths: Any, task: str) -> Any:
        seen["last"] = fifths
        return before[0](fifths, task)

    def both(self: Any, start: Any, candidate: Any, share: Any, tried: Any) -> Any:
        seen.update(fifths=seen["last"], task=self.work.task, outputs=start.outputs)
        return before[1](self, start, candidate, replace(share, share=0.5), tried)

    def mixed(start: Tensor, trained: Tensor, share: float, task: str) -> Any:
        seen["predicted"].append((start.numpy(), trained.numpy()))
        return before[2](start, trained, share, task)

    for (where, name), recorded in zip(places, (chosen, both, mixed), strict=True):
        setattr(where, name, recorded)
    try:
        yield seen
    finally:
        for (where, name), plain in zip(places, before, strict=True):
            setattr(where, name, plain)


def kept(place: Place, model: str, seed: int) -> Path:
    return place.folder / "shares" / f"{place.of.name}-{place.labels}-{model}-{seed}.npz"


def print_row(place: Place, model: str) -> None:
    """Print one set and budget, if a draw of it was kept."""
    found = [np.load(kept(place, model, seed)) for seed in range(place.seeds) if kept(place, model, seed).exists()]
    if not found:
        return
    y = place.aligned(model).first.cases.y
    judged = {rule: [by_rule(change, one, y) for one in found] for rule, change in RULES.items()}
    cells = [
        f"{with_error([accuracy for _, accuracy, _ in draws])}, {np.mean([loss for *_, loss in draws]):.3f}"
        for draws in judged.values()
    ]
    pairs = zip(judged["as it is"], judged["lowest loss"], strict=True)
    differ = ", ".join(f"{low:g} -> {now:g}" for (now, *_), (low, *_) in pairs if now != low)
    print(f"| {place.of.name}, {place.labels} | {len(found)} | {' | '.join(cells)} | {differ or 'none'} |")


def by_rule(change: Change, one: Any, y: Any) -> tuple[float, float, float]:
    """Return the share that a rule gives the trained network, and the accuracy and log loss of the test cases."""
    task, tensors = str(one["task"]), {name: torch.from_numpy(one[name]) for name in one.files if name != "task"}
    names = sorted({name.split(".")[0] for name in tensors if "." in name}, key=int)
    fifths = [HeldOut(*(tensors[f"{name}.{part}"] for part in ("start", "trained", "y"))) for name in names]
    with change.made():
        found = choose_share(fifths, task)
    logits = blended.mix_logits(tensors["start"], tensors["trained"], found.share, task) / found.temperature
    truth = torch.from_numpy(y if task == "binary" else np.searchsorted(one["outputs"], y)).long()
    every = of_classes(logits.double())
    return (
        found.share,
        float((every.argmax(dim=1) == truth).double().mean()),
        float(nn.functional.cross_entropy(every, truth)),
    )


if __name__ == "__main__":
    main()
