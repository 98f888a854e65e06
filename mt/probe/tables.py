"""Printed tables of scores: one per dataset, with a row per method and a column per budget.

Notes under each table say which uncertainty each number shows.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mt.probe.name_key import shortened
from mt.probe.protocols import PROTOCOLS, Protocol
from mt.probe.questions import Budget
from mt.probe.scores.comparisons import Comparison
from mt.probe.scores.metrics import METRICS
from mt.probe.scores.score_tables import HOW_DRAWN, Cell, JudgedTable, ScoreTable, spoken_shares
from mt.results.flag_words import FLAG_WORDS
from mt.terminal.progress import counted
from mt.terminal.tables import interval_text, letters

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_WIDE = 200  # characters per line of a table that goes to a file or a pipe
_MARKS = {"best": " *", "tied": " =", "": "", "apart": " †"}
_FEW = "fewer than"  # notes with these words warn of a small test split: printed bold
_CELL = 32  # characters of a cell on one line
_EXPECTED = 15  # characters that a cell's second interval adds
_BESIDE = 90  # characters of a table of pairs beside the names of its rows and its dataset


def console() -> Console:
    """Return the console of stdout, as wide as the terminal; it respects NO_COLOR and COLUMNS."""
    from rich.console import Console

    piped = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return Console(highlight=False, width=_WIDE if piped else None)


def print_tables(tables: Sequence[JudgedTable]) -> None:
    """Print score tables to stdout, each with its notes."""
    out = console()
    for one in tables:
        print_table(out, one)


def print_table(out: Console, judged: JudgedTable) -> None:
    """Print one table: `mean ± sd [interval]`, the best of each budget in bold or, in plain text, marked `*`.

    `=`: not significantly worse than the best.  `†`: not compared.  If names do not fit, they are shortened, and a key
    explains them.
    """
    from rich.table import Table
    from rich.text import Text

    shown, marks = judged.table, judged.marks
    both = any(cell.expected for cell in shown.cells.values())
    cell_width = _CELL + _EXPECTED * both + 3
    names, key = _fitting(shown.rows, out.width - 4 - cell_width * len(shown.budgets))
    stacked = out.width < max(map(len, names.values())) + 4 + cell_width * len(shown.budgets)
    plain = is_plain(out)
    table = Table(box=table_box(out))
    table.add_column("model", overflow="fold")
    for budget in shown.budgets:
        table.add_column(_heading(shown, budget) + _role(judged, budget), justify="left", overflow="fold")
    letters = _letters(shown)
    for row in shown.rows:
        cells = [shown.cells.get((row, budget)) for budget in shown.budgets]
        texts = [
            _text(
                cell,
                bold=marks[budget].get(row) == "best",
                mark=_mark(cell, marks[budget].get(row, "apart"), plain=plain),
                draws=_fewer_draws(shown, row, budget),
                letters=letters,
                stacked=stacked,
            )
            for budget, cell in zip(shown.budgets, cells, strict=True)
        ]
        table.add_row(Text(names[row]), *texts)
    # Printed before the table: as its title, the line would be folded to the table's width.
    out.print(_title(shown) + _exploratory(judged), style="bold", markup=False)
    out.print(table)
    for line in [*key, *_notes(shown, letters, names, plain=plain), *_exceptions(judged)]:
        out.print(line, style="bold" if _FEW in line else "dim", markup=False)
    out.print()


def _title(shown: ScoreTable) -> str:
    """Return the title: dataset, metric, number of test cases, and the test folds if there are any."""
    first = next(iter(shown.cells.values())).scores[0]
    cases = "groups" if shown.subject.level == "group" else "test cases"
    folds = first.realised.get("test_folds")
    tested = f", tested by {folds['name']} cross-validation" if folds else ""
    return f"{shown.subject.title}: {METRICS[shown.subject.metric].label} on {first.n_test:,} {cases}{tested}"


def _role(judged: JudgedTable, budget: Budget) -> str:
    """Return the last line of a column's heading: whether the budget is the declared one; empty if none is."""
    found = judged.declaration
    return f"\n{found.primary.role(judged.table.subject, budget)}" if found and not _exploratory(judged) else ""


def _exploratory(judged: JudgedTable) -> str:
    """Return what follows the title: " (exploratory)" if a declaration exists and the table holds none of it."""
    found, table = judged.declaration, judged.table
    if found is None or any(found.primary.role(table.subject, budget) == "primary" for budget in table.budgets):
        return ""
    return " (exploratory)"


