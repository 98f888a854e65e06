"""The commands that reproduce a report: its features, its scores, and the report itself.

They are meant for an empty cache, in this order: where one model is shown at two image sizes, or one dataset with and
without groups, the later features replace the earlier ones, so scores follow their own features.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mt.cache.names import bare_name, has_settings
from mt.fuse.end_to_end.request import options_of
from mt.probe.solver.request import SOLVERS
from mt.report.panels import Panel, PanelCell

if TYPE_CHECKING:
    from mt.probe.questions import Budget

_END_TO_END = "end-to-end"  # the protocol of what was trained from images
_NEEDS_EVERYTHING = ("random weights", "limited")  # flags of features that are taken on request only


@dataclass(frozen=True)
class Ask:
    """What one command asks for: rows of the table, at budgets with the same number of draws."""

    rows: tuple[str, ...]
    budgets: tuple[Budget, ...]
    draws: int
    cells: tuple[PanelCell, ...]


def commands(panels: Sequence[Panel]) -> list[str]:
    """Return the commands, each once.

    Features are made by the commands that their files state; for a file that is gone, by one made from its names.
    """
    named = {cell.scores[0].dataset for panel in panels for cell in panel.cells}
    chosen = frozenset(bare_name(name) for name in named if has_settings(name))
    lines = [line for panel in panels for layer in _layers(panel) for line in _layer(panel, layer, chosen)]
    return [*dict.fromkeys(lines), _report(panels)]


def _report(panels: Sequence[Panel]) -> str:
    """Return the command for the report; it names experiments where several of one name are shown."""
    pairs = [(bare_name(panel.dataset), bare_name(panel.test_dataset)) for panel in panels for _ in _layers(panel)]
    several = Counter(pairs)
    names: dict[str, None] = {}
    if max(several.values(), default=0) > 1:
        names = dict.fromkeys(cell.name for panel in panels for cell in panel.cells)
    datasets = dict.fromkeys(panel.dataset for panel in panels)
    parts = ["mt report", _flags("--dataset", datasets), _flags("--experiment", names)]
    return " ".join(filter(None, parts))


def unknown_features(panels: Sequence[Panel]) -> int:
    """Return the number of feature files whose settings are not known: they are gone, and no report kept them."""
    return len(
        {file for panel in panels for cell in panel.cells for *_, file in _files(cell) if file not in panel.commands}
    )


def models_of(cell: PanelCell) -> list[str]:
    """Return the backbones of a method, in order."""
    return [part.strip() for part in cell.method.model.split(" + ")]


def _files(cell: PanelCell) -> list[tuple[str, str, str]]:
    """Return the split, the backbone and the fingerprint of each feature file that a cell rests on."""
    return [
        (split, model, kept["file"])
        for split, several in cell.scores[0].fingerprints.items()
        for model, kept in zip(models_of(cell), several, strict=False)
    ]


def _layers(panel: Panel) -> list[list[PanelCell]]:
    """Return a panel's cells in layers, each of which needs one file per split and backbone."""
    layers: list[tuple[dict[tuple[str, str], str], list[PanelCell]]] = []
    for cell in panel.cells:
        wanted = {(split, model): file for split, model, file in _files(cell)}
        fitting = (layer for layer in layers if wanted.items() <= (wanted | layer[0]).items())
        layer = next(fitting, None)
        if layer is None:
            layer = {}, []
            layers.append(layer)
        layer[0].update(wanted)
        layer[1].append(cell)
    return [mine for _, mine in layers]


def _layer(panel: Panel, cells: Sequence[PanelCell], chosen: frozenset[str]) -> list[str]:
    """Return the commands that make features, and then the scores on them.

    chosen: datasets with features of several settings: each command on them says which it takes.
    """
    probes = [cell for cell in cells if cell.method.method == "probe"]
    others = [cell for cell in cells if cell.method.method != "probe"]
    tuned = [cell for cell in others if cell.method.protocol == _END_TO_END]
    fused = [cell for cell in others if cell.method.protocol != _END_TO_END]
    return [
        *_featurized(panel, cells),
        *(_probed(panel, ask, chosen) for some in _alike(probes, _recipe) for ask in _asks(some)),
        *(_fused(panel, ask, chosen) for some in _alike(fused, models_of) for ask in _asks(some)),
        *(
            _tuned(panel, ask, chosen)
            for some in _alike(tuned, lambda cell: (models_of(cell), _training(cell)))
            for ask in _asks(some)
        ),
    ]


