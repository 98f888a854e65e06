"""Non-inferiority and equivalence against a reference: "not significantly worse" is not evidence of being as good.

With a margin D, a row is *non-inferior* if its paired difference from the reference lies above -D, and *equivalent* if
it lies between -D and D; differences count in the direction in which the metric is better.  One-sided p-values at 2.5 %
decide (ICH E9, 1998, section 3.3.2; two one-sided tests: Schuirmann, Journal of Pharmacokinetics and Biopharmaceutics
15, 1987).  They are adjusted by Holm over all rows that are compared with the reference within one dataset, budget and
metric; rows of scaled probabilities are a family of their own.  The 95 % interval is that of one comparison: without
other rows it decides alike, with others it can lie beyond the margin where p does not show it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mt.cache.names import digest
from mt.errors import InputError, unknown
from mt.probe.questions import Budget
from mt.probe.scores import comparisons as comparing
from mt.probe.scores.comparisons import Comparison, Replicates, holm
from mt.probe.scores.metrics import METRICS
from mt.probe.scores.score_tables import (
    RESAMPLES,
    ScoreTable,
    identities,
    is_scaled,
    kept_of,
    replicates_of,
    shared_cells,
    without_scaled_ranks,
)
from mt.results.store import ScoreStore

ONE_SIDED = 0.025  # the one-sided level that belongs to a two-sided 95 % interval
REVISION = 2  # raised whenever the numbers of a test change
UNDECIDED = "undecided"


@dataclass(frozen=True)
class MarginTest:
    """A row against the reference: their comparison, and one-sided p-values, plain and adjusted by Holm.

    Each p-value tests a null hypothesis.  `noninferior`: the row is worse by the margin or more.  `equivalent`: it
    differs by the margin or more.  `inferior`: it is worse by less than the margin, or not worse.  They are NaN if the
    scores are not defined, or if their difference is the same on every resample.
    """

    pair: Comparison
    margin: float
    greater_is_better: bool
    noninferior: float
    equivalent: float
    inferior: float
    holm: tuple[float, float, float] = (float("nan"),) * 3

    @property
    def verdict(self) -> str:
        """What the test shows: "equivalent", "superior", "non-inferior", "inferior" or "undecided"; never "equal"."""
        noninferior, equivalent, inferior = (p <= ONE_SIDED for p in self.holm)
        if equivalent:
            return "equivalent"
        if noninferior:
            return "superior" if self._better and self.pair.p_holm <= 2 * ONE_SIDED else "non-inferior"
        return "inferior" if inferior else UNDECIDED

    @property
    def _better(self) -> bool:
        return (self.pair.difference > 0) == self.greater_is_better

    def row(self) -> dict[str, Any]:
        """Return the test as one flat JSON object; an undefined number is None."""
        names = ("p_noninferior", "p_equivalent", "p_inferior")
        plain = dict(zip(names, (self.noninferior, self.equivalent, self.inferior), strict=True))
        adjusted = {f"{name}_holm": p for name, p in zip(names, self.holm, strict=True)}
        numbers = {name: None if p != p else p for name, p in {**plain, **adjusted}.items()}
        return {**self.pair.row(), "reference": self.pair.b, "margin": self.margin, "verdict": self.verdict, **numbers}


def margin_test(replicates: Replicates, row: str, reference: str, margin: float) -> MarginTest:
    """Return the test of one row by itself, so that its adjusted p-values equal the plain ones."""
    better, worse = (row, reference) if replicates.greater_is_better else (reference, row)
    noninferior = replicates.p_above(better, worse, -margin)
    not_superior = replicates.p_above(worse, better, -margin)
    found = noninferior, max(noninferior, not_superior), replicates.p_above(worse, better, margin)
    pair = replicates.compare(row, reference)
    return MarginTest(replace(pair, p_holm=pair.p), margin, replicates.greater_is_better, *found, holm=found)


def margin_tests(tables: Iterable[ScoreTable], store: ScoreStore, *, reference: str, margin: float) -> list[MarginTest]:
    """Return the test of every row of every table and budget against the reference, on the draws that both have.

    reference: the name of a row, of its model or of its method.  Raises InputError if no table has it, or if it names
    several rows of a table.
    """
    families: dict[tuple[Any, ...], list[MarginTest]] = {}
    shown = [without_scaled_ranks(table) for table in tables]
    named = [(table, reference_row(table, reference)) for table in shown]
    if all(row is None for _, row in named):
        raise unknown("row", reference, dict.fromkeys(row for table in shown for row in table.rows), see="the table")
    for table, row in named:
        for budget in table.budgets if row else ():
            for test in _against(table, budget, str(row), margin, store):
                families.setdefault((table.subject.family, budget, test.pair.scaled), []).append(test)
    return [one for family in families.values() for one in _adjusted(family)]


def reference_row(table: ScoreTable, name: str) -> str | None:
    """Return the row with this name, model or method; None without one.  Raises InputError if there are several."""
    if name in table.rows:
        return name
    found = [row for row in table.rows if name in (row.partition(": ")[0], row.rpartition(": ")[2])]
    if len(found) > 1:
        raise InputError(f"--reference {name} names {len(found)} rows: {'; '.join(found)}. Name one in full.")
    return found[0] if found else None


def _against(table: ScoreTable, budget: Budget, reference: str, margin: float, store: ScoreStore) -> list[MarginTest]:
    found = []
    for row in table.rows:
        cells = shared_cells(table, budget, (row, reference), store) if row != reference else {}
        if cells:
            key = digest(
                {
                    "margin": margin,
                    "rows": {name: identities(cell) for name, cell in cells.items()},
                    "resamples": RESAMPLES,
                    "revisions": [comparing.REVISION, REVISION],
                }
            )
            kept = store.recall(key)
            if kept is None:
                replicates = replicates_of(table.subject.metric, cells, store, n_resamples=RESAMPLES)
                made = margin_test(replicates, row, reference, margin)
                kept = {"pair": kept_of(made.pair), "p": [made.noninferior, made.equivalent, made.inferior]}
                store.remember(key, kept)
            scaled = sum(map(is_scaled, cells.values()))
            pair = Comparison(**kept["pair"], subject=table.subject, budget=budget, scaled=scaled)
            greater = METRICS[table.subject.metric].greater_is_better
            found.append(MarginTest(pair, margin, greater, *kept["p"]))
    return found


def _adjusted(family: Sequence[MarginTest]) -> list[MarginTest]:
    columns = [holm([getattr(one, name) for one in family]) for name in ("noninferior", "equivalent", "inferior")]
    pairs = holm([one.pair.p for one in family])
    return [
        replace(one, holm=(a, b, c), pair=replace(one.pair, p_holm=p, n_family=sum(q == q for q in columns[0])))
        for one, a, b, c, p in zip(family, *columns, pairs, strict=True)
    ]