def _heading(shown: ScoreTable, budget: Budget) -> str:
    labels = sorted({score.n_labels for (_, b), cell in shown.cells.items() if b == budget for score in cell.scores})
    count = f"{labels[0]:,}" if labels[0] == labels[-1] else f"{labels[0]:,}-{labels[-1]:,}"
    ranges = [cell.shares for (_, b), cell in shown.cells.items() if b == budget and cell.shares]
    share = (min(low for low, _ in ranges), max(high for _, high in ranges)) if ranges else None
    if share:
        return f"{budget} of groups\n({count} labels, {spoken_shares(share)} of rows)"
    return f"{budget}\n({count} labels)"


def is_plain(out: Console) -> bool:
    """Say whether bold may not be visible: in a pipe or a file, and with NO_COLOR."""
    return out.no_color or not out.is_terminal


def _fitting(rows: Sequence[str], width: int) -> tuple[dict[str, str], list[str]]:
    """Return a name of each row that fits the width, and the lines that explain short names."""
    if max(map(len, rows)) <= width:
        return {row: row for row in rows}, []
    return shortened(rows)


def _fewer_draws(shown: ScoreTable, row: str, budget: Budget) -> int:
    """Return the number of draws of a cell if another row of the budget has more, else 0."""
    counts = {one: len(cell.scores) for (one, b), cell in shown.cells.items() if b == budget}
    return counts[row] if row in counts and counts[row] < max(counts.values()) else 0


def _text(cell: Cell | None, *, bold: bool, mark: str, draws: int, letters: dict[str, str], stacked: bool) -> Text:
    from rich.text import Text

    if cell is None:
        return Text("")
    if cell.spread.mean != cell.spread.mean:
        return Text("not defined" + "".join(f" {letters[flag]}" for flag in sorted(cell.flags) if flag in letters))
    text = Text(f"{cell.spread.mean:.3f}", style="bold" if bold else "")
    if cell.spread.sd is not None:
        text.append(f" ± {cell.spread.sd:.3f}")
    text.append(mark)
    text.append(f" ({counted(draws, 'draw')})" if draws else "")
    text.append("".join(f" {letters[flag]}" for flag in sorted(cell.flags) if flag in letters), style="dim")
    if cell.low is not None and cell.high is not None:
        text.append(("\n" if stacked else " ") + f"[{cell.low:.3f}, {cell.high:.3f}]", style="not bold")
    if cell.expected is not None:
        text.append(("\n" if stacked else " ") + "{{{:.3f}, {:.3f}}}".format(*cell.expected), style="not bold")
    if cell.ece is not None:
        text.append(f"\ndebiased {cell.ece.debiased:.3f}\nby chance {cell.ece.by_chance}", style="not bold")
    trained = _trained(cell)
    if trained is not None:
        text.append(f"\ntrained {trained}/{len(cell.scores)}", style="not bold")
    return text


def _trained(cell: Cell) -> int | None:
    """Return the number of draws in which a network was trained; None for a row without networks."""
    if cell.scores[0].method == "probe":  # spares `mt probe` a module
        return None
    from mt.results.trained_networks import n_trained

    return n_trained(cell.scores)


def _mark(cell: Cell | None, found: str, *, plain: bool) -> str:
    """Return the mark that follows a score; the oracle's mark has a note of its own."""
    if cell is None or (found == "best" and not plain):
        return ""
    return " ‡" if cell.oracle else _MARKS[found]


def _letters(shown: ScoreTable) -> dict[str, str]:
    """Return the footnote letter of each flag that does not hold for every cell."""
    flags = sorted({flag for cell in shown.cells.values() for flag in cell.flags})
    everywhere = set.intersection(*(cell.flags for cell in shown.cells.values()))
    return {flag: letters(number) for number, flag in enumerate(f for f in flags if f not in everywhere)}


def _notes(shown: ScoreTable, letters: dict[str, str], names: Mapping[str, str], *, plain: bool) -> list[str]:
    """Return the lines under a table: what each uncertainty covers, how draws were taken, and the flags."""
    cells = list(shown.cells.values())
    notes = []
    draws = sorted({cell.spread.n_draws for cell in cells if cell.spread.sd is not None})
    if draws:
        notes.append(f"± standard deviation over {'-'.join(map(str, draws))} draws of the labels.")
    notes += _intervals(shown, names)
    if any(cell.ece is not None for cell in cells):
        notes.append("debiased: minus the part that chance adds.")
        notes.append("by chance: a calibrated model with these probabilities, its mean and 95 % range.")
    if any(cell.expected for cell in cells):
        notes.append("{ } 95 % interval of the expected score, over draws and test cases together.")
    if len(shown.rows) > 1:
        best = "*" if plain else "Bold"
        notes.append(
            f"{best}: best of the budget. =: not significantly worse than the best (max-T, 5 %); "
            "that does not show that it is as good: see --margin."
        )
    if any(_trained(cell) is not None for cell in cells):
        notes.append("trained k/D: a network was trained in k of D draws; in the others the row is its start.")
    first = cells[0].scores[0]
    notes += _drawn(shown)
    notes.append(f"Protocol {first.protocol}, {first.solver}; chosen on: {first.select}.")
    for flag in sorted(set.intersection(*(cell.flags for cell in cells))):
        notes.append(f"All: {_in_words(flag)}.")
    return notes + [f"{letter}  {_in_words(flag)}: {_count(shown, flag)}." for flag, letter in letters.items()]


