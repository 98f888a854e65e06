"""The commands that make a report anew: features, scores, and the report itself."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from mt.fuse.end_to_end.request import Settings
from mt.report.panels import Panel, PanelCell

if TYPE_CHECKING:
    from mt.cache.catalog import Entry
    from mt.probe.questions import Budget

_END_TO_END = "end-to-end"  # the protocol of what was trained from images


def commands(panels: Sequence[Panel], entries: Sequence[Entry]) -> list[str]:
    """Return the commands, each once; entries: feature files, which state the very commands that made them."""
    made_by = {entry.fingerprints.get("file"): str(entry.manifest.get("command", "")) for entry in entries}
    lines = [line for panel in panels for line in (*_featurized(panel, made_by), *_scored(panel))]
    return [*dict.fromkeys(lines), "mt report"]


def models_of(cell: PanelCell) -> list[str]:
    """Return the backbones of a method, in order."""
    return [part.strip() for part in cell.method.model.split(" + ")]


def _featurized(panel: Panel, made_by: Mapping[str | None, str]) -> list[str]:
    """Return the commands that made a panel's features: as the files state them, else as their names suggest."""
    lines = []
    for cell in panel.cells:
        for split, several in cell.scores[0].fingerprints.items():
            dataset = panel.test_dataset if split == "test" else panel.dataset
            for model, kept in zip(models_of(cell), several, strict=False):
                named = f"mt featurize {_flags('--model', [model])} {shlex.join(['--dataset', dataset])}"
                lines.append(made_by.get(kept["file"]) or named)
    return list(dict.fromkeys(lines))


def _scored(panel: Panel) -> list[str]:
    """Return the commands that make a panel's scores."""
    probes = [cell for cell in panel.cells if cell.method.method == "probe"]
    others = [cell for cell in panel.cells if cell.method.method != "probe"]
    tuned = [cell for cell in others if cell.method.protocol == _END_TO_END]
    fused = [cell for cell in others if cell.method.protocol != _END_TO_END]
    return [
        *(_probed(panel, probes, some) for some in _alike(probes, _recipe)),
        *(_fused(panel, some) for some in _alike(fused, models_of)),
        *(_tuned(panel, some) for some in _alike(tuned, lambda cell: (models_of(cell), _training(cell)))),
    ]


def _alike(cells: Iterable[PanelCell], of: Callable[[PanelCell], Any]) -> list[list[PanelCell]]:
    """Return cells in groups of which one command makes all."""
    groups: dict[str, list[PanelCell]] = {}
    for cell in cells:
        groups.setdefault(repr(of(cell)), []).append(cell)
    return list(groups.values())


def _recipe(cell: PanelCell) -> tuple[str, str, str]:
    return cell.method.protocol, cell.method.solver, cell.method.select


def _probed(panel: Panel, probes: Sequence[PanelCell], cells: Sequence[PanelCell]) -> str:
    """Return the command for probes of one recipe; it names models only where not all have that recipe."""
    protocol, solver, select = _recipe(cells[0])
    models = dict.fromkeys(cell.method.model for cell in cells)
    parts = [
        "mt probe",
        *([] if len(models) == len({cell.method.model for cell in probes}) else [_flags("--model", models)]),
        shlex.join(["--dataset", panel.dataset]),
        *([] if panel.test_dataset == panel.dataset else [shlex.join(["--test-dataset", panel.test_dataset])]),
        _asked(panel, cells),
        *([] if protocol == "default" else [f"--protocol {protocol}"]),
        *([f"--solver {solver}"] if solver in ("sklearn", "cuml") else []),
        *(["--select val"] if select == "val" else []),
    ]
    return " ".join(parts)


def _fused(panel: Panel, cells: Sequence[PanelCell]) -> str:
    """Return the command for methods on the same models; it names methods only where some are missing."""
    kinds = {cell.method.method for cell in cells}
    dvme = any(kind.startswith("dvme") for kind in kinds)  # it brings concat
    named = {"average": "average" in kinds, "concat": "concat" in kinds and not dvme, "dvme": dvme}
    wanted = [name for name, there in named.items() if there]
    parts = [
        *_fuse(panel, cells),
        *([] if wanted == ["average", "dvme"] else [_flags("--method", wanted)]),
        *(["--ablations"] if any(kind.startswith("dvme-") for kind in kinds) else []),
    ]
    return " ".join(parts)


def _tuned(panel: Panel, cells: Sequence[PanelCell]) -> str:
    """Return the command for end-to-end training with the same settings."""
    return " ".join([*_fuse(panel, cells), *_training(cells[0])])


def _fuse(panel: Panel, cells: Sequence[PanelCell]) -> list[str]:
    models = _flags("--model", models_of(cells[0]))
    return ["mt fuse", models, shlex.join(["--dataset", panel.dataset]), _asked(panel, cells)]


def _training(cell: PanelCell) -> list[str]:
    """Return the options of training: those that are not at their default, and the precision, which machines choose."""
    recipe, usual = cell.scores[0].settings["recipe"], asdict(Settings())
    parts = [f"--unfreeze-last {recipe['last']}" if recipe.get("last") else "--unfreeze"]
    rates = recipe["learning_rates"] if _differs(recipe, usual, "learning_rates") else []
    parts += [f"--lr {rate:g}" for rate in rates]
    for name, option in (("epochs", "epochs"), ("batch", "batch-size"), ("augment", "augment"), ("dropout", "dropout")):
        parts += [f"--{option} {recipe[name]}"] if _differs(recipe, usual, name) else []
    parts += [f"--{name.replace('_', '-')}" for name in ("fixed", "train_batch_norm") if recipe.get(name)]
    return [*parts, f"--precision {recipe['precision']}"]


def _differs(recipe: Mapping[str, Any], usual: Mapping[str, Any], name: str) -> bool:
    plain = list(usual[name]) if isinstance(usual[name], tuple) else usual[name]
    return bool(recipe.get(name, plain) != plain)


def _flags(option: str, values: Iterable[str]) -> str:
    return " ".join(shlex.join([option, value.partition("@")[0].partition(" (")[0]]) for value in values)


def _asked(panel: Panel, cells: Sequence[PanelCell]) -> str:
    """Return the options for the budgets, the number of draws, and metrics beside the headline."""
    budgets = dict.fromkeys(cell.budget for cell in cells)
    parts = list(dict.fromkeys(map(_option, budgets)))
    parts.append(f"--seeds {max(len(cell.scores) for cell in cells)}")
    metrics = list(dict.fromkeys(cell.metric for cell in cells))
    return " ".join([*parts, *(f"--metric {name}" for name in metrics if metrics != [panel.metric])])


def _option(budget: Budget) -> str:
    if budget.fraction is not None:
        return f"--fraction {budget.fraction:g}"
    return "--draw-file FILE" if budget.shots is None else f"--shots {budget.shots}"
