"""The section on fusion: what each fusion gains, and the attention that each model receives in DVME."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

import altair as alt

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
)
from mt.report.charts.paired_gains import FUSED, gain_figure, gain_table, gains, over_single
from mt.report.charts.palette import Looks
from mt.report.panels import Panel, PanelCell
from mt.report.short_names import ShortNames
from mt.results.store import ScoreStore
from mt.results.trained_networks import is_trained


def fusion(store: ScoreStore, panel: Panel, looks: Looks, names: ShortNames | None = None) -> Section | None:
    """Return the gains of a panel's fusions and the attention of its DVMEs; None where there is nothing to show.

    names: short names of models; None: full names.
    """
    found = gains(store, panel)
    fused = [cell for cell in panel.headline if cell.method.method.startswith(FUSED)]
    figures, choices = [], []
    if some := over_single(found):
        figures.append(gain_figure(panel, looks, some, names))
    attention = _attention(store, panel, fused)
    if attention:
        attention = [{**row, "called": names(row["model"]) if names else row["model"]} for row in attention]
        places = list(dict.fromkeys(row["place"] for row in attention))
        choices.append(Menu("attention of", "place", places, places[-1]))
        figures.append(_attention_figure(panel, attention, choices[0]))
    table = gain_table(found) if found else None
    if not figures and table is None:
        return None
    return Section("What fusing gains", _never_trained(store, fused), figures, choices, table)


def _attention(store: ScoreStore, panel: Panel, fused: Sequence[PanelCell]) -> list[dict[str, Any]]:
    """Return a row per model and class: the share of attention that the model receives, as the mean over draws."""
    rows = []
    for cell in fused:
        outcomes = [store.fit(score.fit).outcome for score in cell.scores]
        draws = [outcome["attention"] for outcome in outcomes if _is_trained(cell, outcome)]
        where = f"{cell.name}, {cell.budget}: network trained in {len(draws)} of {len(outcomes)} draws"
        for name in ("all test cases", *panel.class_names):
            shares = [one["overall"] if name == "all test cases" else one["classes"].get(name) for one in draws]
            known = [share for share in shares if share]
            for model, received in zip(draws[0]["models"], zip(*known, strict=True), strict=True) if known else ():
                rows.append({"place": where, "class": name, "model": model, "share": mean(received)})
    return rows


def _is_trained(fused: PanelCell, outcome: Mapping[str, Any]) -> bool:
    """Say whether a DVME's network was trained; where its start was kept, its attention is uniform and says nothing."""
    return is_trained(fused.method.method, outcome["settings"]) is not False


def _never_trained(store: ScoreStore, fused: Sequence[PanelCell]) -> str:
    """Return which DVMEs trained a network in none of their draws, in words."""
    none = [
        f"{cell.n_labels:,}"
        for cell in fused
        if not any(_is_trained(cell, store.fit(score.fit).outcome) for score in cell.scores)
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