def _intervals(shown: ScoreTable, names: Mapping[str, str]) -> list[str]:
    """Return a line per kind of interval; where there are several, all but the most frequent name their cells."""
    kinds = Counter(cell.interval for cell in shown.cells.values())
    (usual, _), *others = sorted(kinds.items(), key=lambda kind: (-kind[1], kind[0]))
    if not others:
        return [f"[ ] {usual}."]
    named = [f"[ ] of {_places(shown, interval, names)}: {interval}." for interval, _ in others]
    return [*named, f"[ ] of all other cells: {usual}."]


def _places(shown: ScoreTable, interval: str, names: Mapping[str, str]) -> str:
    """Return the cells with this kind of interval in words: `dino at 10 %, 100 %; swav`."""
    found = []
    for row in shown.rows:
        mine = [budget for budget in shown.budgets if (row, budget) in shown.cells]
        here = [str(budget) for budget in mine if shown.cells[row, budget].interval == interval]
        if here:
            found.append(names[row] + (f" at {', '.join(here)}" if len(here) < len(mine) else ""))
    return "; ".join(found)


def _drawn(shown: ScoreTable) -> list[str]:
    """Return the line that says how draws were taken, and which labels beyond the budget that looked at."""
    scores = [score for cell in shown.cells.values() for score in cell.scores]
    some = [score.realised for score in scores if not score.realised.get("everything")]
    if not some:
        return []
    if any(realised.get("listed") for realised in some):
        return ["Draws: as a draw file lists them."]
    kind = HOW_DRAWN.get(some[0].get("draw", ""))
    if kind:
        return [f"Draws: {kind}; no label was looked at."]
    return ["Draws: stratified by all train labels, more than the budget counts; --draw random looks at none."]


def _exceptions(judged: JudgedTable) -> list[str]:
    """Return the lines on the declaration, classes omitted from a mean, the oracle, and rows that are not compared."""
    lines = [judged.declaration.said] if judged.declaration else []
    if judged.left_out:
        known = "because the test cases with a known label hold fewer than two classes"
        lines.append(f"Omitted from the mean, {known}: {', '.join(judged.left_out)}.")
    if any(cell.oracle for cell in judged.table.cells.values()):
        lines.append(
            "‡ oracle-single: the single model with the best test score of each draw. Test labels choose it: it is not "
            "a method and is not ranked; best-single is chosen inside the budget."
        )
    if judged.apart:
        lines.append(
            f"†: not compared, because draws or test cases differ from those of most rows: {', '.join(judged.apart)}."
        )
    for budget, draws in judged.shared.items():
        lines.append(f"{budget}: compared on the {counted(draws, 'draw')} that all compared rows have.")
    return lines


def _in_words(flag: str) -> str:
    """Return what a flag means, with the name that documents and --json have for it."""
    return f"{FLAG_WORDS[flag]} ({flag})" if flag in FLAG_WORDS else flag


def _count(shown: ScoreTable, flag: str) -> str:
    hit = sum(flag in score.flags for cell in shown.cells.values() for score in cell.scores)
    return f"{hit} of {sum(len(cell.scores) for cell in shown.cells.values())} fits"


def print_comparisons(pairs: Sequence[Comparison]) -> None:
    """Print the paired differences between the models."""
    from rich.table import Table
    from rich.text import Text

    out = console()
    title = "Paired differences on the same draws and test cases"
    table = Table(title=title, title_justify="left", title_style="bold", box=table_box(out))
    names, key = _short_pairs(out, pairs)
    for name in ("dataset", "metric", "budget", "difference of", "draws", "mean [95 % interval]", "p", "p (Holm)"):
        table.add_column(name, overflow="fold")
    for pair in pairs:
        about = ("", "") if pair.subject is None else (pair.subject.title, METRICS[pair.subject.metric].label)
        cells = (
            *about,
            str(pair.budget),
            f"{names[pair.a]} - {names[pair.b]}",
            str(pair.n_draws),
            *_numbers(pair),
        )
        table.add_row(*map(Text, cells))  # names hold brackets, which are not markup
    out.print(table)
    for line in key:
        out.print(line, style="dim", markup=False)
    for flag, where in _few(pairs).items():
        out.print(f"{flag}: {', '.join(where)}.", style="bold", markup=False)
    out.print(
        "Intervals and p: draws and test groups (cases without groups) resampled together, 10,000 times; at one draw, "
        f"test groups alone. Holm: within one dataset, budget and metric, {_families(pairs)}.",
        style="dim",
    )
    out.print()


