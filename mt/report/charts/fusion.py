"""What fusing gains: DVME minus each baseline on the same models, and the attention that each model receives."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

import altair as alt

from mt.probe.scores.comparisons import Comparison
from mt.probe.scores.metrics import METRICS
from mt.probe.scores.score_tables import comparisons
from mt.report.charts.figures import (
    SHADES,
    Figure,
    Menu,
    Section,
    Spec,
    as_spec,
    columns,
    menu,
    on_shade,
    scale_with_room,
)
from mt.report.charts.palette import COLOURS, SHAPES
from mt.report.panels import Panel, PanelCell, as_grid
from mt.report.short_names import ShortNames
from mt.results.store import ScoreStore

FUSED = "dvme"
_APART = 12  # pixels between differences at one budget
# Methods that DVME is compared with, and what the page calls them.
BASELINES = {
    "best-single": "best single model",
    "concat": "concatenation",
    "average": "averaged probabilities",
    "blend": "logistic regression and LDA on all models",
}


def fusion(store: ScoreStore, panel: Panel, names: ShortNames | None = None) -> Section | None:
    """Return the gains and the attention of a panel's DVMEs; None where there is none.

    names: short names of models; None: full names.
    """
    fused = [cell for cell in panel.headline if cell.method.method.startswith(FUSED)]
    if not fused:
        return None
    figures = []
    gains = _gains(store, panel, fused)
    if gains:
        figures.append(_gain_figure(panel, gains))
    choices = []
    attention = _attention(store, panel, fused)
    if attention:
        attention = [{**row, "called": names(row["model"]) if names else row["model"]} for row in attention]
        places = list(dict.fromkeys(row["place"] for row in attention))
        choices.append(Menu("attention of", "place", places, places[-1]))
        figures.append(_attention_figure(panel, attention, choices[0]))
    return Section("What fusing gains", _never_trained(store, fused), figures, choices) if figures else None


def _gains(store: ScoreStore, panel: Panel, fused: Sequence[PanelCell]) -> list[dict[str, Any]]:
    """Return one row per difference: DVME minus one baseline on the same models, draws and test cases."""
    sign = 1 if METRICS[panel.metric].greater_is_better else -1
    rows = []
    for cell in fused:
        rivals = [
            other
            for other in panel.headline
            if other.budget == cell.budget
            and other.method.model == cell.method.model
            and other.method.method in BASELINES
        ]
        names = {rival.name: BASELINES[rival.method.method] for rival in rivals}
        for pair in comparisons([as_grid([cell, *rivals])], store) if rivals else ():
            if pair.a == cell.name:
                rows.append(_gain(cell, names[pair.b], pair, sign))
    return rows


def _gain(cell: PanelCell, over: str, pair: Comparison, sign: int) -> dict[str, Any]:
    """Return one difference, positive where fusing helps."""
    low, high = sorted((sign * pair.low, sign * pair.high))
    gain = sign * pair.difference
    return {
        "method": cell.name,
        "over": over,
        "budget": str(cell.budget),
        "labels": cell.n_labels,
        "gain": gain,
        "low": low,
        "high": high,
        "p": pair.p_holm,
        "family": pair.n_family,
        "draws": pair.n_draws,
        "says": f"{cell.name} minus {over} at {cell.budget}: {gain:+.4f}",
    }


def _gain_figure(panel: Panel, rows: Sequence[dict[str, Any]]) -> Figure:
    ticks = sorted({row["labels"] for row in rows})
    low, high, cut = _focus(rows)
    overs = list(dict.fromkeys(row["over"] for row in rows))
    legend = alt.Legend(orient="bottom", title="gain over", columns=2, labelLimit=320)
    colour = alt.Color("over:N", scale=alt.Scale(domain=overs, range=list(COLOURS[: len(overs)])), legend=legend)
    shape = alt.Shape("over:N", scale=alt.Scale(domain=overs, range=list(SHAPES)[: len(overs)]), legend=legend)
    axis = alt.Axis(grid=False, values=ticks, format=",") if len(ticks) <= 6 else alt.Axis(grid=False, format="~s")
    decades = math.log10(ticks[-1] / ticks[0]) or 1
    rank = f"(indexof({json.dumps(overs)}, datum.over) - {(len(overs) - 1) / 2})"
    base = (
        alt.Chart(alt.NamedData(name="gains"))
        .transform_calculate(place=f"datum.labels * pow(10, {rank} * {_APART} * {decades:.6g} / max(width, 1))")
        .encode(
            x=alt.X("place:Q", scale=scale_with_room(ticks, "8"), title="labels used (log scale)", axis=axis),
            color=colour,
        )
    )
    heights = alt.Scale(domain=[low, high], nice=False, zero=False)
    whisker = base.mark_rule(strokeWidth=2, clip=True, aria=False).encode(y=alt.Y("low:Q", scale=heights), y2="high:Q")
    point = base.mark_point(filled=True, size=70, opacity=1).encode(
        y=alt.Y("gain:Q", title=f"gain in {panel.metric_label}", scale=heights),
        shape=shape,
        description="says:N",
        tooltip=[
            alt.Tooltip("method:N"),
            alt.Tooltip("over:N", title="over"),
            alt.Tooltip("budget:N"),
            alt.Tooltip("gain:Q", format="+.4f"),
            alt.Tooltip("low:Q", title="95 % from", format="+.4f"),
            alt.Tooltip("high:Q", title="to", format="+.4f"),
            alt.Tooltip("p:Q", title="p (Holm)", format=".4f"),
            alt.Tooltip("draws:Q"),
        ],
    )
    zero = alt.Chart(alt.InlineData(values=[{"zero": 0}])).mark_rule(strokeDash=[4, 4], aria=False).encode(y="zero:Q")
    pairs = max(row["family"] for row in rows)
    says = (
        "Mean difference over the draws that both have, on the same test cases; whiskers: its 95 % interval over draws "
        f"and test cases. Holm is over the {pairs} pairs of DVME and its baselines at a budget."
        + (" Whiskers that leave the chart are cut at its edge." if cut else "")
    )
    return Figure("gain", "Gain of DVME", says, as_spec(alt.layer(zero, whisker, point)), {"gains": columns(rows)})


def _focus(rows: Sequence[dict[str, Any]]) -> tuple[float, float, bool]:
    """Return the heights that show every gain and zero, and whether a whisker is longer than that.

    A whisker counts up to three times the largest gain, so that one wide interval does not flatten the others.
    """
    ends = [row[name] for row in rows for name in ("low", "high") if not math.isnan(row[name])]
    most = max(3 * max(abs(row["gain"]) for row in rows), 0.01)
    low, high = max(-most, min([0.0, *ends])), min(most, max([0.0, *ends]))
    low, high = (min([low, *(r["gain"] for r in rows)]), max([high, *(r["gain"] for r in rows)]))
    air = 0.06 * (high - low) or 0.01
    return low - air, high + air, any(not low <= end <= high for end in ends)


def _attention(store: ScoreStore, panel: Panel, fused: Sequence[PanelCell]) -> list[dict[str, Any]]:
    """Return a row per model and class: the share of attention that the model receives, as the mean over draws."""
    rows = []
    for cell in fused:
        outcomes = [store.fit(score.fit).outcome for score in cell.scores]
        draws = [outcome["attention"] for outcome in outcomes if _is_trained(outcome)]
        where = f"{cell.name}, {cell.budget}: network trained in {len(draws)} of {len(outcomes)} draws"
        for name in ("all test cases", *panel.class_names):
            shares = [one["overall"] if name == "all test cases" else one["classes"].get(name) for one in draws]
            known = [share for share in shares if share]
            for model, received in zip(draws[0]["models"], zip(*known, strict=True), strict=True) if known else ():
                rows.append({"place": where, "class": name, "model": model, "share": mean(received)})
    return rows


def _is_trained(outcome: Mapping[str, Any]) -> bool:
    """Say whether a DVME's network was trained; where its start was kept, its attention is uniform and says nothing."""
    return bool(outcome["settings"].get("epochs", 1))


