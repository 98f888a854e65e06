"""The methods of a study as sentences, made from stored facts only; every name is escaped for Markdown."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from mt.errors import MtError
from mt.probe.protocols import PROTOCOLS
from mt.probe.questions import Budget
from mt.report.experiments import folds_of
from mt.report.panels import Panel, PanelCell
from mt.report.paper.citations import effective_size, with_references
from mt.report.paper.contrast_sentences import contrasted, decided
from mt.report.paper.escaped import md, named
from mt.report.paper.facts import DatasetFacts, budgets_of
from mt.report.paper.references import REFERENCES, Reference, key_of, of_backbone
from mt.report.reproduce import models_of
from mt.results.store import Score
from mt.results.trained_networks import n_trained
from mt.terminal.progress import counted

Budgets = dict[Budget, None]

END_TO_END = "end-to-end"  # the protocol of what was trained from images
OF_BLEND = "blend-four"  # the protocol of the row `blend` of `mt fuse`
OF_PROTOCOLS = {
    "blend": ("ledoit2004well",),
    "blend-four": ("ledoit2004well",),
    "propagate": ("zhou2003learning",),
}
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
        *decided(facts),
        *contrasted(facts),
        _software(panel),
    ]


def _cases(facts: DatasetFacts) -> list[str]:
    panel = facts.panel
    classes = ", ".join(map(md, panel.class_names))
    what = f"labels ({classes})" if panel.task == "multilabel" else f"classes ({classes})"
    found = [f"{md(panel.title)} is {_a(panel.task)} task with {len(panel.class_names)} {what}."]
    if facts.crossed:
        folds = dict.fromkeys(folds_of(score) for cell in panel.headline for score in cell.scores)
        how = ", ".join(filter(None, folds))
        cases = _counted(facts.train.n_rows, facts.train.n_groups)
        return [*found, f"Its {cases} were tested out of fold{f' ({how})' if how else ''}."]
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
    return [f"Label budgets: {', '.join(parts)}.", *_drawn(facts.panel)]


def _drawn(panel: Panel) -> list[str]:
    """Return how labels were drawn; if there are several ways, a sentence for each, with its rows."""
    kinds: dict[str, dict[str, None]] = {}
    for cell in panel.headline:
        for score in cell.scores:
            kinds.setdefault(_how_drawn(score), {})[cell.name] = None
    several = len(kinds) > 1
    found = [f"Draws{f' of {named(rows)}' if several else ''} were {how}." for how, rows in kinds.items()]
    return [*found, *(["Methods on different draws were not compared."] if several else [])]


def _how_drawn(score: Score) -> str:
    realised = score.realised
    listed = realised.get("listed")
    if listed:
        return "those that a draw file lists" + (f" (hash of its contents {listed})" if isinstance(listed, str) else "")
    unit = "patients or groups" if realised.get("unit") == "group" else "cases"
    if realised.get("draw"):
        groups = "patients or groups" if realised["draw"] == "random-groups" else unit
        return f"random {groups}; no label was used to draw them"
    return (
        f"{unit}, stratified by the labels of all of them [@sechidis2011stratification], and smaller draws lie inside "
        "larger ones"
    )


def _classifiers(panel: Panel) -> list[str]:
    kinds: dict[tuple[str, str], dict[str, None]] = {}
    every, without_lda = defaultdict[tuple[str, str], Budgets](dict), defaultdict[tuple[str, str], Budgets](dict)
    for cell in panel.headline:
        for score in cell.scores:
            for protocol in _protocols_of(cell, score):
                kinds.setdefault(protocol, {})[cell.name] = None
                budget = Budget(score.fraction, score.shots)
                every[protocol][budget] = None
                if "no_lda" in score.flags:
                    without_lda[protocol][budget] = None
    several = len(kinds) > 1
    found = [
        _protocol(*kind) + _without_lda(without_lda[kind], every[kind]) + (f" Rows: {named(rows)}." if several else "")
        for kind, rows in kinds.items()
    ]
    return [*found, chosen_on(panel)]


def _without_lda(found: Budgets, every: Budgets) -> str:
    """Return the sentence on the budgets whose blends lack LDA; empty if none do."""
    where = "Here" if found.keys() == every.keys() else f"At {', '.join(map(str, found))}"
    return f" {where} it was logistic regression alone, without LDA." if found else ""


def _protocols_of(cell: PanelCell, score: Score) -> Iterator[tuple[str, str]]:
    """Yield name and stored hash of each protocol that a fit was made by; the hash is empty where none is stored.

    The row `blend` of `mt fuse` fits a protocol of its own; DVME fits it beside its networks.
    """
    versions = score.versions
    if cell.method.method != "blend":
        yield _plain_protocol(cell), str(versions.get("protocol", ""))
    if cell.method.method == "blend" or OF_BLEND in versions:
        yield OF_BLEND, str(versions.get(OF_BLEND, ""))


def _protocol(name: str, stored: str) -> str:
    """Return the sentence on one protocol; its prose is that of this version, and given where the hash agrees."""
    if name == END_TO_END:
        return "Some networks were trained end to end."
    if name not in PROTOCOLS:
        return f"Protocol {md(name)} (hash {md(stored) or 'not stored'})."
    one = PROTOCOLS[name]
    if stored and stored != one.fingerprint[:12]:
        return f"Protocol {md(name)} (hash {md(stored)}, of another version of mt)."
    sources = "".join(f" [@{key}]" for key in OF_PROTOCOLS.get(name, ()))
    return (
        f"Protocol {md(name)} (hash {stored or 'not stored'}): {md(one.title)}{sources}; choice of settings: "
        f"{md(one.validation_source)}."
    )


def protocols(panel: Panel) -> list[str]:
    """Return the protocols that were fitted, each once, without the names of scalings."""
    found = (name for cell in panel.headline for score in cell.scores for name, _ in _protocols_of(cell, score))
    return list(dict.fromkeys(found))


def _plain_protocol(cell: PanelCell) -> str:
    scaling = cell.scores[0].scaling
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
    drawn = [(trained, len(cell.scores)) for cell in panel.headline if (trained := n_trained(cell.scores)) is not None]
    trained, fits = map(sum, zip(*drawn, strict=True)) if drawn else (0, 0)
    networks = f"A network was trained in {trained} of {counted(fits, 'fit')}; in the others its start predicts."
    return [*([f"Methods on several models: {'; '.join(said)}."] if said else []), *([networks] if drawn else [])]


def _measures(panel: Panel) -> list[str]:
    notes = dict.fromkeys(cell.summary.interval for cell in panel.headline if cell.low is not None)
    found = [f"The headline metric is {panel.metric_label}."]
    if panel.declaration:
        found.append(md(panel.declaration.said))
    if notes:
        found.append(f"Intervals over test cases: {'; '.join(sorted(with_references(md(note)) for note in notes))}.")
    if any(map(effective_size, notes)):
        found.append("Wilson's interval has the number of independent cases of equal variance [@korn1998confidence].")
    if any(cell.summary.expected for cell in panel.headline):
        found.append(
            "MOVER [@zou2008construction] combines them with the variance over draws to intervals of expected scores."
        )
    return [
        *found,
        "Methods were compared in pairs on the same draws and test cases, with joint resamples of draws and test units "
        "[@owen2007pigeonhole]; p-values are adjusted within a budget and metric [@holm1979simple]; the best and those "
        "not significantly worse by max-T [@hsu1996multiple].",
    ]


def software(panel: Panel) -> dict[str, list[str]]:
    """Return the versions of libraries and the revisions of our code, by name; hashes of protocols are elsewhere."""
    found: dict[str, dict[str, None]] = {}
    for score in (score for cell in panel.headline for score in cell.scores):
        for name, value in score.versions.items():
            if name != "protocol" and name not in PROTOCOLS:
                found.setdefault(name, {})[str(value)] = None
    return {name: list(values) for name, values in found.items()}


def _software(panel: Panel) -> str:
    parts = [
        f"{md(name)} {', '.join(map(md, values))}" + (f" [@{_SOFTWARE[name]}]" if name in _SOFTWARE else "")
        for name, values in software(panel).items()
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
