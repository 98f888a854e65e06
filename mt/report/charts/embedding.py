"""The embedding map: the test split of each backbone in two dimensions, PCA first, then openTSNE.

openTSNE and not umap-learn: it needs only numpy, scipy and scikit-learn, which are here already, and no compiler at
run time; 5,000 points of 2,048 numbers take seconds.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import altair as alt
import numpy as np

from mt.cache.catalog import Catalog, Entry
from mt.cache.names import digest
from mt.probe.labelled import labelled
from mt.probe.scores.sample import predicted_class
from mt.report.charts.figures import Figure, Menu, Section, as_spec, menu
from mt.report.charts.palette import colours_of_class
from mt.report.charts.thumbnails import thumbnails
from mt.report.panels import Panel, PanelCell
from mt.results.store import ScoreStore
from mt.terminal.progress import counted
from mt.types import MISSING, Array, CaseFeatures

if TYPE_CHECKING:
    from pathlib import Path

REVISION = 1  # raised whenever the positions change
MOST = 50_000  # points on all maps of a dataset, so that the page stays small and quick
_COMPONENTS = 50
_HEIGHT = 460
_FEW = 1000  # points, below which threads cost more than they bring


@dataclass(frozen=True)
class Maps:
    """What a map may show.

    points: the most test cases per backbone, 0 for no maps.  show_ids: names of cases as they are, else hashed.
    thumbnails: also small pictures, read from the datasets' images in `data_dir`.
    """

    catalog: Catalog
    points: int = 2000
    show_ids: bool = False
    thumbnails: bool = False
    data_dir: Path | None = None


def embedding_map(store: ScoreStore, panel: Panel, maps: Maps) -> Section | None:
    """Return the maps of a panel's backbones whose features are still at hand; None where there are none."""
    at_hand = [
        (cell, entry)
        for cell in _single_models(panel)
        if (entry := _test_features(cell, maps.catalog)) and _has_cases(entry, store, cell)
    ]
    if not at_hand or not maps.points:
        return None
    maps = replace(maps, points=min(maps.points, max(1, MOST // len(at_hand))))
    pictures: dict[str, str] = {}
    if maps.thumbnails:
        pictures = thumbnails(at_hand[0][1], chosen_rows(at_hand[0][1].n_rows, maps.points), maps.data_dir)
    tables = [_table(store, panel, cell, entry, maps, pictures) for cell, entry in at_hand]
    names = list(dict.fromkeys(table["model"][0] for table in tables))
    choice = Menu("backbone", "model", names, names[0])
    merged = {name: [value for table in tables for value in table[name]] for name in tables[0]}
    part = counted(len(tables[0]["x"]), "test case")
    ids = "Cases carry their names" if maps.show_ids else "Names of cases are hashed"
    caption = (
        f"{part}, by PCA to {_COMPONENTS} dimensions and openTSNE to two: cases close together are alike to the "
        "backbone; distances between clusters mean little. Crosses: misclassified by its probe at the largest budget. "
        f"{ids}."
    )
    figure = Figure(
        "map", "Embedding map", caption, _chart(panel, choice, merged), {"map": merged}, _HEIGHT, renderer="canvas"
    )
    return Section("Embedding map", "", [figure], [choice])


def project(X: Array, *, seed: int = 0) -> Array:
    """Return (n, 2) positions of embeddings (n, dim): PCA, then t-SNE started from its first two components.

    Kobak and Berens, "The art of using t-SNE for single-cell transcriptomics", Nature Communications 2019: PCA start,
    scaled to a standard deviation of 1e-4, and a learning rate of n / exaggeration.
    """
    from openTSNE import TSNE  # type: ignore[import-untyped]
    from sklearn.decomposition import PCA

    reduced = PCA(min(_COMPONENTS, *X.shape), random_state=seed).fit_transform(X.astype(np.float32))
    if len(X) < 10:
        return np.asarray(np.pad(reduced, ((0, 0), (0, 2)))[:, :2], dtype=np.float64)
    start = reduced[:, :2] / max(float(reduced[:, 0].std()), 1e-12) * 1e-4
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its dependencies; none concerns the positions
        positions = TSNE(
            perplexity=min(30, (len(X) - 1) / 3),
            initialization=start,
            random_state=seed,
            n_jobs=1 if len(X) < _FEW else -1,
        ).fit(reduced)
    return np.asarray(positions, dtype=np.float64)


def _single_models(panel: Panel) -> list[PanelCell]:
    """Return each model's probe at its largest budget."""
    last: dict[str, PanelCell] = {}
    for cell in panel.headline:
        if cell.method.method == "probe":
            last[cell.method.model] = max(cell, last.get(cell.method.model, cell), key=lambda one: one.n_labels)
    return list(last.values())


def _test_features(cell: PanelCell, catalog: Catalog) -> Entry | None:
    """Return the file that the cell's predictions were made from, if it is still in the cache.

    None for cases of several rows, which no file holds.
    """
    (kept,) = cell.scores[0].fingerprints["test"]
    if "bag" in kept:
        return None
    for entry in catalog.entries(splits=["test"], everything=True):
        if entry.complete and entry.fingerprints.get("file") == kept["file"]:
            return entry
    return None


def _has_cases(entry: Entry, store: ScoreStore, cell: PanelCell) -> bool:
    """Say whether the rows of a file are the cell's test cases, in their order; rows pooled to cases are not."""
    return list(labelled(entry.open()).ids) == list(store.cases(store.fit(cell.scores[0].fit).cases).ids)


def _table(
    store: ScoreStore, panel: Panel, cell: PanelCell, entry: Entry, maps: Maps, pictures: Mapping[str, str]
) -> dict[str, list[Any]]:
    features = labelled(entry.open())
    fit = store.fit(cell.scores[0].fit)
    rows = chosen_rows(len(features.ids), maps.points)
    positions = _positions(store, features, rows)
    ids = np.asarray(features.ids)[rows]
    table = {
        "model": [cell.method.model] * len(rows),
        "x": positions[:, 0].round(2).tolist(),
        "y": positions[:, 1].round(2).tolist(),
        "class": _classes(panel, features.labels[rows]),
        "wrong": _wrong(panel, features.labels[rows], fit.probabilities[rows]),
        "case": [str(name) if maps.show_ids else digest(str(name))[:8] for name in ids],
    }
    if maps.thumbnails:
        table["image"] = [pictures.get(str(name), "") for name in ids]
    return table


def chosen_rows(n: int, points: int) -> Array:
    """Return the rows that a map shows, ascending: all, or a seeded choice."""
    return np.arange(n) if n <= points else np.sort(np.random.default_rng(0).choice(n, points, replace=False))


def _positions(store: ScoreStore, features: CaseFeatures, rows: Array) -> Array:
    """Return positions, remembered in the store: the same report again computes none."""
    of = len(features.ids)
    key = digest({"map": features.fingerprints["file"], "rows": len(rows), "of": of, "revision": REVISION})
    known = store.recall(key)
    if known is None:
        known = project(features.embeddings[rows]).round(3).tolist()
        store.remember(key, known)
    return np.asarray(known)


def _classes(panel: Panel, labels: Array) -> list[str]:
    names = panel.class_names
    if labels.ndim == 1:
        return [names[label] for label in labels]
    several = {0: "no finding", 1: ""}
    return [several.get(int((row > 0).sum()), "several findings") or names[int(row.argmax())] for row in labels]


def _wrong(panel: Panel, labels: Array, p: Array) -> list[int]:
    guess = (p > 0.5).astype(int) if panel.task == "multilabel" else predicted_class(p)
    wrong = (guess != labels) & (labels != MISSING)
    return [int(one) for one in (wrong.any(axis=1) if wrong.ndim == 2 else wrong)]


def _chart(panel: Panel, choice: Menu, table: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    names = [name for name in (*panel.class_names, "several findings", "no finding") if name in set(table["class"])]
    edges, fills = zip(*map(colours_of_class, range(len(names))), strict=True)
    legend = alt.Legend(orient="bottom", columns=3, title=None, labelLimit=110, symbolLimit=30)
    tooltip = [alt.Tooltip("class:N"), alt.Tooltip("case:N"), *([alt.Tooltip("image:N")] if "image" in table else [])]
    axis = alt.Axis(labels=False, ticks=False, grid=False, domain=False, title=None)
    wrong = alt.condition("datum.wrong", alt.value("cross"), alt.value("circle"))
    chart = (
        alt.Chart(alt.NamedData(name="map"))
        .transform_filter("datum.model === model")
        .mark_point(filled=False, strokeWidth=1)
        .encode(
            x=alt.X("x:Q", axis=axis, scale=alt.Scale(zero=False)),
            y=alt.Y("y:Q", axis=axis, scale=alt.Scale(zero=False)),
            stroke=alt.Stroke("class:N", scale=alt.Scale(domain=names, range=edges), legend=legend),
            fill=alt.Fill("class:N", scale=alt.Scale(domain=names, range=fills), legend=legend),
            shape=wrong,
            size=alt.condition("datum.wrong", alt.value(60), alt.value(18)),
            opacity=alt.condition("datum.wrong", alt.value(1), alt.value(0.65)),
            tooltip=tooltip,
        )
        .add_params(menu(choice))
    )
    return as_spec(chart, height=_HEIGHT)
