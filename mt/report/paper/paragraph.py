"""The methods of a study as sentences, made from stored facts only; every name is escaped for Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mt.errors import MtError
from mt.probe.decisions.gains import scaling_of
from mt.probe.protocols import PROTOCOLS
from mt.report.panels import Panel, PanelCell
from mt.report.paper.facts import DatasetFacts, budgets_of
from mt.report.paper.references import REFERENCES, Reference, key_of, of_backbone
from mt.report.reproduce import models_of
from mt.terminal.progress import counted

END_TO_END = "end-to-end"  # the protocol of what was trained from images
_FUSIONS = {
    "dvme": "DVME, self-attention over the projected embeddings [@truong2021transferable]",
    "concat": "logistic regression on the concatenated embeddings",
    "average": "the mean of the single models' probabilities",
    "blend": "a product of logistic regressions and shrinkage discriminant analyses, on all embeddings together and on "
    "each model's alone",
    "best-single": "the single model that was best inside the budget",
}
_LOGISTIC_BLEND = "the mean of logistic regressions on the concatenated embeddings and on their square roots"
_SOFTWARE = {"torch": "paszke2019pytorch", "sklearn": "pedregosa2011scikit", "scikit-learn": "pedregosa2011scikit"}


def md(text: str) -> str:
    """Return text that Markdown and HTML show as it is, on one line."""
    special = {"&": "&amp;", "<": "&lt;", ">": "&gt;", **{sign: f"\\{sign}" for sign in "\\`*_[]|#~$@"}}
    return "".join(special.get(sign, sign) for sign in " ".join(text.split()))


def sentences(facts: DatasetFacts) -> list[str]:
    """Return the methods of one dataset."""
    panel = facts.panel
    return [
        *_cases(facts),
        *_features(facts),
        *_budgets(facts),
        *_classifiers(panel),
        *_fusions(panel),
        *_measures(panel),
        _software(panel),
    ]


def _cases(facts: DatasetFacts) -> list[str]:
    panel = facts.panel
    classes = ", ".join(map(md, panel.class_names))
    what = f"labels ({classes})" if panel.task == "multilabel" else f"classes ({classes})"
    found = [f"{md(panel.title)} is {_a(panel.task)} task with {len(panel.class_names)} {what}."]
    if facts.crossed:
        return [*found, f"Its {_counted(facts.train.n_rows, facts.train.n_groups)} were tested out of fold."]
    return [
        *found,
        f"Labels were drawn from {_counted(facts.train.n_rows, facts.train.n_groups)}; "
        f"the test split has {_counted(facts.test.n_rows, facts.test.n_groups)}.",
    ]


def _a(word: str) -> str:
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def _counted(rows: int, groups: int | None) -> str:
    known = (
        "without known patients or groups"
        if groups is None
        else f"of {counted(groups, 'patient or group', 'patients or groups')}"
    )
    return f"{counted(rows, 'case')} {known}"


def _features(facts: DatasetFacts) -> list[str]:
    models = backbones([facts.panel])
    named = [f"{md(name)} [@{key_of(name)}]" if known else md(name) for name, known in models.items()]
    found = [f"Embeddings came from {counted(len(models), 'frozen network')}: {', '.join(named)}."]
    sizes = {
        f"{md(entry.backbone)} {size} pixels"
        for entry in facts.entries
        if (size := (entry.manifest.get("inputs", {}).get("backbone") or {}).get("image_size"))
    }
    return [*found, f"Image sizes: {'; '.join(sorted(sizes))}."] if sizes else found


def _budgets(facts: DatasetFacts) -> list[str]:
    parts = []
    for budget, cells in budgets_of(facts.panel).items():
        draws = max(len(cell.scores) for cell in cells)
        parts.append(f"{budget} ({counted(cells[0].n_labels, 'label')}, {counted(draws, 'draw')})")
    how = sorted({_how_drawn(cell) for cell in facts.panel.headline})
    apart = ["Methods on different draws were not compared."] if len(how) > 1 else []
    return [f"Label budgets: {', '.join(parts)}. " + " ".join([*how, *apart])]


def _how_drawn(cell: PanelCell) -> str:
    realised = cell.scores[0].realised
    unit = "patients or groups" if realised.get("unit") == "group" else "cases"
    if realised.get("listed"):
        return "Draws were those that a draw file lists."
    if realised.get("draw"):
        return f"Draws were random {unit}; no label was used to draw them."
    cite = " [@sechidis2011stratification]"
    return (
        f"Draws were {unit}, stratified by the labels of all of them{cite}, and smaller draws lie inside larger ones."
    )


def _classifiers(panel: Panel) -> list[str]:
    found = []
    for name in protocols(panel):
        if name not in PROTOCOLS:
            found.append("Some networks were trained end to end." if name == END_TO_END else f"Protocol {md(name)}.")
            continue
        one = PROTOCOLS[name]
        found.append(
            f"Protocol {md(name)} (hash {one.fingerprint[:12]}): {md(one.title)}; settings chosen on "
            f"{md(one.validation_source)}."
        )
    for kind in dict.fromkeys(scaling_of(cell.scores[0]) for cell in panel.headline):
        if kind:
            found.append(f"Probabilities were also scaled ({md(kind)}), on out-of-fold scores of the label budget.")
    return [*found, chosen_on(panel)]


def protocols(panel: Panel) -> list[str]:
    """Return the protocols of a panel, each once, without the names of scalings."""
    return list(dict.fromkeys(_plain_protocol(cell) for cell in panel.headline))


def _plain_protocol(cell: PanelCell) -> str:
    scaling = scaling_of(cell.scores[0])
    return cell.method.protocol.removesuffix(f", {scaling}") if scaling else cell.method.protocol


def chosen_on(panel: Panel) -> str:
    """Return which labels chose the settings."""
    if any(cell.method.select == "val" for cell in panel.headline):
        return "Settings were chosen on the validation split, whose labels are counted in the label budgets."
    return "Fits and the choice of settings used the labels of the budget alone."


def _fusions(panel: Panel) -> list[str]:
    there = dict.fromkeys(cell.method.method for cell in panel.headline)
    known = _FUSIONS if panel.task == "multiclass" else {**_FUSIONS, "blend": _LOGISTIC_BLEND}
    said = [f"{md(name)}: {known[name]}" for name in there if name in known]
    return [f"Methods on several models: {'; '.join(said)}."] if said else []


def _measures(panel: Panel) -> list[str]:
    notes = {md(cell.summary.interval) for cell in panel.headline if cell.low is not None}
    found = [f"The headline metric is {panel.metric_label}."]
    if panel.declaration:
        found.append(md(panel.declaration.said))
    if notes:
        found.append(f"Intervals over test cases: {'; '.join(sorted(notes))} {_cited(notes)}.".replace(" .", "."))
    return [
        *found,
        "Methods were compared in pairs on the same draws and test cases, with joint resamples of draws and test units "
        "[@owen2007pigeonhole]; the best and those not significantly worse by max-T [@hsu1996multiple].",
    ]


def _cited(notes: Iterable[str]) -> str:
    joined = " ".join(notes)
    keys = [
        key
        for word, key in (("Obuchowski", "obuchowski1997nonparametric"), ("Wilson", "wilson1927probable"))
        if word in joined
    ]
    return f"[{'; '.join(f'@{key}' for key in keys)}]" if keys else ""


def _software(panel: Panel) -> str:
    found: dict[str, dict[str, None]] = {}
    for score in (score for cell in panel.headline for score in cell.scores):
        for name, value in score.versions.items():
            found.setdefault(name, {})[str(value)] = None
    parts = [
        f"{md(name)} {', '.join(map(md, values))}" + (f" [@{_SOFTWARE[name]}]" if name in _SOFTWARE else "")
        for name, values in found.items()
    ]
    return f"Software and revisions: {'; '.join(parts)}."


def backbones(panels: Sequence[Panel]) -> dict[str, Reference | None]:
    """Return the backbones of these panels, each with its reference where the registry knows one."""
    names = dict.fromkeys(name for panel in panels for cell in panel.headline for name in models_of(cell))
    return {name: _known(name) for name in names}


def _known(name: str) -> Reference | None:
    from mt.backbones.registry import find_spec

    try:
        spec = find_spec(name)
    except MtError:
        return None
    return of_backbone(name, spec.paper, spec.source)


def cited(text: str, panels: Sequence[Panel]) -> list[tuple[str, Reference]]:
    """Return the references that a text cites, in the order of the registry."""
    own = {key_of(name): known for name, known in backbones(panels).items() if known}
    return [(key, one) for key, one in {**REFERENCES, **own}.items() if f"@{key}" in text]
