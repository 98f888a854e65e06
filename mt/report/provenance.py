"""Where every number comes from: features and their fingerprints, licences, recipes, versions, commands."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mt.errors import MtError
from mt.probe.protocols import PROTOCOLS
from mt.probe.tables import stated
from mt.report import reproduce
from mt.report.panels import Panel, PanelCell
from mt.report.reproduce import models_of
from mt.terminal.progress import counted

if TYPE_CHECKING:
    from mt.cache.catalog import Catalog, Entry

_SHORT = 12  # characters of a fingerprint that people compare
NON_COMMERCIAL = "no commercial use"
HASHED = "hash_ids=yes"  # in the name of a dataset whose ids were hashed


@dataclass(frozen=True)
class ProvenancePart:
    """One part of the provenance: words, a table, or commands."""

    title: str
    text: str = ""
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    commands: Sequence[str] = field(default=())


def provenance(panels: Sequence[Panel], catalog: Catalog | None = None) -> list[ProvenancePart]:
    """Return what a reader needs to trust the page and to reproduce it.

    catalog: where the feature files are; they state what they were made from.
    """
    entries = catalog.entries(everything=True) if catalog else []
    return [
        _commands(panels),
        _weights(panels),
        _features(panels),
        *_inputs(panels, entries),
        _recipes(panels),
        *_protocols(panels),
        _versions(panels),
        _names(panels),
    ]


def _cells(panels: Sequence[Panel]) -> list[PanelCell]:
    return [cell for panel in panels for cell in panel.cells]


def _commands(panels: Sequence[Panel]) -> ProvenancePart:
    text = "In an empty cache, in this order, these commands make what is shown."
    gone = reproduce.unknown_features(panels)
    if gone:
        text += f" Settings of {counted(gone, 'feature file')} are not known, for they are gone."
    return ProvenancePart("Reproduce", text, commands=reproduce.commands(panels))


def _weights(panels: Sequence[Panel]) -> ProvenancePart:
    names = dict.fromkeys(name for cell in _cells(panels) for name in models_of(cell))
    rows = [_weight(name) for name in names]
    marked = [row[0] for row in rows if NON_COMMERCIAL in row[1]]
    text = f"Weights that allow {NON_COMMERCIAL}: {', '.join(marked)}." if marked else ""
    columns = ("backbone", "licence of its weights", "paper", "source")
    return ProvenancePart("Backbones and licences", text, columns, rows)


def _weight(name: str) -> list[str]:
    from mt.backbones.registry import find_spec

    try:
        spec = find_spec(name)
    except MtError:
        return [name, "not known here", "", ""]
    licence = f"⚠ {spec.licence}: {NON_COMMERCIAL}" if "NC" in spec.licence else spec.licence
    return [name, licence, spec.paper, spec.source]


def _features(panels: Sequence[Panel]) -> ProvenancePart:
    rows = dict.fromkeys(
        (panel.dataset if split != "test" else panel.test_dataset, split, model, str(kept["rows"]), *_prints(kept))
        for panel in panels
        for cell in panel.cells
        for split, several in cell.scores[0].fingerprints.items()
        for model, kept in zip(models_of(cell), several, strict=False)
    )
    columns = (
        "dataset",
        "split",
        "backbone",
        "rows",
        "backbone fingerprint",
        "dataset fingerprint",
        "file fingerprint",
    )
    text = "Fingerprints are sha256 of all that determines the numbers; their first twelve characters are shown."
    return ProvenancePart("Features", text, columns, sorted(rows))


def _inputs(panels: Sequence[Panel], entries: Sequence[Entry]) -> list[ProvenancePart]:
    """Return what determined the features that are at hand: preprocessing, precision, weights, dataset, machine."""
    used = {
        str(kept["file"])
        for cell in _cells(panels)
        for several in cell.scores[0].fingerprints.values()
        for kept in several
    }
    stated = [
        (what, which, _words(settings))
        for entry in entries
        if entry.fingerprints.get("file") in used
        for what, which, settings in (
            ("backbone", entry.backbone, entry.manifest["inputs"].get("backbone")),
            ("dataset", entry.dataset, entry.manifest["inputs"].get("dataset")),
            ("machine", f"{entry.backbone} on {entry.dataset}", entry.manifest.get("compute")),
        )
        if settings
    ]
    text = "What was hashed into the fingerprints, and the machine that made the features."
    rows = sorted(dict.fromkeys(stated))
    return [ProvenancePart("Settings of the features", text, ("of", "which", "settings"), rows)] if rows else []


def _prints(kept: dict[str, Any]) -> tuple[str, ...]:
    return tuple(str(kept.get(name, ""))[:_SHORT] for name in ("backbone", "dataset", "file"))


def _recipes(panels: Sequence[Panel]) -> ProvenancePart:
    rows = dict.fromkeys(
        (
            panel.title,
            cell.name,
            str(cell.budget),
            cell.method.protocol,
            cell.method.solver,
            cell.method.select,
            _settings(cell),
        )
        for panel in panels
        for cell in panel.headline
    )
    columns = ("dataset", "method", "budget", "protocol", "solver", "chosen on", "settings chosen, over all draws")
    return ProvenancePart("Recipes", "", columns, list(rows))


def _protocols(panels: Sequence[Panel]) -> list[ProvenancePart]:
    """Return every line of the protocols that were used."""
    names = dict.fromkeys(cell.method.protocol for cell in _cells(panels))
    rows = [(name, what, value) for name in names if name in PROTOCOLS for what, value in stated(PROTOCOLS[name])]
    return [ProvenancePart("Protocols", "", ("protocol", "what", "value"), rows)] if rows else []


def _settings(cell: PanelCell) -> str:
    return "; ".join(dict.fromkeys(_words(score.settings) for score in cell.scores))


def _words(settings: Any) -> str:
    return ", ".join(f"{name} {_value(value)}" for name, value in settings.items())


def _value(value: Any) -> str:
    """Return a setting in words, whatever it holds."""
    if isinstance(value, dict):
        return f"({_words(value)})"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    return f"{value:g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)


def _versions(panels: Sequence[Panel]) -> ProvenancePart:
    found: dict[str, dict[str, None]] = {}
    for cell in _cells(panels):
        for score in cell.scores:
            for name, value in score.versions.items():
                found.setdefault(name, {})[str(value)] = None
    rows = [[name, ", ".join(values)] for name, values in found.items()]
    return ProvenancePart("Versions", "", ("what", "version"), rows)


def _names(panels: Sequence[Panel]) -> ProvenancePart:
    """Return whether the names of cases were hashed before they were stored; file names can hold names of patients."""
    rows = [
        (name, "hashed, with the cache's own secret (--hash-ids)" if HASHED in name else "as in the files, not hashed")
        for name in dict.fromkeys(name for panel in panels for name in (panel.dataset, panel.test_dataset))
    ]
    text = (
        "Ids and groups of cases as the score database keeps them. This page shows ids as hashes unless --show-ids "
        "asked for them; after mt featurize --hash-ids, only hashes are stored."
    )
    return ProvenancePart("Names of cases", text, ("dataset", "ids and groups"), rows)
