"""The items of reporting guidelines that stored facts answer; numbers as published, topics in our own words.

CLAIM 2024 (Tejani et al., Radiology: Artificial Intelligence 6(4), e240300, 2024), TRIPOD+AI (Collins et al., BMJ 385,
e078378, 2024), STARD-AI (Sounderajah et al., Nature Medicine 31, 3283, 2025).

Checked against published records: authors, journal, number and DOI of TRIPOD+AI; against several later works that cite
them: volume, pages and DOI of CLAIM 2024 and STARD-AI.  Not checked: the item numbers of all three.  `NOT_CHECKED` says
so to readers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mt.report.paper.escaped import md
from mt.report.paper.facts import DatasetFacts
from mt.report.paper.paragraph import END_TO_END, backbones, chosen_on, protocols, software
from mt.terminal.progress import counted

ITEM = "item (number not checked)"  # the heading of a column of numbers
NOT_CHECKED = (
    "Item numbers are not checked against the published checklists: compare them with the forms of the journal. "
    "Volume, pages and DOI of CLAIM 2024 and STARD-AI are as later works cite them."
)


@dataclass(frozen=True)
class Topic:
    """What guidelines ask, in our words, the number of the item in each, and the answer; "" where there is none."""

    what: str
    claim: str
    tripod: str
    stard: str
    answer: Callable[[DatasetFacts], str]


@dataclass(frozen=True)
class Guideline:
    """A guideline: its name, the key of its reference, and the numbers of all of its items."""

    name: str
    key: str
    field: str
    items: tuple[str, ...]


def _numbers(last: int, parts: dict[int, str]) -> tuple[str, ...]:
    """Return 1 ... last, the items in `parts` by their letters."""
    return tuple(f"{n}{letter}" for n in range(1, last + 1) for letter in parts.get(n, "") or ("",))


GUIDELINES = (
    Guideline("CLAIM 2024", "tejani2024claim", "claim", _numbers(44, {})),
    Guideline(
        "TRIPOD+AI",
        "collins2024tripod",
        "tripod",
        _numbers(
            27,
            {
                3: "abc",
                5: "ab",
                6: "abc",
                8: "abc",
                9: "abc",
                12: "abcdefg",
                18: "abcdef",
                20: "abc",
                23: "ab",
                27: "abc",
            },
        ),
    ),
    Guideline(
        "STARD-AI",
        "sounderajah2025stard",
        "stard",
        _numbers(40, {15: "abcd", 16: "abc", 17: "ab", 26: "ab", 40: "ab"}),
    ),
)


def _data(facts: DatasetFacts) -> str:
    where = sorted({str(entry.manifest.get("location")) for entry in facts.entries if entry.manifest.get("location")})
    return f"Dataset {md(facts.title)}" + (f", read from {', '.join(map(md, where))}." if where else ".")


def _hashed(facts: DatasetFacts) -> str:
    hashed = "hash_ids=yes" in f"{facts.panel.dataset} {facts.panel.test_dataset}"
    return "Ids and groups are kept as salted hashes." if hashed else ""


def _missing(facts: DatasetFacts) -> str:
    parts = [
        f"{md(what)} of {count:,} {one.name} cases" for one in (facts.train, facts.test) for what, count in one.unknown
    ]
    rule = "Labels that are not known enter no fit and no score of that label."
    if facts.panel.task != "multilabel":
        rule = "Every case that was used has a label."
    return f"{rule} Not known: {', '.join(parts)}." if parts else rule


def _preprocessing(facts: DatasetFacts) -> str:
    inputs = {
        md(entry.backbone): (entry.manifest.get("inputs", {}).get("backbone") or {}).get("preprocess")
        for entry in facts.entries
    }
    said = [f"{name}: {md(str(value))}" for name, value in inputs.items() if value]
    return f"Each network's own preprocessing: {'; '.join(said)}." if said else ""


def _partitions(facts: DatasetFacts) -> str:
    if facts.crossed:
        return "The cases were tested out of fold."
    return f"A train split of {facts.train.n_rows:,} and a test split of {facts.test.n_rows:,} cases."


def _disjoint(facts: DatasetFacts) -> str:
    shared = any("shared with the test split" in flag for cell in facts.panel.headline for flag in cell.flags)
    if shared:
        return "Some groups of the test split are also in the train split; scores are flagged."
    if facts.train.n_groups is None or facts.test.n_groups is None:
        return "Level of images: no patients or groups are known."
    return "Level of patients or groups: none is in both splits."


def _model(facts: DatasetFacts) -> str:
    trained = any(cell.method.protocol == END_TO_END for cell in facts.panel.headline)
    names = ", ".join(map(md, backbones([facts.panel])))
    return f"Frozen networks ({names}) with classifiers" + (
        "; some networks were trained end to end." if trained else "."
    )


def _initial(facts: DatasetFacts) -> str:
    random = any("random weights" in cell.flags for cell in facts.panel.headline)
    if any("(imported)" in cell.method.model for cell in facts.panel.headline):
        return "Some embeddings were imported: the weights of their networks are not recorded."
    return (
        "Some networks had random weights; scores are flagged." if random else "Pretrained weights, kept by their hash."
    )


def _software(facts: DatasetFacts) -> str:
    found = sorted((name, value) for name, values in software(facts.panel).items() for value in values)
    return ", ".join(f"{md(name)} {md(value)}" for name, value in found) + "."


def _training(facts: DatasetFacts) -> str:
    draws = counted(len(facts.draws), "draw")
    return f"Protocol {', '.join(map(md, protocols(facts.panel)))}; {draws} of the labels over all budgets."


def _selection(facts: DatasetFacts) -> str:
    return f"{chosen_on(facts.panel)} The test cases chose nothing."


def _ensembles(facts: DatasetFacts) -> str:
    names = dict.fromkeys(cell.method.method for cell in facts.panel.headline if " + " in cell.method.model)
    return f"Methods on several networks: {'; '.join(map(md, names))}." if names else ""


def _metrics(facts: DatasetFacts) -> str:
    return f"{facts.panel.metric_label}, and the other metrics of the table of scores."


def _uncertainty(_: DatasetFacts) -> str:
    return (
        "Standard deviation over draws; 95 % intervals over test cases; paired comparisons on shared draws and cases."
    )


def _internal(facts: DatasetFacts) -> str:
    return "" if _external(facts) else _partitions(facts)


def _external(facts: DatasetFacts) -> str:
    if facts.panel.dataset == facts.panel.test_dataset:
        return ""
    return f"Trained on {md(facts.panel.dataset)}, tested on {md(facts.panel.test_dataset)}."


def _included(facts: DatasetFacts) -> str:
    return "See the flow of cases above." if any(one.counts for one in facts.flow) else ""


def _characteristics(_: DatasetFacts) -> str:
    return "See table 1 above; every draw is in the CSV file beside it."


def _performance(facts: DatasetFacts) -> str:
    best = facts.panel.curve(facts.panel.names[0])[-1]
    interval = "" if best.low is None else f" [{best.low:.3f}, {best.high:.3f}]"
    return (
        f"Best of {len(facts.panel.names)} on the test cases: {md(best.name)} with {best.n_labels:,} labels, "
        f"{facts.panel.metric_label} {best.mean:.3f}{interval}. All: scores.csv."
    )


def _output(facts: DatasetFacts) -> str:
    what = "labels" if facts.panel.task == "multilabel" else "classes"
    return f"A probability for each of the {len(facts.panel.class_names)} {what}."


def _stored(_: DatasetFacts) -> str:
    return "Test probabilities of every fit, its draw and its settings are kept in the score database."


def _scaling(facts: DatasetFacts) -> str:
    from mt.probe.protocols import PROTOCOLS

    known = [f"{md(name)}: {PROTOCOLS[name].scaling}" for name in protocols(facts.panel) if name in PROTOCOLS]
    return f"Embeddings enter scaled by the draw's rows ({', '.join(known)})." if known else ""


TOPICS = (
    Topic("source of the data", "7", "5a", "11", _data),
    Topic("preparation of images", "9", "7", "14", _preprocessing),
    Topic("de-identification", "11", "", "", _hashed),
    Topic("missing data", "12", "11", "20", _missing),
    Topic("assignment to partitions", "19", "12a", "15b", _partitions),
    Topic("level at which partitions are disjoint", "20", "", "", _disjoint),
    Topic("model", "22", "12c", "15a", _model),
    Topic("handling of predictors", "", "12b", "", _scaling),
    Topic("software", "23", "", "13", _software),
    Topic("initial parameters", "24", "", "", _initial),
    Topic("training", "25", "", "", _training),
    Topic("selection of the final model", "26", "", "", _selection),
    Topic("ensembles", "27", "", "", _ensembles),
    Topic("output", "", "15", "", _output),
    Topic("metrics", "28", "12e", "18", _metrics),
    Topic("uncertainty and significance", "29", "", "", _uncertainty),
    Topic("evaluation on internal data", "32", "", "", _internal),
    Topic("testing on external data", "33", "", "29", _external),
    Topic("cases included and excluded", "35", "20a", "24", _included),
    Topic("characteristics of cases by partition", "36", "20b", "25", _characteristics),
    Topic("performance with uncertainty", "37", "23a", "31", _performance),
    Topic("storage of outputs", "", "", "40b", _stored),
)


def answered(facts: DatasetFacts, guideline: Guideline) -> list[tuple[str, str, str]]:
    """Return (number, topic, answer) of the items that stored facts answer, in the guideline's order."""
    found = [(getattr(topic, guideline.field), topic.what, topic.answer(facts)) for topic in TOPICS]
    there = [(number, what, answer) for number, what, answer in found if number and answer]
    return sorted(there, key=lambda one: guideline.items.index(one[0]))


def unanswered(guideline: Guideline, every: Sequence[DatasetFacts]) -> list[str]:
    """Return the numbers of the items that stored facts answer for no dataset."""
    there = {number for facts in every for number, _, _ in answered(facts, guideline)}
    return [number for number in guideline.items if number not in there]