def _numbers(pair: Comparison) -> tuple[str, str, str]:
    """Return a difference with its interval, and both p-values; a dash if they are not defined."""
    if math.isnan(pair.p):
        return said(pair), "–", "–"
    return said(pair), f"{pair.p:.4f}", f"{pair.p_holm:.4f}"


def said(pair: Comparison) -> str:
    """Return a difference with its interval, or the reason why it has none: `+0.012 [-0.004, +0.028]`."""
    return interval_text(pair.difference, pair.low, pair.high, pair.reason)


def _few(pairs: Sequence[Comparison]) -> dict[str, list[str]]:
    """Return, for each flag on few test cases, the datasets that have it."""
    found: dict[str, dict[str, None]] = {}
    for pair in pairs:
        for flag in pair.flags:
            found.setdefault(flag[0].upper() + flag[1:], {})[pair.subject.title if pair.subject else ""] = None
    return {flag: list(where) for flag, where in found.items()}


def _short_pairs(out: Console, pairs: Sequence[Comparison]) -> tuple[dict[str, str], list[str]]:
    """Return a name of each row that fits a table of pairs, and the lines that explain short names."""
    rows = list(dict.fromkeys(row for pair in pairs for row in (pair.a, pair.b)))
    longest = max((len(f"{pair.a} - {pair.b}") for pair in pairs), default=0)
    beside = max((len(pair.subject.title) for pair in pairs if pair.subject), default=0) + _BESIDE
    return shortened(rows) if rows and longest + beside > out.width else ({row: row for row in rows}, [])


def _families(pairs: Sequence[Comparison]) -> str:
    """Return in words how many pairs each family has, and whether some are not printed."""
    sizes = sorted({pair.n_family for pair in pairs})
    count = "-".join(map(str, [*sizes[:1], *sizes[1:][-1:]])) or "0"
    printed = Counter(map(_family, pairs))
    hidden = any(printed[_family(pair)] < pair.n_family for pair in pairs)
    return f"{count} pairs each" + (", including pairs that are not printed" if hidden else "")


def _family(pair: Comparison) -> tuple[Any, ...]:
    return (pair.subject.family if pair.subject else (), pair.budget, pair.scaled)


def table_box(out: Console) -> Any:
    """Return the box style of tables: Unicode lines if the console's encoding has them, else ASCII."""
    from rich import box

    return box.SIMPLE_HEAD if out.encoding.lower().startswith("utf") else box.ASCII2


def print_protocols(*, as_json: bool) -> None:
    """Print every protocol in full to stdout: text, or one JSON object per line."""
    if as_json:
        for protocol in PROTOCOLS.values():
            print(json.dumps(describe(protocol)))
        return
    out = console()
    for protocol in PROTOCOLS.values():
        out.print(protocol.name, style="bold", markup=False)
        for name, value in stated(protocol):
            out.print(f"  {name + ':':<19} {value}", markup=False, soft_wrap=True)
        out.print()


def describe(protocol: Protocol) -> dict[str, Any]:
    """Return everything a protocol states as a JSON object, with its settings and its hash."""
    return {
        **dataclasses.asdict(protocol),
        "kind": protocol.method.kind.lower(),
        "hash": protocol.fingerprint,
    }


def stated(protocol: Protocol) -> list[tuple[str, str]]:
    """Return the lines of `mt probe --list-protocols` on one protocol: (heading, text) pairs."""
    method = dataclasses.asdict(protocol.method)
    method = {**method.pop("logistic", {}), **method}
    method = {name: value for name, value in method.items() if value is not None}
    settings = ", ".join(f"{name} {_short(value)}" for name, value in method.items())
    lines = [
        ("what", protocol.title),
        ("source", protocol.source),
        ("method", f"{protocol.method.kind}: {settings}"),
        ("validation source", protocol.validation_source),
        ("selection metric", protocol.selection_metric or "none"),
        ("embedding", protocol.embedding),
        ("scaling", protocol.scaling),
        ("tasks", ", ".join(protocol.tasks)),
        ("published", protocol.published),
        ("known deviations", "; ".join(protocol.deviations) or "none"),
        ("hash", protocol.fingerprint[:12]),
    ]
    return [(name, value) for name, value in lines if value]


def _short(value: Any) -> str:
    if not isinstance(value, tuple):
        return f"{value:g}" if isinstance(value, float) else str(value)
    return ", ".join(_short(part) for part in value)
