"""Join embeddings and label tables: which case each row belongs to, and what is known of each case."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

import numpy as np

from mt.datasets.listing import some
from mt.datasets.tabular.column_roles import plain_name
from mt.datasets.tabular.csv_file import TableText
from mt.errors import InputError
from mt.importing.label_tables import LabelTable, key_column
from mt.importing.parts import OF_FILES, SourceFile, split_name
from mt.importing.request import ImportRequest
from mt.terminal.progress import counted
from mt.types import Array

CASE = "image"  # the column of a case table that names the cases, as `table:` calls it
OUT = -1  # the case of rows that are omitted


@dataclass(frozen=True)
class CaseTable:
    """The cases of an import in the order of their embeddings.

    case_of: for each part the case number of each row, `OUT` for rows that are omitted; one number if the whole file
    is a case.  bags: whether rows are instances of cases.  text: what is known of the cases, by column; None without
    labels.  splits: the split of each case, None if it is not named.
    """

    ids: list[str]
    case_of: list[Array | int]
    bags: bool
    file: Path
    text: TableText | None
    splits: list[str | None]
    notes: tuple[str, ...] = field(default=())


def join(parts: Sequence[SourceFile], tables: Sequence[LabelTable], request: ImportRequest) -> CaseTable:
    """Return the cases of an import.

    Raises InputError, with counts and names, for repeated ids, for ids that only the embeddings or only the labels have
    (unless `shared`), and for rows of one case that disagree.
    """
    bags = _are_bags(parts, request)
    names = [_row_names(part, tables, request) for part in parts]
    if not bags:
        _refuse_twice([name for some_names in names for name in some_names])
    ids = list(dict.fromkeys(name for some_names in names for name in some_names))
    splits = _said_splits(parts, names)
    if not tables:
        number = {name: case for case, name in enumerate(ids)}
        return CaseTable(ids, _numbered(parts, names, number), bags, parts[0].path, None, [splits[i] for i in ids])
    file = tables[0].file
    rows = _by_case(parts, tables, names)
    renamed = _matched(ids, rows)
    kept = _kept(ids, renamed, rows, file, shared=request.shared)
    number = {name: case for case, name in enumerate(kept)}
    text = _table([rows[renamed[name]] for name in kept], kept, tables)
    left = len(ids) - len(kept)
    notes = (f"{counted(left, 'id')} without labels omitted",) if left else ()
    return CaseTable(
        kept,
        _numbered(parts, names, number),
        bags,
        file,
        text,
        _agreed([splits[name] for name in kept], text, kept),
        (*(n for t in tables for n in t.text.notes), *notes),
    )


def _are_bags(parts: Sequence[SourceFile], request: ImportRequest) -> bool:
    """Return whether rows are instances of cases: by a bag column, or because a file of one case has several rows."""
    if _bag_column(request) is not None:
        return True
    return any(part.case is not None and part.matrix.n > 1 for part in parts)


def _row_names(part: SourceFile, tables: Sequence[LabelTable], request: ImportRequest) -> Sequence[str]:
    """Return the case of each row of a file, by name; one name where the whole file is one case."""
    if part.case is not None:
        return [part.case]
    beside, key = part.matrix.beside, _bag_column(request)
    if key is None:
        key = key_column(beside, request.rules.id_column if beside else None, part.path)
    if key is not None and key in beside:
        return beside[key]
    return _names_in_order(part, tables, request)


def _bag_column(request: ImportRequest) -> str | None:
    """Return the column that names the case of each row, if there is one."""
    return None if request.bag == OF_FILES else request.bag


def _names_in_order(part: SourceFile, tables: Sequence[LabelTable], request: ImportRequest) -> Sequence[str]:
    """Return the names of rows that have none of their own: those of the label table of the same length and order."""
    table = next((one for one in tables if one.split == part.split), None) or next(
        (one for one in tables if one.split is None), None
    )
    if table is None:
        raise InputError(
            f"{part.path} has no ids, and no labels came with it. Give a table of its rows, in their order: "
            "--labels FILE"
        )
    if len(table) != part.matrix.n:
        raise InputError(
            f"{part.path} has {part.matrix.n:,} rows and no ids; {table.file} has {len(table):,} rows. Expected one "
            "row of labels per embedding, in the same order."
        )
    bag = _bag_column(request)
    if bag is not None and table.key != bag:
        raise InputError(f"--bag {bag}: neither {part.path} nor {table.file} has such a column.")
    return table.names or [f"{part.split or 'row'}:{row}" for row in range(part.matrix.n)]


def _refuse_twice(names: Sequence[str]) -> None:
    counted = Counter(names)
    if len(counted) == len(names):
        return
    twice = [name for name, times in counted.items() if times > 1]
    raise InputError(
        f"{len(twice):,} of {len(counted):,} ids occur more than once: {some(twice)}. Expected one row per id; "
        "several rows of one case are a bag: --bag COLUMN"
    )


def _said_splits(parts: Sequence[SourceFile], names: Sequence[Sequence[str]]) -> dict[str, str | None]:
    """Return the split of each case, as the files name it."""
    splits: dict[str, str | None] = {}
    mixed = []
    for part, some_names in zip(parts, names, strict=True):
        for name in dict.fromkeys(some_names):
            if splits.setdefault(name, part.split) != part.split:
                mixed.append(name)
    if mixed:
        are = counted(len(mixed), "case is", "cases are")
        raise InputError(f"{are} in more than one split: {some(mixed)}. Expected each in one.")
    return splits


Row = tuple[LabelTable, list[int]]  # the rows of a case in the table that describes it


def _by_case(
    parts: Sequence[SourceFile], tables: Sequence[LabelTable], names: Sequence[Sequence[str]]
) -> dict[str, Row]:
    """Return where each case is described: its table, and its rows there."""
    found: dict[str, Row] = {}
    for table in tables:
        own = table.names
        if own is None:
            own = next(list(n) for part, n in zip(parts, names, strict=True) if table.split in (None, part.split))
        for row, name in enumerate(own):
            there = found.setdefault(name, (table, []))
            if there[0] is not table:
                raise InputError(f"'{name}' is described by {there[0].file} and by {table.file}. Expected one of them.")
            there[1].append(row)
    return found


def _matched(ids: Sequence[str], rows: dict[str, Row]) -> dict[str, str]:
    """Return the labels' name of each case: the same, or without folder and suffix if no name is the same."""
    if any(name in rows for name in ids):
        return {name: name for name in ids if name in rows}
    bare: dict[str, list[str]] = {}
    for name in rows:
        bare.setdefault(PurePath(name.replace("\\", "/")).stem, []).append(name)
    return {name: bare[name][0] for name in ids if len(bare.get(name, ())) == 1}


