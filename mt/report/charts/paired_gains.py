"""What fusing gains: every fusion minus the best single model chosen inside the budget, against the labels used."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import altair as alt

from mt.probe.questions import Budget
from mt.probe.scores.comparisons import holm
from mt.probe.scores.score_tables import comparisons
from mt.report.answer.findings import CHOSEN_INSIDE, FUSIONS
from mt.report.answer.paired_gain import PairedGain
from mt.report.charts.figures import (
    MOST,
    Figure,
    SideTable,
    Spec,
    as_spec,
    by_method,
    columns,
    side_table,
)
from mt.report.charts.line_names import ROOM, against_labels, line_names
from mt.report.charts.palette import Looks
from mt.report.panels import Panel, PanelCell, as_grid
from mt.report.short_names import ShortNames
from mt.results.store import ScoreStore

FUSED = "dvme"  # the fusion that is also compared with the others
IN_WORDS = {
    CHOSEN_INSIDE: "best single model",
    "concat": "concatenation",
    "average": "averaged probabilities",
    "blend": "blend",
}
_LONGEST = 2.0  # times the largest gain: a longer whisker is cut
_TABLE = (
    "The score of a fusion minus that of another row on the same models, positive where the fusion is better. [ ] 95 % "
    "interval over draws and test cases. p is adjusted for all differences of one budget (Holm), those of scaled "
    "probabilities apart."
)


def is_fusion(cell: PanelCell) -> bool:
    """Say whether a row predicts from several models, on the cache or end to end."""
    return cell.method.method.startswith(FUSIONS)


def gains(store: ScoreStore, panel: Panel) -> list[PairedGain]:
    """Return every fusion minus the best single model chosen inside the budget, and each DVME minus other fusions."""
    found = [
        gain for budget in dict.fromkeys(cell.budget for cell in panel.headline) for gain in _at(store, panel, budget)
    ]
    adjusted = []
    for place in dict.fromkeys(map(_place, found)):
        family = [gain for gain in found if _place(gain) == place]
        ps = holm([gain.p for gain in family])
        adjusted += [replace(gain, p_holm=p) for gain, p in zip(family, ps, strict=True)]
    return adjusted


def _place(gain: PairedGain) -> tuple[Budget, bool]:
    """Return the family of a gain: its budget; gains of scaled probabilities are a family of their own."""
    return gain.fused.budget, bool(gain.fused.scores[0].scaling)


def _at(store: ScoreStore, panel: Panel, budget: Budget) -> Iterator[PairedGain]:
    """Yield the gains at one budget."""
    cells = [cell for cell in panel.headline if cell.budget == budget]
    for model in dict.fromkeys(cell.method.model for cell in cells if is_fusion(cell)):
        same = [cell for cell in cells if cell.method.model == model]
        fusions = [cell for cell in same if is_fusion(cell)]
        singles = [cell for cell in same if cell.method.method == CHOSEN_INSIDE]
        if len(same) < 2:
            continue
        pairs = {frozenset((pair.a, pair.b)): pair for pair in comparisons([as_grid([*fusions, *singles])], store)}
        for fused in fusions:
            bases = _like(fused, singles)
            if fused.method.method == FUSED:
                bases += [other for other in fusions if other.method.method in IN_WORDS]
            for base in bases:
                pair = pairs.get(frozenset((fused.name, base.name)))
                if pair is not None and not math.isnan(pair.difference):
                    yield PairedGain.of(pair, fused, base)


def _like(fused: PanelCell, singles: Sequence[PanelCell]) -> list[PanelCell]:
    """Return the best single model on the fusion's draws: by its own protocol, else by the first one that is stored."""
    here = [cell for cell in singles if cell.shares_draws(fused)]
    return sorted(here, key=lambda cell: cell.method.protocol != fused.method.protocol)[:1]


def over_single(found: Sequence[PairedGain]) -> list[PairedGain]:
    """Return the gains over the best single model, which the chart shows."""
    return [gain for gain in found if gain.base.method.method == CHOSEN_INSIDE]


def gain_figure(panel: Panel, looks: Looks, found: Sequence[PairedGain], names: ShortNames | None = None) -> Figure:
    """Return the chart of gains over the best single model: a line per fusion with whiskers, named at its end."""
    order = [name for name in panel.names if name in {gain.fused.name for gain in found}]
    rows = [row for name in order for row in _rows(name, found, names)]
    low, high, cut = focus(found)
    says = (
        f"Gain in {panel.metric_label} over the best single model chosen inside the budget, against labels used: mean "
        "over the draws that both have, on the same test cases. Whiskers: 95 % intervals of these paired differences "
        "over draws and test cases. Fusions that share a budget are set a little apart."
    )
    says += " Whiskers that leave the chart are cut at its edge." if cut else ""
    says += f" The {MOST} best of the chosen methods are drawn." if len(order) > MOST else ""
    spec = _chart(panel, looks, rows, order, (low, high))
    return Figure("gain", "Gain of fusion", says, spec, {"gains": columns(rows)}, methods=order)


