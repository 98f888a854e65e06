"""Tables of a fusion study: scores, DVME's paired differences, the attention each model receives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mt.probe.questions import Budget
from mt.probe.scores.comparisons import Comparison
from mt.probe.scores.oracle import oracle_rows, with_oracle
from mt.probe.scores.score_tables import comparisons, declared_tables, judged_tables, score_tables
from mt.probe.tables import console, print_comparisons, print_tables
from mt.results.store import Fit, Score, ScoreStore
from mt.results.trained_networks import is_trained, settings_of

if TYPE_CHECKING:
    from rich.table import Table

    from mt.probe.request import Answers

Place = tuple[str, str, Budget]  # dataset, models, budget
FUSIONS = frozenset({"concat", "blend", "dvme"})  # the methods that can be recommended


def print_fusion(study: Answers, *, declared: bool = False) -> None:
    """Print every table of a fusion study to stdout."""
    with ScoreStore(study.store) as store:
        tables = judged_tables([with_oracle(one, store) for one in score_tables(study.scores, store)], store)
        tables = declared_tables(tables, store) if declared else tables
        pairs, attention = differences(study, store), attentions(study, store)
        lines = recommendations(study, store)
    print_tables(tables)
    if any(one.table.subject.metric == "ece" for one in tables):
        from mt.probe.reliability.calibration_table import print_calibrations

        print_calibrations(study)
    for line in lines:
        console().print(line, markup=False, soft_wrap=True)
    if pairs:
        print_comparisons(pairs)
    for row in attention:
        print_attention(row)


def recommendations(study: Answers, store: ScoreStore) -> list[str]:
    """Return a line per dataset and budget: in how many draws each fusion has the lowest out-of-fold log loss.

    Only labels of the budget are used.  The best single model is not recommended; its loss is shown beside.
    """
    lines = []
    for (dataset, _, budget), draws in held_out_losses(study.scores, store).items():
        chosen = {seed: recommended(found) for seed, found in draws.items() if len(found.keys() & FUSIONS) > 1}
        if chosen:
            counts = ", ".join(f"{name} in {count}" for name, count in Counter(chosen.values()).most_common())
            lines.append(
                f"{dataset}, {budget}: recommended inside the budget (lowest out-of-fold log loss): "
                f"{counts} of {len(chosen)} draws{_beside(draws, chosen)}"
            )
    return lines


def recommended(losses: Mapping[str, float]) -> str:
    """Return the fusion with the lowest loss.

    The best single model does not compete.  On few rows its loss is too uncertain, even corrected: on a real set it won
    on held-out rows and lost on test cases (docs/dvme.md).
    """
    return min(losses.keys() & FUSIONS, key=lambda method: (losses[method], method))


def _beside(draws: Mapping[int, Mapping[str, float]], chosen: Mapping[int, str]) -> str:
    """Return the mean loss of what is recommended, and of the best single model in the same draws, if it is known."""
    pairs = [
        (draws[seed][method], draws[seed]["best-single"])
        for seed, method in chosen.items()
        if "best-single" in draws[seed]
    ]
    if len(pairs) < len(chosen):
        return ""
    ours, single = np.mean(pairs, axis=0)
    return f"; mean out-of-fold log loss {ours:.3f}, of best-single {single:.3f}"


def held_out_losses(scores: Iterable[Score], store: ScoreStore) -> dict[Place, dict[int, dict[str, float]]]:
    """Return the out-of-fold log loss of each method in each draw: {place: {seed: {method: loss}}}.

    Methods with such a loss are concatenation, blend, DVME if networks were tried, and the best single model.
    """
    fits: dict[tuple[str, Budget, int], dict[str, Fit]] = {}
    fused: dict[str, Score] = {}
    for score in scores:
        if score.scaling:  # the same fit
            continue
        if score.method == "probe":
            draw = score.dataset, Budget(score.fraction, score.shots), score.seed
            fits.setdefault(draw, {})[score.model] = store.fit(score.fit)
        elif score.method in FUSIONS | {"best-single"}:
            fused[score.fit] = score
    losses: dict[Place, dict[int, dict[str, float]]] = {}
    for fit, score in fused.items():
        budget = Budget(score.fraction, score.shots)
        if score.method == "best-single":
            loss = _loss_of_singles(list(fits.get((score.dataset, budget, score.seed), {}).values()))
        else:
            loss = out_of_fold(score.method, store.fit(fit).outcome)
        if loss is not None:
            here = losses.setdefault((score.dataset, score.model, budget), {})
            here.setdefault(score.seed, {})[score.method] = loss
    return losses


def out_of_fold(method: str, outcome: Mapping[str, Any]) -> float | None:
    """Return the log loss of a fit on all models, on held-out rows of its budget; None if it keeps none."""
    chosen = outcome["selection"]
    if method == "dvme":
        recipe = chosen.get("recipes", {}).get(outcome["settings"].get("recipe", {}).get("name"))
        return None if recipe is None else float(recipe["log_loss"])
    if "log_loss" in chosen:
        return float(chosen["log_loss"])
    return -max(chosen["scores"]) if method == "concat" and chosen.get("scores") else None


def _loss_of_singles(fits: Sequence[Fit]) -> float | None:
    """Return the loss of the best of these probes, None if their files list the rows in other orders.

    Folds are divisions of the rows in a file's order: only those of one order hold the same rows.
    """
    if len({fit.pool for fit in fits}) != 1:
        return None
    return loss_of_best_single([fit.outcome["selection"] for fit in fits])


def loss_of_best_single(selections: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the log loss to expect of taking the model with the lowest loss on held-out rows.

    That lowest loss is itself too low, because the rows that chose the model also judge it.  So each fold is also
    judged with the model that the other folds choose, each model at its chosen C; the mean excess over the model that
    all folds choose is added.  Choices are judged only on rows that had no part in them (Varma and Simon, BMC
    Bioinformatics 2006), from the losses of the folds alone, as in Tibshirani and Tibshirani (Annals of Applied
    Statistics 2009).  Folds count alike: their sizes differ by few rows.

    selections: the stored choice of C of each model, on the same rows and folds, which are not repeated.  None without
    two folds that can be scored: with a fixed C, or a C chosen on other rows.
    """
    if not selections or any(one.get("source") != "folds" for one in selections):
        return None
    lowest = [-max(one["scores"]) for one in selections]
    losses = np.array([_losses_by_fold(one) for one in selections])  # (models, folds)
    n_folds = losses.shape[1]
    if n_folds < 2:
        return None
    best = int(np.argmin(lowest))
    elsewhere = (losses.sum(axis=1, keepdims=True) - losses).argmin(axis=0)
    excess = losses[elsewhere, np.arange(n_folds)] - losses[best]
    return float(lowest[best] + max(0.0, excess.mean()))


