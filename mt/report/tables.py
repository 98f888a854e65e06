"""The tables: the rows that the page shows, and the same as CSV and LaTeX (booktabs)."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mt.probe.scores.metrics import METRICS
from mt.probe.scores.score_tables import HOW_DRAWN, spoken_shares
from mt.probe.scores.scoring import Subject
from mt.report import labels_needed
from mt.report.panels import Panel, PanelCell
from mt.report.short_names import ShortNames, in_words
from mt.results.trained_networks import in_words as in_draws
from mt.results.trained_networks import n_trained
from mt.terminal.progress import counted
from mt.terminal.spreadsheet import inert

if TYPE_CHECKING:
    from mt.report.charts.figures import SideTable

NOT_COMPARED = "not compared"  # a cell on different draws or test cases than most of its budget
INTERVAL = "95 % interval over test cases"
SPREAD = "sd over draws"


@dataclass(frozen=True)
class ScoreRow:
    """One line of the main table."""

    panel: Panel
    cell: PanelCell

    @property
    def headline(self) -> bool:
        return self.cell.metric == self.panel.metric

    @property
    def metric(self) -> str:
        return METRICS[self.cell.metric].label

    @property
    def role(self) -> str:
        """Whether the row is the declared one, or exploratory; empty where nothing was declared."""
        found = self.panel.declaration
        return found.primary.role(Subject.of(self.cell.scores[0]), self.cell.budget) if found else ""

    @property
    def realised(self) -> str:
        """What the first draw realised, in words: rows per class, groups, which classes were forced or are missing.

        A row with networks also says in how many draws one was trained.
        """
        realised = self.cell.scores[0].realised
        names = self.panel.class_names
        parts = [", ".join(f"{name}: {count:,}" for name, count in zip(names, realised.get("rows", ()), strict=False))]
        if realised.get("n_groups"):
            parts.append(counted(realised["n_groups"], "group"))
        for what in ("forced", "missing"):
            if realised.get(what):
                parts.append(f"{what}: {', '.join(names[k] for k in realised[what])}")
        shares = self.cell.summary.shares
        if shares:
            parts.append(f"{spoken_shares(shares)} of rows")
        parts.append(HOW_DRAWN.get(realised.get("draw", ""), ""))
        if realised.get("listed"):
            parts.append("as a draw file lists them")
        parts.append(in_draws(self.cell.scores))
        return "; ".join(part for part in parts if part)


def rows(panels: Iterable[Panel]) -> list[ScoreRow]:
    """Return the main table: every method, budget and metric of every dataset, headline metrics first."""
    every = [ScoreRow(panel, cell) for panel in panels for cell in (*panel.cells, *panel.oracles)]
    return sorted(every, key=lambda row: not row.headline)


def number(value: float | None) -> str:
    """Return a score as tables show it; a dash where it is not defined."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.3f}"