def _never_trained(store: ScoreStore, fused: Sequence[PanelCell]) -> str:
    """Return which DVMEs trained a network in none of their draws, in words."""
    none = [
        f"{cell.n_labels:,}"
        for cell in fused
        if not any(_is_trained(store.fit(score.fit).outcome) for score in cell.scores)
    ]
    if not none:
        return ""
    return (
        f"Network trained in none of the draws at {', '.join(dict.fromkeys(none))} labels: DVME is its start there, "
        "whose attention is uniform and is not shown."
    )


def _attention_figure(panel: Panel, rows: Sequence[dict[str, Any]], choice: Menu) -> Figure:
    classes = ["all test cases", *panel.class_names]
    base = (
        alt.Chart(alt.NamedData(name="attention"))
        .transform_filter("datum.place === place")
        .encode(
            x=alt.X("called:N", sort=None, title="model", axis=alt.Axis(labelAngle=0, labelLimit=150)),
            y=alt.Y("class:N", sort=classes, title=None, axis=alt.Axis(labelLimit=120)),
        )
    )
    square = base.mark_rect().encode(
        color=alt.Color("share:Q", scale=SHADES, legend=None),
        tooltip=[alt.Tooltip("class:N"), alt.Tooltip("model:N"), alt.Tooltip("share:Q", format=".1%")],
    )
    text = base.mark_text(aria=False).encode(
        text=alt.Text("share:Q", format=".0%"),
        color=on_shade("share"),
    )
    spec: Spec = as_spec(alt.layer(square, text).add_params(menu(choice)))
    says = "Share of the attention that each model receives, mean over draws with a trained network, by true class."
    return Figure("attention", "Attention", says, spec, {"attention": columns(rows)})
