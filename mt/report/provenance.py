"""Where every number comes from: features and their fingerprints, licences, recipes, versions, commands."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mt.errors import MtError
from mt.probe.protocols import PROTOCOLS
from mt.report.panels import Cell, Panel

if TYPE_CHECKING:
    from mt.cache.catalog import Catalog

_SHORT = 12  # characters of a fingerprint that people compare
NON_COMMERCIAL = "no commercial use"


@dataclass(frozen=True)
class Block:
    """One part of the provenance: words, a table, or commands."""

    title: str
    text: str = ""
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    commands: Sequence[str] = field(default=())


def provenance(panels: Sequence[Panel], catalog: Catalog | None = None) -> list[Block]:
    """Return everything that is needed to trust the page, and to make it again.

    catalog: where the feature files are, which state the very commands that made them.
    """
    return [_commands(panels, catalog), _weights(panels), _features(panels), _recipes(panels), _versions(panels)]


def _cells(panels: Sequence[Panel]) -> list[Cell]:
    return [cell for panel in panels for cell in panel.cells]


def _commands(panels: Sequence[Panel], catalog: Catalog | None) -> Block:
    entries = catalog.entries(everything=True) if catalog else []
    made_by = {entry.fingerprints.get("file"): str(entry.manifest.get("command", "")) for entry in entries}
    commands = [line for panel in panels for line in (*_featurized(panel, made_by), *_scored(panel))]
    text = "What was asked is answered from the score database; on another machine these commands make it anew."
    return Block("Reproduce", text, commands=[*dict.fromkeys(commands), "mt report"])


def _featurized(panel: Panel, made_by: Mapping[str | None, str]) -> list[str]:
    """Return the commands that made a panel's features: as the files state them, else as their names suggest."""
    lines = []
    for cell in panel.cells:
        for split, several in cell.scores[0].fingerprints.items():
            dataset = panel.test_dataset if split == "test" else panel.dataset
            for model, kept in zip(_models(cell), several, strict=False):
                named = f"mt featurize {_flags('--model', [model])} {shlex.join(['--dataset', dataset])}"
                lines.append(made_by.get(kept["file"]) or named)
    return list(dict.fromkeys(lines))


def _scored(panel: Panel) -> list[str]:
    """Return the commands that make a panel's scores."""
    dataset = shlex.join(["--dataset", panel.dataset])
    lines = []
    probes = [cell for cell in panel.cells if cell.method.method == "probe"]
    for protocol in dict.fromkeys(cell.method.protocol for cell in probes):
        chosen = [cell for cell in probes if cell.method.protocol == protocol]
        recipe = "" if protocol == "default" else f" --protocol {protocol}"
        across = "" if panel.test_dataset == panel.dataset else f" {shlex.join(['--test-dataset', panel.test_dataset])}"
        lines.append(f"mt probe {dataset}{across} {_asked(chosen)}{recipe}")
    for fused in dict.fromkeys(tuple(_models(cell)) for cell in panel.cells if cell.method.method != "probe"):
        chosen = [cell for cell in panel.cells if tuple(_models(cell)) == fused]
        lines.append(f"mt fuse {_flags('--model', fused)} {dataset} {_asked(chosen)}")
    return lines


def _models(cell: Cell) -> list[str]:
    """Return the backbones of a method, in order."""
    return [part.strip() for part in cell.method.model.split(" + ")]


def _flags(option: str, values: Sequence[str]) -> str:
    return " ".join(shlex.join([option, value.partition("@")[0].partition(" (")[0]]) for value in values)


def _asked(cells: Sequence[Cell]) -> str:
    """Return the options for the budgets and the number of draws."""
    budgets = dict.fromkeys(cell.budget for cell in cells)
    parts = [f"--fraction {b.fraction:g}" if b.fraction is not None else f"--shots {b.shots}" for b in budgets]
    return " ".join([*parts, f"--seeds {max(len(cell.scores) for cell in cells)}"])


def _weights(panels: Sequence[Panel]) -> Block:
    names = dict.fromkeys(name.partition("@")[0] for cell in _cells(panels) for name in _models(cell))
    rows = [_weight(name.partition(" (")[0]) for name in names]
    marked = [row[0] for row in rows if NON_COMMERCIAL in row[1]]
    text = f"Weights that allow {NON_COMMERCIAL}: {', '.join(marked)}." if marked else ""
    return Block("Backbones and licences", text, ("backbone", "licence of its weights", "paper", "source"), rows)


def _weight(name: str) -> list[str]:
    from mt.featurize.registry import find_spec

    try:
        spec = find_spec(name)
    except MtError:
        return [name, "not known here", "", ""]
    licence = f"⚠ {spec.licence}: {NON_COMMERCIAL}" if "NC" in spec.licence else spec.licence
    return [name, licence, spec.paper, spec.source]


def _features(panels: Sequence[Panel]) -> Block:
    rows = dict.fromkeys(
        (panel.dataset if split != "test" else panel.test_dataset, split, model, str(kept["rows"]), *_prints(kept))
        for panel in panels
        for cell in panel.cells
        for split, several in cell.scores[0].fingerprints.items()
        for model, kept in zip(_models(cell), several, strict=False)
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
    return Block("Features", text, columns, sorted(rows))


def _prints(kept: dict[str, Any]) -> tuple[str, ...]:
    return tuple(str(kept.get(name, ""))[:_SHORT] for name in ("backbone", "dataset", "file"))


def _recipes(panels: Sequence[Panel]) -> Block:
    rows = dict.fromkeys(
        (
            panel.title, cell.name, str(cell.budget), cell.method.protocol, cell.method.solver, cell.method.select,
            _settings(cell),
        )
        for panel in panels for cell in panel.headline
    )  # fmt: skip
    used = [PROTOCOLS[name] for name in dict.fromkeys(row[3] for row in rows) if name in PROTOCOLS]
    text = " ".join(f"{protocol.name}: {protocol.title} ({protocol.source})." for protocol in used)
    columns = ("dataset", "method", "budget", "protocol", "solver", "chosen on", "chosen settings, a draw each")
    return Block("Recipes", text, columns, list(rows))


def _settings(cell: Cell) -> str:
    return "; ".join(dict.fromkeys(_words(score.settings) for score in cell.scores))


def _words(settings: Any) -> str:
    return ", ".join(
        f"{name} {value:g}"
        if isinstance(value, float)
        else f"{name} {value if isinstance(value, str) else json.dumps(value)}"
        for name, value in settings.items()
    )


def _versions(panels: Sequence[Panel]) -> Block:
    found: dict[str, dict[str, None]] = {}
    for cell in _cells(panels):
        for score in cell.scores:
            for name, value in score.versions.items():
                found.setdefault(name, {})[str(value)] = None
    return Block("Versions", "", ("what", "version"), [[name, ", ".join(values)] for name, values in found.items()])