def _kept(ids: Sequence[str], renamed: dict[str, str], rows: dict[str, Row], file: Path, *, shared: bool) -> list[str]:
    """Return the ids that have both embeddings and labels."""
    lacking = [name for name in ids if name not in renamed]
    used = set(renamed.values())
    surplus = [name for name in rows if name not in used]
    kept = [name for name in ids if name in renamed]
    if not kept:
        raise InputError(
            f"No id of the embeddings ({some(ids)}) is in {file} ({some(list(rows))}). Name its column of ids: "
            "--id-column NAME"
        )
    if (lacking or surplus) and not shared:
        have, others = counted(len(lacking), "id has", "ids have"), counted(len(surplus), "has", "have")
        found = [f"{have} embeddings and no labels ({some(lacking)})"] if lacking else []
        found += [f"{others} labels and no embeddings ({some(surplus)})"] if surplus else []
        raise InputError(f"{file}: {' and '.join(found)}. Import the {len(kept):,} that have both: --shared")
    return kept


def _table(rows: Sequence[Row], ids: Sequence[str], tables: Sequence[LabelTable]) -> TableText:
    """Return one row of text per case; rows of one case must agree in columns that describe the case.

    Columns in which instances differ by nature (an instance's id, its position) are omitted.
    """
    first = tables[0]
    for table in tables[1:]:
        if set(table.text.columns) - {table.key} != set(first.text.columns) - {first.key}:
            raise InputError(
                f"{table.file} has the columns {', '.join(table.text.columns)}, and {first.file} has "
                f"{', '.join(first.text.columns)}. Expected the same."
            )
    columns: dict[str, list[str]] = {CASE: list(ids)}
    for name in first.text.columns:
        if name not in (first.key, CASE):
            values = [[table.text.columns[name][row] for row in places] for table, places in rows]
            mixed = [case for case, found in zip(ids, values, strict=True) if len(set(found)) > 1]
            if mixed and _must_agree(name):
                have = counted(len(mixed), "case has", "cases have")
                raise InputError(
                    f"{first.file}: {have} rows that disagree in '{name}': {some(mixed)}. Expected one value per case."
                )
            if not mixed:
                columns[name] = [found[0] for found in values]
    return TableText(columns, [table.text.lines[places[0]] for table, places in rows])


def _must_agree(column: str) -> bool:
    of_cases = ("label", "diagnosis", "class", "target", "split", "group", "patient", "subject")
    return plain_name(column).startswith(of_cases)


def _agreed(said: Sequence[str | None], text: TableText, ids: Sequence[str]) -> list[str | None]:
    """Return the split of each case, as the table or else the files name it; None if neither does."""
    column = next((name for name in text.columns if name.casefold() == "split"), None)
    if column is None:
        return list(said)
    listed = [split_name(value) for value in text.columns[column]]
    other = [name for name, one, two in zip(ids, said, listed, strict=True) if one not in (None, two)]
    if other:
        have = counted(len(other), "case has", "cases have")
        raise InputError(f"{have} another split in the table than in --split or SPLIT=: {some(other)}.")
    return list(listed)


def _numbered(parts: Sequence[SourceFile], names: Sequence[Sequence[str]], number: dict[str, int]) -> list[Array | int]:
    def of(part: SourceFile, some_names: Sequence[str]) -> Array | int:
        if part.case is not None:
            return number.get(part.case, OUT)
        return np.fromiter((number.get(name, OUT) for name in some_names), dtype=np.int64, count=len(some_names))

    return [of(part, some_names) for part, some_names in zip(parts, names, strict=True)]


def rows_in_parts(parts: Sequence[SourceFile], case_of: Sequence[Array | int]) -> Iterator[tuple[Array, Array]]:
    """Yield the case numbers and the embeddings of consecutive rows of all files, without rows that are omitted."""
    for part, cases in zip(parts, case_of, strict=True):
        if isinstance(cases, int) and cases == OUT:
            continue
        start = 0
        for rows in part.matrix.parts():
            here = np.full(len(rows), cases) if isinstance(cases, int) else cases[start : start + len(rows)]
            start += len(rows)
            kept = here != OUT
            yield (here, rows) if kept.all() else (here[kept], rows[kept])