def _losses_by_fold(selection: Mapping[str, Any]) -> list[float]:
    """Return the loss of each fold that can be scored, at the chosen C."""
    C = int(np.argmax(selection["scores"]))
    return [-scores[C] for scores in selection["folds"] if scores is not None]


def differences(study: Answers, store: ScoreStore) -> list[Comparison]:
    """Return end-to-end training minus each other row, and DVME minus each; the Holm correction covers all pairs.

    Scaled rows are compared only with scaled rows, as a family of their own; the gain of scaling is shown separately.
    """
    found = [pair for pair in comparisons(score_tables(study.scores, store), store) if pair.scaled != 1]
    fused = [_turned(pair) for pair in found if _rank(pair.a) or _rank(pair.b)]
    return sorted(fused, key=_order)


def oracles(study: Answers, store: ScoreStore) -> list[dict[str, Any]]:
    """Return the single models that test labels would choose, with their scores, as JSON objects."""
    return [row for table in score_tables(study.scores, store) for row in oracle_rows(with_oracle(table, store))]


def _order(pair: Comparison) -> tuple[str, str, float, int, str]:
    row = pair.row()
    return row["dataset"], row["metric"], row["fraction"] or 0, row["shots"] or 0, pair.a


def _rank(row: str) -> int:
    """Return 2 for a row of end-to-end training, 1 for DVME, 0 for what these are compared with."""
    return 2 if row.startswith(("fine-tune", "dvme, ")) else int(row.startswith("dvme: "))


