"""What `benchmarks.finetune` measured, as tables, and which of the three conditions each set and budget meets."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

GAIN = 0.8  # of what the script gains over the probe
EQUAL = 1e-6  # accuracies closer than this are the same


@dataclass(frozen=True)
class Row:
    """One method on one draw."""

    set: str
    labels: int
    seed: int
    method: str
    accuracy: float
    log_loss: float
    images: float = 0.0
    seconds: float = 0.0
    share: float | None = None
    attention: tuple[float, ...] = ()


Draws = dict[int, Row]  # by seed


def by_method(rows: Iterable[Row], name: str, labels: int) -> dict[str, Draws]:
    """Return the rows of one set and budget by method, then by seed."""
    found: dict[str, Draws] = {}
    for row in rows:
        if (row.set, row.labels) == (name, labels):
            found.setdefault(row.method, {})[row.seed] = row
    return found


def print_rows(rows: Iterable[Row], name: str, labels: int) -> None:
    """Print every method on one set and budget, and what a fit costs."""
    known = by_method(rows, name, labels)
    if known:
        print(f"\n{name}, {labels} labels")
    for method, found in sorted(known.items()):
        losses, images, seconds = (
            statistics.mean(getattr(row, what) for row in found.values()) for what in ("log_loss", "images", "seconds")
        )
        shares = [row.share for row in found.values() if row.share is not None]
        note = f"  shares {', '.join(f'{share:g}' for share in shares)}" if shares else ""
        received = [row.attention for row in found.values() if row.attention]
        note += f"  attention {np.round(np.mean(received, axis=0), 3).tolist()}" if received else ""
        accuracy = with_error([row.accuracy for row in found.values()])
        cost = f"{images:>7,.0f} images {seconds:>5.0f} s"
        print(f"  {method:<22} {accuracy} ({len(found)})  log loss {losses:.3f}  {cost}{note}")


def print_tables(rows: Sequence[Row]) -> None:
    """Print one model against its probe and script, and several models against the best of them, in Markdown."""
    places = sorted({(row.labels, row.set) for row in rows})
    models = sorted({row.method.split()[-1] for row in rows if row.method.startswith("fine-tune ")})
    for model in models:
        print(
            f"\n| set, labels, {model} | draws | probe | script | `fine-tune` | minus the script | minus the probe ",
            end="",
        )
        print("| log loss | of the script's gain | holds |\n|---|---|---|---|---|---|---|---|---|---|")
        for labels, name in places:
            _print_single(by_method(rows, name, labels), model, f"{name}, {labels}")
    print(
        "\n| set, labels | draws | concat | dvme | best `fine-tune` | `dvme, unfrozen` | minus the best | attention |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for labels, name in places:
        _print_several(by_method(rows, name, labels), f"{name}, {labels}")


def print_changes(measured: Sequence[tuple[str, Sequence[Row]]]) -> None:
    """Print the first recipe of each set and budget, and the others minus it, paired over the draws, in Markdown."""
    places = dict.fromkeys((row.set, row.labels) for _, rows in measured for row in rows)
    print("\n| set, labels | recipe | draws | accuracy | minus the first | log loss |\n|---|---|---|---|---|---|")
    for place in places:
        named = [(name, {row.seed: row for row in rows if (row.set, row.labels) == place}) for name, rows in measured]
        named = [(name, draws) for name, draws in named if draws]
        first = named[0][1]
        for name, draws in named:
            less = [draws[seed].accuracy - first[seed].accuracy for seed in sorted(draws.keys() & first)]
            loss = statistics.mean(row.log_loss for row in draws.values())
            accuracy = with_error([row.accuracy for row in draws.values()])
            print(f"| {place[0]}, {place[1]} | {name} | {len(draws)} | {accuracy} | {with_error(less)} | {loss:.3f} |")


def _print_single(found: dict[str, Draws], model: str, label: str) -> None:
    probe, script, tuned = (found.get(f"{method} {model}", {}) for method in ("probe", "script", "fine-tune"))
    seeds = sorted(set(probe) & set(script) & set(tuned))
    if not seeds:
        return
    accuracies = [with_error([draws[seed].accuracy for seed in seeds]) for draws in (probe, script, tuned)]
    losses = ", ".join(f"{statistics.mean(d[seed].log_loss for seed in seeds):.3f}" for d in (probe, script, tuned))
    less = [[tuned[seed].accuracy - draws[seed].accuracy for seed in seeds] for draws in (script, probe)]
    possible = statistics.mean(script[seed].accuracy - probe[seed].accuracy for seed in seeds)
    gain = f"{statistics.mean(less[1]) / possible:.2f}" if possible > 0 else "none to have"
    holds = [statistics.mean(values) >= -_error(values) - EQUAL for values in less]
    holds.append(possible <= 0 or statistics.mean(less[1]) >= GAIN * possible - EQUAL)
    noted = "all" if all(holds) else ", ".join("yes" if one else "NO" for one in holds)
    print(f"| {label} | {len(seeds)} | {' | '.join(accuracies)} | {' | '.join(map(with_error, less))} | ", end="")
    print(f"{losses} | {gain} | {noted} |")


def _print_several(found: dict[str, Draws], label: str) -> None:
    several = found.get("dvme, unfrozen", {})
    singles = [draws for method, draws in found.items() if method.startswith("fine-tune ")]
    seeds = sorted(set(several).intersection(*singles)) if singles else []
    if not seeds:
        return
    best = max(singles, key=lambda draws: statistics.mean(draws[seed].accuracy for seed in seeds))
    shown = [found.get("concat", {}), found.get("dvme", {}), best, several]
    cells = []
    for draws in shown:
        known = [draws[seed] for seed in seeds if seed in draws]
        loss = statistics.mean(row.log_loss for row in known) if known else float("nan")
        cells.append(f"{with_error([row.accuracy for row in known])}, {loss:.3f}")
    less = [several[seed].accuracy - best[seed].accuracy for seed in seeds]
    attention = np.round(np.mean([several[seed].attention for seed in seeds], axis=0), 2).tolist()
    print(f"| {label} | {len(seeds)} | {' | '.join(cells)} | {with_error(less)} | {attention} |")


def _error(values: Sequence[float]) -> float:
    return statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0


def with_error(values: Sequence[float]) -> str:
    """Return the mean and its standard error over draws."""
    if not values:
        return "-"
    error = f" ± {_error(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values) + 0.0:.3f}{error}"