def _rows(name: str, found: Sequence[PairedGain], names: ShortNames | None) -> list[dict[str, Any]]:
    mine = sorted((gain for gain in found if gain.fused.name == name), key=lambda gain: gain.fused.n_labels)
    return [
        {
            "method": name,
            "label": names(name) if names else name,
            "over": gain.base.name,
            "budget": str(gain.fused.budget),
            "kind": gain.fused.budget.kind,
            "labels": gain.fused.n_labels,
            "gain": gain.value,
            "low": _known(gain.low),
            "high": _known(gain.high),
            "p": _known(gain.p_holm),
            "draws": gain.draws,
            "last": gain is mine[-1],
            "says": f"{name} minus {gain.base.name} at {gain.fused.budget}: {gain.value:+.4f}"
            + (f" ({gain.reason})" if gain.reason else ""),
        }
        for gain in mine
    ]


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _chart(
    panel: Panel, looks: Looks, rows: Sequence[dict[str, Any]], order: Sequence[str], heights: tuple[float, float]
) -> Spec:
    plain = against_labels("gains", rows)
    base = plain.encode(color=by_method(panel, looks, "colour"))
    y = alt.Y(
        "gain:Q",
        title=f"gain in {panel.metric_label}",
        scale=alt.Scale(domain=list(heights), nice=False, zero=False),
        axis=alt.Axis(format="+~g", labelExpr="datum.value ? datum.label : '0'"),
    )
    line = base.mark_line(strokeWidth=1.5, opacity=0.5, aria=False, clip=True).encode(
        y=y, strokeDash=by_method(panel, looks, "dash"), detail="kind:N"
    )
    whisker = base.mark_rule(strokeWidth=2, clip=True, aria=False).encode(y=alt.Y("low:Q"), y2="high:Q")
    point = base.mark_point(size=60, opacity=1).encode(
        y=y,
        shape=by_method(panel, looks, "shape"),
        fill=by_method(panel, looks, "fill"),
        description="says:N",
        tooltip=[
            alt.Tooltip("method:N"),
            alt.Tooltip("over:N", title="minus"),
            alt.Tooltip("budget:N"),
            alt.Tooltip("labels:Q", format=","),
            alt.Tooltip("gain:Q", format="+.4f"),
            alt.Tooltip("low:Q", title="95 % from", format="+.4f"),
            alt.Tooltip("high:Q", title="to", format="+.4f"),
            alt.Tooltip("p:Q", title="p (Holm)", format=".4f"),
            alt.Tooltip("draws:Q"),
        ],
    )
    zero = alt.Chart(alt.InlineData(values=[{"zero": 0}])).mark_rule(strokeDash=[4, 4], aria=False)
    zero = zero.encode(y="zero:Q", x=alt.value(0), x2=alt.value(alt.ExprRef(f"width - {ROOM}")))
    mark, named = line_names(plain, heights, panel, looks, "gain")
    some = alt.param("shown", value=list(order[:MOST]))
    return as_spec(alt.layer(zero, line, whisker, mark, named, point).add_params(some))


def focus(found: Sequence[PairedGain]) -> tuple[float, float, bool]:
    """Return the heights that show every gain and zero, and whether a whisker is longer than that.

    A whisker counts up to twice the largest gain, so that one wide interval does not flatten the others.
    """
    values = [gain.value for gain in found]
    ends = [end for gain in found for end in (gain.low, gain.high) if not math.isnan(end)]
    most = max(_LONGEST * max(map(abs, values)), 0.01)
    low = min(0.0, *values, max(-most, min(ends, default=0.0)))
    high = max(0.0, *values, min(most, max(ends, default=0.0)))
    air = 0.06 * (high - low) or 0.01
    return low - air, high + air, any(not low <= end <= high for end in ends)


def gain_table(found: Sequence[PairedGain]) -> SideTable:
    """Return all gains as a table, few labels first."""
    names = ("fusion", "minus", "budget", "gain [95 %]", "p (Holm)", "draws")
    rows = [
        (
            gain.fused.name,
            IN_WORDS[gain.base.method.method],
            str(gain.fused.budget),
            gain.said,
            "–" if math.isnan(gain.p_holm) else f"{gain.p_holm:.4f}",
            str(gain.draws),
        )
        for gain in found
    ]
    return side_table("gains", "All gains of fusion", _TABLE, names, rows)