def _featurized(panel: Panel, cells: Sequence[PanelCell]) -> list[str]:
    """Return the commands that make features, one for all splits that were made alike."""
    splits: dict[str, dict[str, None]] = {}
    imports: dict[str, None] = {}
    for cell in cells:
        for split, model, file in _files(cell):
            dataset = panel.test_dataset if split == "test" else panel.dataset
            named = shlex.join(["mt", "featurize", "--model", model, "--dataset", dataset])
            words = shlex.split(panel.commands.get(file) or named)
            if words[:3] == ["mt", "cache", "import"]:  # its splits are those of the files
                imports[shlex.join(words)] = None
                continue
            if "--split" in words[:-1]:
                place = words.index("--split")
                del words[place : place + 2]
            splits.setdefault(shlex.join(words), {})[split] = None
    made = [f"{rest} {_flags('--split', sorted(several, reverse=True))}" for rest, several in splits.items()]
    return [*made, *imports]


def _alike(cells: Iterable[PanelCell], of: Callable[[PanelCell], Any]) -> list[list[PanelCell]]:
    """Return cells in groups of one recipe."""
    groups: dict[str, list[PanelCell]] = {}
    for cell in cells:
        groups.setdefault(repr(of(cell)), []).append(cell)
    return list(groups.values())


def _asks(cells: Sequence[PanelCell]) -> list[Ask]:
    """Return what to ask so that each row gets its own budgets and draws; all labels have one draw in any case."""
    kinds = list(dict.fromkeys(map(_draw, cells)))
    return [ask for kind in kinds for ask in _asks_of_kind([cell for cell in cells if _draw(cell) == kind])]


def _draw(cell: PanelCell) -> str:
    """Return the option for how a cell's rows were drawn; empty for the default."""
    kind = cell.scores[0].realised.get("draw")
    return f"--draw {kind}" if kind else ""


def _asks_of_kind(cells: Sequence[PanelCell]) -> list[Ask]:
    places: dict[tuple[Budget, int], list[PanelCell]] = {}
    for cell in cells:
        places.setdefault((cell.budget, 0 if cell.is_everything else len(cell.scores)), []).append(cell)
    merged: dict[tuple[frozenset[str], int], dict[Budget, list[PanelCell]]] = {}
    for (budget, draws), some in sorted(places.items(), key=lambda place: place[0][1], reverse=True):
        rows = frozenset(cell.name for cell in some)
        same = [key for key in merged if key[0] == rows] if not draws else []
        merged.setdefault(same[0] if same else (rows, draws), {})[budget] = some
    asks = []
    for (_, draws), budgets in merged.items():
        some = [cell for group in budgets.values() for cell in group]
        ordered = sorted(budgets, key=lambda budget: (budget.fraction or 0, budget.shots or 0))
        asks.append(Ask(tuple(dict.fromkeys(cell.name for cell in some)), tuple(ordered), max(1, draws), tuple(some)))
    return asks


def _recipe(cell: PanelCell) -> tuple[str, str, str, str, str]:
    """Return protocol, solver and source of choice, and the column of bags and their pooling, empty without bags."""
    kept = cell.scores[0].fingerprints["train"][0]
    method = cell.method
    return method.protocol, method.solver, method.select, str(kept.get("bag", "")), str(kept.get("pool", ""))


