"""What `mt fuse` itself recommends on few labels: its methods minus its `concat`, with their errors.

    python -m benchmarks.fused FOLDER [SET ...] --draws 3 --labels 100 300     # about two minutes per draw on two cores
    python -m benchmarks.fused FOLDER table                                    # what has been measured, as Markdown

FOLDER is that of `benchmarks.few_labels`: the same images, features and draws.  Fits are kept in its score database, so
a run resumes where it was interrupted.  `recommended` is in each draw the fusion with the lowest out-of-fold log loss,
as `mt fuse` prints it; `with best-single` is what it would be if the best single model competed, with its corrected
loss or with its lowest loss as it is; `trained` counts the draws in which DVME took a network.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks._class_sets import EVERY_SET
from benchmarks.few_labels import MODELS, Line, difference, featurized, mean_of
from mt.fuse import FuseRequest, run_fuse
from mt.fuse.tables import held_out_losses, recommended
from mt.probe.questions import Pair
from mt.probe.run import Features
from mt.results.store import ScoreStore

METHODS = ("best-single", "concat", "blend", "dvme")
RULES = CORRECTED, AS_IT_IS = "with best-single, corrected", "with best-single, as it is"
AUC_OF = {"binary": "roc_auc", "multiclass": "macro_auc"}


def main(arguments: Sequence[str]) -> None:
    """Measure, or print what has been measured."""
    parser = argparse.ArgumentParser(description="What mt fuse recommends on few labels.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("sets", nargs="*", help="names of sets, or `table`")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--labels", type=int, nargs="+", default=(100, 300))
    asked = parser.parse_args(arguments)
    lines = asked.folder / "fused.jsonl"
    if asked.sets != ["table"]:
        for name in asked.sets or EVERY_SET:
            pairs = featurized(name, asked.folder)
            for n in asked.labels:
                for line in fused(name, pairs, n, asked.draws, asked.folder):
                    with lines.open("a") as file:
                        file.write(json.dumps(line) + "\n")
    print_table([json.loads(line) for line in lines.read_text().splitlines()])


def fused(name: str, pairs: Sequence[Pair], n: int, draws: int, folder: Path) -> Iterator[Line]:
    """Yield the scores of the methods of `mt fuse`, and of the recommended one, on the first draws of n labels."""
    task = pairs[0].task
    request = FuseRequest(
        cache_dir=folder / "cache",
        models=MODELS,
        datasets=[pairs[0].dataset],
        methods=["concat", "blend", "dvme"],
        fractions=[min(1.0, n / len(Features.load(pairs[0]).train.labels))],
        seeds=draws,
        metrics=[AUC_OF[task], "log_loss"],
        scores=folder / "scores.sqlite",
    )
    answers = run_fuse(request)
    found: dict[tuple[int, str], Line] = {}
    lowest: dict[int, dict[str, float]] = {}  # losses of best-single by draw, as they are
    with ScoreStore(answers.store) as store:
        (losses,) = held_out_losses(answers.scores, store).values()
        for score in answers.scores:
            if score.method not in METHODS:
                continue
            outcome = store.fit(score.fit).outcome
            here = found.setdefault((score.seed, score.method), {"set": name, "n": n, "seed": score.seed})
            here |= {"method": score.method, "log_loss" if score.metric == "log_loss" else "roc_auc": score.value}
            here |= {"out_of_fold": losses[score.seed].get(score.method), "versions": dict(score.versions)}
            if score.method == "best-single":
                lowest[score.seed] = {"best-single": -max(outcome["selection"]["models"].values())}
            if score.method == "dvme":
                here["trained"] = outcome["settings"].get("epochs", 0) > 0
    yield from found.values()
    for seed in range(draws):
        rules = {
            "recommended": recommended(losses[seed]),
            CORRECTED: _least(losses[seed]),
            AS_IT_IS: _least({**losses[seed], **lowest[seed]}),
        }
        for rule, method in rules.items():
            yield {**found[seed, method], "method": rule, "chosen": method}


def _least(losses: Mapping[str, float]) -> str:
    return min(losses, key=losses.__getitem__)


def print_table(lines: Sequence[Line]) -> None:
    """Print the mean differences from `concat` over the draws, with their standard errors."""
    cells: dict[tuple[str, int], dict[str, dict[int, Line]]] = {}
    for one in lines:
        cells.setdefault((one["set"], one["n"]), {}).setdefault(one["method"], {})[one["seed"]] = one
    columns = ("set, labels", "draws", "`concat`", "recommended minus `concat`", *RULES, "`dvme`")
    print("| " + " | ".join((*columns, "trained", "recommended")) + " |")
    print("|---" * 9 + "|")
    for (name, n), found in cells.items():
        concat, dvme, fusion = found["concat"], found["dvme"], found["recommended"]
        others = [difference(found[rule], concat) if rule in found else "" for rule in RULES]  # absent in earlier runs
        means = " / ".join(f"{mean_of(concat, column):.3f}" for column in ("roc_auc", "log_loss"))
        trained = f"{sum(one['trained'] for one in dvme.values())} of {len(dvme)}"
        chosen = [one["chosen"] for one in fusion.values()]
        counts = ", ".join(f"`{method}` {chosen.count(method)}" for method in METHODS if method in chosen)
        print(
            f"| {name}, {n} | {len(dvme)} | {means} | {difference(fusion, concat)} "
            f"| {' | '.join(others)} | {difference(dvme, concat)} | {trained} | {counts} |"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
