"""Prints a finished study: its tables, the results of its margin and thresholds, and where the report is."""

from __future__ import annotations

from mt.probe.decisions.decided import Decisions
from mt.probe.request import Answers, Margin
from mt.probe.scores.margins import reference_row
from mt.probe.scores.oracle import with_oracle
from mt.probe.scores.score_tables import ScoreTable, declared_tables, judged_tables, score_tables
from mt.probe.tables import print_tables
from mt.results.store import Score, ScoreStore
from mt.study.request import StudyRequest
from mt.study.run import FinishedStudy
from mt.study.study_file import StudyFile
from mt.terminal.progress import counted


def print_finished(ran: FinishedStudy, request: StudyRequest) -> None:
    """Print a study's tables, one per dataset and protocol, and last where its report is."""
    by_protocol: dict[str, list[Score]] = {}
    for score in ran.scores:
        by_protocol.setdefault(score.protocol.partition(", ")[0], []).append(score)
    for scores in by_protocol.values():
        with ScoreStore(request.scores) as store:
            tables = score_tables(scores, store)
            print_tables(declared_tables(judged_tables([with_oracle(table, store) for table in tables], store), store))
        _print_decided(Answers(scores, 0, 0, request.scores, _decisions(request.study)), request.study, tables)
    print(f"{counted(ran.report.n_scores, 'score')}: {ran.report.page}{'' if ran.report.drawn else ' (as it was)'}")


def _decisions(study: StudyFile) -> Decisions | None:
    return Decisions.of(study.threshold, study.calibrate, study.prevalence)


def _print_decided(answers: Answers, study: StudyFile, tables: list[ScoreTable]) -> None:
    """Print the results of the study's margin, thresholds and scaling."""
    margin = Margin.of(study.margin, study.reference)
    if margin is not None and any(reference_row(table, margin.reference) for table in tables):
        from mt.probe.margin_table import print_margins

        print_margins(answers, margin, as_json=False)
    if answers.decisions is not None:
        from mt.probe.decisions.printed import print_decisions

        print_decisions(answers, as_json=False)