def _probed(panel: Panel, ask: Ask, chosen: frozenset[str]) -> str:
    """Return the command for probes of one recipe."""
    named, solver, select, bag, pool = _recipe(ask.cells[0])
    protocol, _, scaling = named.partition(", ")
    of_bags = f", {pool} per {bag}"
    models = dict.fromkeys(cell.method.model.removesuffix(of_bags) for cell in ask.cells)
    parts = [
        "mt probe",
        _flags("--model", models),
        shlex.join(["--dataset", _dataset(panel, ask, chosen)]),
        *([] if panel.test_dataset == panel.dataset else [shlex.join(["--test-dataset", panel.test_dataset])]),
        _asked(panel, ask),
        *([] if protocol == "default" else [f"--protocol {protocol}"]),
        *([f"--calibrate {scaling}"] if scaling else []),
        *([f"--solver {solver}"] if solver in SOLVERS and solver != "torch" else []),
        *(["--select val"] if select == "val" else []),
        *([shlex.join(["--bag", bag, "--pool", pool])] if bag else []),
    ]
    return " ".join(parts)


def _fused(panel: Panel, ask: Ask, chosen: frozenset[str]) -> str:
    """Return the command for methods on the same models; it names methods only where some are missing."""
    kinds = {cell.method.method for cell in ask.cells}
    dvme = any(kind.startswith("dvme") for kind in kinds)  # it brings concat
    named = {name: name in kinds for name in ("average", "blend")}
    named |= {"concat": "concat" in kinds and not dvme, "dvme": dvme}
    wanted = [name for name, there in named.items() if there]
    scalings = {cell.method.protocol.partition(", ")[2] for cell in ask.cells} - {""}
    parts = [
        *_fuse(panel, ask, chosen),
        *([] if wanted == ["average", "blend", "dvme"] else [_flags("--method", wanted)]),
        *(f"--calibrate {scaling}" for scaling in sorted(scalings)[:1]),
        *(["--ablations"] if any(kind.startswith("dvme-") for kind in kinds) else []),
    ]
    return " ".join(parts)


def _tuned(panel: Panel, ask: Ask, chosen: frozenset[str]) -> str:
    """Return the command for end-to-end training with the same settings."""
    return " ".join([*_fuse(panel, ask, chosen), *_training(ask.cells[0])])


def _fuse(panel: Panel, ask: Ask, chosen: frozenset[str]) -> list[str]:
    models = _flags("--model", models_of(ask.cells[0]))
    return ["mt fuse", models, shlex.join(["--dataset", _dataset(panel, ask, chosen)]), _asked(panel, ask)]


def _dataset(panel: Panel, ask: Ask, chosen: frozenset[str]) -> str:
    """Return the dataset to ask for, with its settings where features of several settings are made."""
    own = ask.cells[0].scores[0].dataset
    return own if has_settings(own) else f"{panel.dataset}[]" if bare_name(own) in chosen else panel.dataset


def _training(cell: PanelCell) -> list[str]:
    """Return the options of a cell's training."""
    return options_of(cell.scores[0].settings["recipe"])


def _flags(option: str, values: Iterable[str]) -> str:
    return " ".join(shlex.join([option, value]) for value in values)


def _asked(panel: Panel, ask: Ask) -> str:
    """Return the options for the budgets, the number of draws, metrics beside the headline, and other features."""
    parts = list(dict.fromkeys(map(_option, ask.budgets)))
    folds = ask.cells[0].scores[0].realised.get("test_folds")
    if folds:
        parts += [f"--test-folds {folds['k']}", *([f"--repeats {folds['repeats']}"] if folds["repeats"] > 1 else [])]
    parts.append(f"--seeds {max(1, ask.draws // folds['repeats']) if folds else ask.draws}")
    parts += filter(None, [_draw(ask.cells[0])])
    metrics = list(dict.fromkeys(cell.metric for cell in ask.cells))
    parts += [f"--metric {name}" for name in metrics if metrics != [panel.metric]]
    special = any(flag in cell.flags for flag in _NEEDS_EVERYTHING for cell in ask.cells)
    return " ".join([*parts, *(["--everything"] if special else [])])


def _option(budget: Budget) -> str:
    if budget.fraction is not None:
        return f"--fraction {repr(budget.fraction).removesuffix('.0')}"
    return "--draw-file FILE" if budget.shots is None else f"--shots {budget.shots}"