def _turned(pair: Comparison) -> Comparison:
    """Return the comparison as the row of higher rank minus the other."""
    return pair if _rank(pair.a) >= _rank(pair.b) else pair.turned()


def costs(study: Answers, store: ScoreStore) -> list[dict[str, Any]]:
    """Return the images and the seconds that each fit of end-to-end training took, in whichever run it was fitted."""
    fits = {score.fit: score for score in study.scores if score.protocol == "end-to-end"}
    return [
        {
            "cost": score.dataset,
            "method": score.method,
            "models": score.model.split(" + "),
            "fraction": score.fraction,
            "shots": score.shots,
            "seed": score.seed,
            **store.fit(fit).outcome["cost"],
        }
        for fit, score in fits.items()
    ]


def attentions(study: Answers, store: ScoreStore) -> list[dict[str, Any]]:
    """Return, for each DVME and budget, the mean attention over draws that each model receives.

    It is given overall and for the test cases of each class; each sums to 1.  `trained` counts the draws in which a
    trained network predicts; the others kept their start, whose attention is uniform unless training was end to end.
    """
    fits: dict[tuple[str, str, str, Budget], dict[str, Any]] = {}
    for score in study.scores:
        if score.method.startswith("dvme") and ", " not in score.protocol:  # scaled probabilities: the same attention
            place = score.dataset, score.method, score.model, Budget(score.fraction, score.shots)
            fits.setdefault(place, {})[score.fit] = store.fit(score.fit).outcome
    rows = []
    for (dataset, method, _, budget), by_fit in fits.items():
        outcomes = list(by_fit.values())
        found = [outcome["attention"] for outcome in outcomes]
        classes = [name for name in found[0]["classes"] if all(name in one["classes"] for one in found)]
        rows.append(
            {
                "attention": dataset,
                "method": method,
                "fraction": budget.fraction,
                "shots": budget.shots,
                "models": found[0]["models"],
                "draws": len(found),
                "trained": sum(bool(is_trained(method, outcome["settings"])) for outcome in outcomes),
                "recipes": sorted({own["recipe"]["name"] for one in outcomes for own in settings_of(one["settings"])}),
                "overall": _mean([one["overall"] for one in found]),
                "classes": {name: _mean([one["classes"][name] for one in found]) for name in classes},
            }
        )
    return rows


def _mean(values: list[list[float]]) -> list[float]:
    return [float(value) for value in np.mean(values, axis=0)]


def print_attention(row: dict[str, Any]) -> None:
    """Print the number of draws in which a network was trained and, if any, the attention that each model receives."""
    out = console()
    budget = Budget(row["fraction"], row["shots"])
    subject = f"{row['attention']}, {row['method']}, {budget}"
    if row["trained"]:
        out.print(f"{subject}: attention received by each model", style="bold", markup=False)
        out.print(_attention_table(row))
    kept = row["draws"] - row["trained"]
    line = f"{subject}: network trained in {row['trained']} of {row['draws']} draws"
    start = "the start" if "unfrozen" in row["method"] else "the start (uniform attention)"  # one may be a network
    line += f", {start} kept in {kept}" if kept else ""
    line += f". Recipes chosen inside the budget: {', '.join(row['recipes'])}."
    out.print(line, style="dim", markup=False)
    out.print()


def _attention_table(row: dict[str, Any]) -> Table:
    from rich.table import Table
    from rich.text import Text

    from mt.probe.tables import table_box

    table = Table(box=table_box(console()))
    table.add_column("test cases of", overflow="fold")
    for model in row["models"]:
        table.add_column(Text(model), justify="right", overflow="fold")
    for name, values in (("all classes", row["overall"]), *row["classes"].items()):
        table.add_row(Text(name), *(f"{value:.3f}" for value in values))
    return table