def as_csv(panels: Iterable[Panel]) -> str:
    """Return the main table as CSV, numbers in full."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        [
            "dataset",
            "test_dataset",
            "task",
            "method",
            "model",
            "kind",
            "protocol",
            "budget",
            "n_labels",
            "n_draws",
            "metric",
            "mean",
            "sd_over_draws",
            "low_over_test_cases",
            "high_over_test_cases",
            "interval",
            "mark",
            "role",
            "flags",
            "networks_trained",
        ]
    )
    for row in rows(panels):
        panel, cell = row.panel, row.cell
        writer.writerow(
            map(
                inert,
                [
                    panel.dataset,
                    panel.test_dataset,
                    panel.task,
                    cell.name,
                    cell.method.model,
                    cell.method.method,
                    cell.method.protocol,
                    str(cell.budget),
                    cell.n_labels,
                    len(cell.scores),
                    cell.metric,
                    _full(cell.mean),
                    _full(cell.sd),
                    _full(cell.low),
                    _full(cell.high),
                    cell.summary.interval,
                    "oracle" if cell.beside else NOT_COMPARED if cell.mark is None else cell.mark,
                    row.role,
                    "; ".join(cell.flags),
                    _count(n_trained(cell.scores)),
                ],
            )
        )
    return out.getvalue()


def as_latex(panel: Panel, names: ShortNames) -> str:
    """Return a panel's headline scores as a booktabs table: a row per method, a column per budget, the best in bold.

    names: short ones, whose key is in the comment at the table's end; so with the other tables.
    """
    budgets = list(dict.fromkeys(cell.budget for cell in panel.headline))
    by_place = {(cell.name, cell.budget): cell for cell in panel.headline}
    rows = [
        [latex(names(name)), *(_latex_cell(by_place.get((name, budget))) for budget in budgets)] for name in panel.names
    ]
    oracles = {(cell.name, cell.budget): cell for cell in panel.oracles if cell.metric == panel.metric}
    for name in dict.fromkeys(name for name, _ in oracles):
        rows.append([latex(names(name)), *(_latex_cell(oracles.get((name, budget))) for budget in budgets)])
    caption = (
        f"{panel.title}: {panel.metric_label}, mean ± {SPREAD} [{INTERVAL}]. Bold: best; *: not significantly worse; "
        "dagger: not compared, on other draws or test cases than most."
    )
    caption = _with_key(caption, names, panel.names)
    return _booktabs(["Method", *map(str, budgets)], rows, caption)


def side_latex(panel: Panel, side: SideTable, names: ShortNames) -> str:
    """Return a table that goes with charts as a booktabs table, as the page shows it."""
    rows = [[latex(names(value)) for value in row] for row in side.rows]
    said = [*side.columns, *(row[0] for row in side.rows)]
    caption = _with_key(f"{panel.title}: {side.title}. {side.text}", names, said)
    return _booktabs([*map(names, side.columns)], rows, caption)


def needed_files(panel: Panel, names: ShortNames) -> dict[str, str]:
    """Return the table of labels needed as text, by the suffix of its file; empty if nothing can be compared."""
    rows = labels_needed.rows(panel, panel.names)
    if not rows:
        return {}
    columns = ["to match", *panel.names]
    out = io.StringIO()
    lines = [columns, *([goal, *texts] for goal, texts in rows)]
    csv.writer(out, lineterminator="\n").writerows([map(inert, line) for line in lines])
    cells = [[latex(value) for value in (names(goal), *texts)] for goal, texts in rows]
    caption = f"{panel.title}: labels that a method (column) needs to match another (row) at its largest budget."
    return {"csv": out.getvalue(), "tex": _booktabs([*map(names, columns)], cells, _with_key(caption, names, columns))}


def _with_key(caption: str, names: ShortNames, said: Iterable[str]) -> str:
    """Return a caption that ends with what the short names in its table stand for."""
    return f"{caption} {in_words(names.key(said))}".rstrip()


def _booktabs(columns: Sequence[str], rows: Iterable[Sequence[str]], caption: str) -> str:
    """Return a LaTeX table of cells that are LaTeX already; the first column is words, the others numbers."""
    lines = [
        r"\begin{tabular}{l" + "r" * (len(columns) - 1) + "}",
        r"\toprule",
        " & ".join(map(latex, columns)) + r" \\",
        r"\midrule",
        *(" & ".join(row) + r" \\" for row in rows),
        r"\bottomrule",
        r"\end{tabular}",
        f"% {' '.join(caption.split())}",
    ]
    return "\n".join(lines) + "\n"


def latex(text: str) -> str:
    """Return text that LaTeX prints as it is."""
    special = {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        **{sign: "\\" + sign for sign in "&%$#_{}"},
        "≤": r"$\leq$",
        ">": r"$>$",
        "<": r"$<$",
        "–": "--",
    }
    return "".join(special.get(sign, sign) for sign in " ".join(text.split()))


def _latex_cell(cell: PanelCell | None) -> str:
    if cell is None:
        return "--"
    mean = f"{cell.mean:.3f}"
    text = rf"\textbf{{{mean}}}" if cell.mark == "best" else mean
    text += {"tied": r"$^{\ast}$", None: r"$^{\dagger}$"}.get(cell.mark, "")
    text += "" if cell.sd is None else rf" $\pm$ {cell.sd:.3f}"
    return text + ("" if cell.low is None or cell.high is None else f" [{cell.low:.3f}, {cell.high:.3f}]")


def _count(number: int | None) -> str:
    return "" if number is None else str(number)


def _full(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else repr(value)
