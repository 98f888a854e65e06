"""The import: make feature files, one per split, from other programs' embeddings and their labels."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mt.cache import pooling
from mt.cache.catalog import Catalog, feature_path, imported_name
from mt.cache.content import ContentIndex
from mt.cache.feature_file.format import Status
from mt.cache.feature_file.rows import arrays_of, hash_of
from mt.cache.feature_file.write import Existing, FeatureWriter
from mt.cache.names import digest
from mt.datasets.listing import some
from mt.errors import InputError
from mt.importing.described import Cases, describe, described_by
from mt.importing.instances import instance_rows
from mt.importing.joining import OUT, CaseTable, join, rows_in_parts
from mt.importing.known import KnownDataset
from mt.importing.label_tables import tables_of
from mt.importing.parts import SourceFile, parts_of
from mt.importing.request import ImportRequest
from mt.system import files
from mt.terminal import progress
from mt.types import HEADLINE, Array, LabelledRows

REVISION = 1  # raised when an import makes something else from the same files; enters the fingerprints
BLOCK_ROWS = 256


@dataclass(frozen=True)
class Imported:
    """One feature file that an import made, or that was already complete."""

    path: Path
    split: str
    rows: int
    dim: int
    skipped: int
    warnings: tuple[str, ...]


def import_features(request: ImportRequest) -> list[Imported]:
    """Make one feature file per split of embeddings that other programs computed.

    Raises InputError, with counts and names, if files cannot be read, or embeddings and labels do not fit together;
    CacheError if the cache cannot be written.
    """
    if request.pool is not None:
        pooling.check_rule(request.pool)
    cache = files.cache_dir(request.cache_dir)
    parts = parts_of(request)
    table = join(parts, tables_of(request, parts), request)
    if request.pool is not None and not table.bags:
        raise InputError(
            f"--pool {request.pool} needs several rows per case, and each row here is its own. Name what holds the "
            "case of each row: --bag COLUMN"
        )
    known = KnownDataset.find(Catalog(cache), request.dataset)
    cases = _described(table, known, request)
    return _Import(request, parts, table, cases, known, cache).run()


def _described(table: CaseTable, known: KnownDataset, request: ImportRequest) -> Cases:
    """Return what is known of the cases: from their labels, else from the dataset in the cache."""
    if table.text is not None:
        cases = describe(table, request)
        return known.agreed(cases) if known else cases
    if not known:
        raise InputError(
            f"No labels came with these embeddings, and the cache holds no '{request.dataset}'. Give them: "
            "--labels FILE"
        )
    return known.agreed(described_by(known.features(), table))


class _Import:
    """Writes the files of one import."""

    def __init__(
        self,
        request: ImportRequest,
        parts: Sequence[SourceFile],
        table: CaseTable,
        cases: Cases,
        known: KnownDataset,
        cache: Path,
    ) -> None:
        self.request, self.parts, self.table, self.cases = request, parts, table, cases
        self.known, self.cache = known, cache
        self.instances = table.bags and request.pool is None
        self.case_of = table.case_of
        dim = parts[0].matrix.dim
        self.dim = dim if request.pool is None else pooling.width(dim, request.pool)
        self.dtype = request.dtype or ("float32" if request.pool else _dtype(parts))
        self.sources = _sources(request, parts)

    def run(self) -> list[Imported]:
        """Write every split in one pass over the embeddings."""
        split_of = np.full(len(self.cases.ids), OUT)
        names = list(self.cases.splits)
        for number, name in enumerate(names):
            split_of[self.cases.splits[name]] = number
        with ExitStack() as open_files:
            files: list[_SplitFile] = []
            try:
                for name in names:
                    files.append(self._open(name, open_files))
                for numbers, rows in self._ordered():
                    for number, file in enumerate(files):
                        here = split_of[numbers] == number
                        if here.any():
                            file.take(rows if here.all() else rows[here])
                self._refuse_bad(files)
                return [file.finish() for file in files]
            except BaseException:
                for file in files:
                    file.writer.discard()
                raise

    def _ordered(self) -> Iterator[tuple[Array, Array]]:
        """Yield case numbers and rows in the order of their splits: the cache's order if it has the splits."""
        if self.instances or all((np.diff(rows) > 0).all() for rows in self.cases.splits.values()):
            yield from self._rows()
            return
        whole = np.empty((len(self.cases.ids), self.dim), self.dtype)
        with np.errstate(over="ignore", invalid="ignore"):
            for numbers, rows in self._rows():
                whole[numbers] = rows
        for chosen in self.cases.splits.values():
            yield chosen, whole[chosen]

    def _rows(self) -> Iterator[tuple[Array, Array]]:
        """Yield case numbers and rows to write: the files' rows, or one pooled row per case."""
        total = sum(part.matrix.n for part in self.parts)
        with progress.bar("importing", total, unit="rows") as advance:
            if self.request.pool is None:
                for numbers, rows in rows_in_parts(self.parts, self.case_of):
                    yield numbers, rows
                    advance(len(rows))
                return

            def counted() -> Iterator[tuple[Array, Array]]:
                for numbers, rows in rows_in_parts(self.parts, self.case_of):
                    yield numbers, rows
                    advance(len(rows))

            n = len(self.cases.ids)
            pooled = pooling.pooled(counted(), n, self.parts[0].matrix.dim, self.request.pool)
        yield np.arange(n), pooled

    def _open(self, split: str, open_files: ExitStack) -> _SplitFile:
        rows, warnings = self._labelled(split), self.cases.warnings
        prints = self._fingerprints(split, rows)
        path = feature_path(self.cache, str(self._facts()["dataset"]), split, self._backbone(), prints["file"])
        writer = open_files.enter_context(
            FeatureWriter.open(
                path,
                rows,
                self._manifest(split, prints, warnings),
                dim=self.dim,
                dtype=self.dtype,
                block_rows=BLOCK_ROWS,
                existing=Existing(),
            )
        )
        return _SplitFile(split, writer, rows.ids, self.dtype, warnings)

    def _labelled(self, split: str) -> LabelledRows[None]:
        """Return the rows of a split in the order in which the embeddings come."""
        cases, rows = self.cases, self.cases.splits[split]
        of_cases = LabelledRows(
            None, cases.labels, cases.groups, cases.ids, {name: list(v) for name, v in cases.columns.items()}
        ).take(rows)
        return instance_rows(of_cases, rows, self.case_of, self.parts) if self.instances else of_cases

    def _backbone(self) -> str:
        return imported_name(self.request.model, self.request.pool)

    def _facts(self) -> dict[str, Any]:
        cases = self.cases
        own = {
            "dataset": self.request.dataset,
            "location": None,
            "task": cases.task,
            "metric": HEADLINE[cases.task],
            "budget_unit": "row",
            "grouping": cases.grouping,
            "licence": "not known (imported)",
        }
        facts = {**own, **self.known.facts()}
        return {**facts, "grouping": facts["grouping"] or "case"} if self.instances else facts

    def _fingerprints(self, split: str, rows: LabelledRows[None]) -> dict[str, str]:
        """Return the fingerprints of a file; `source` is the hash of the imported files' contents."""
        model = {"imported": self.request.model, "revision": REVISION, "dim": self.dim, "pool": self.request.pool}
        if self.request.pool is not None:
            model["pooling"] = pooling.REVISION
        known = None if self.instances else self.known.split_fingerprint(split, self.cases)
        content = {"imported": split, "rows": hash_of(arrays_of(rows))}
        prints = {
            "backbone": digest(model),
            "dataset": self.known.fingerprint(self.cases),
            "split": known or digest(content),
            "source": digest([one["sha256"] for one in self.sources]),
        }
        return {**prints, "file": digest({**prints, "dtype": self.dtype})}

    def _manifest(self, split: str, prints: dict[str, str], warnings: tuple[str, ...]) -> dict[str, Any]:
        pool = self.request.pool
        backbone = {
            "imported": True,
            "name": self.request.model,
            "dim": self.dim,
            "files": self.sources,
            **({"pool": pool} if pool else {}),
        }
        return {
            **self._facts(),
            "split": split,
            "backbone": self._backbone(),
            "class_names": list(self.cases.class_names),
            "fingerprints": prints,
            "inputs": {"backbone": backbone, "dataset": {"drawn": dict(self.cases.drawn)}},
            "limit": None,
            "random_weights": False,
            "compute": {},
            "command": command(self.request),
            "warnings": list(warnings),
            **({"bag": "bag"} if self.instances else {}),
        }

    def _refuse_bad(self, files: Sequence[_SplitFile]) -> None:
        """Refuse NaN and infinite values unless such rows are to be skipped."""
        bad = [name for file in files for name in file.bad]
        if not bad or self.request.skip_bad:
            return
        total = sum(file.writer.n_rows for file in files)
        raise InputError(
            f"{len(bad):,} of {total:,} embeddings hold NaN or infinite values (in {self.dtype}): {some(bad)}. "
            "Correct them, or skip these rows: --on-error skip"
        )


class _SplitFile:
    """One split's file: takes any number of rows at a time and writes complete blocks."""

    def __init__(
        self, split: str, writer: FeatureWriter, ids: Sequence[str], dtype: str, warnings: tuple[str, ...]
    ) -> None:
        self.split, self.writer, self.ids, self.dtype, self.warnings = split, writer, ids, dtype, warnings
        self.bad: list[str] = []
        self._missing = set(writer.missing)
        self._waiting: list[Array] = []
        self._n_waiting, self._block = 0, 0

    def take(self, rows: Array) -> None:
        """Take the next rows, and write every block that is complete."""
        self._waiting.append(np.asarray(rows))
        self._n_waiting += len(rows)
        size = self.writer.block_rows
        at_end = self._block * size + self._n_waiting == self.writer.n_rows
        if self._n_waiting < size and not at_end:
            return
        whole = np.concatenate(self._waiting)
        while len(whole) >= size or (at_end and len(whole)):
            self._write(whole[:size])
            whole = whole[size:]
        self._waiting, self._n_waiting = [whole], len(whole)

    def _write(self, rows: Array) -> None:
        with np.errstate(over="ignore", invalid="ignore"):
            ok = np.isfinite(rows.astype(self.dtype, copy=False)).all(axis=1)
        if not ok.all():
            start = self._block * self.writer.block_rows
            self.bad += [self.ids[start + row] for row in np.flatnonzero(~ok).tolist()]
        if self._block in self._missing:
            self.writer.write_block(self._block, rows, np.where(ok, Status.OK, Status.UNREADABLE).astype("u1"))
        self._block += 1

    def finish(self) -> Imported:
        path = self.writer.finish()
        return Imported(path, self.split, self.writer.n_rows, self.writer.dim, len(self.bad), self.warnings)


def command(request: ImportRequest) -> str:
    """Return the command that imports the same files again."""
    rules, words = request.rules, ["mt", "cache", "import", *request.files]
    words += ["--dataset", request.dataset, "--model", request.model]
    given: list[tuple[str, Any]] = [("--labels", one) for one in request.labels]
    given += [
        ("--split", request.split),
        ("--key", request.key),
        ("--bag", request.bag),
        ("--pool", request.pool),
        ("--dtype", request.dtype),
        ("--task", rules.task),
        ("--id-column", rules.id_column),
        *(("--label-column", one) for one in rules.label_columns),
        ("--group-column", rules.group_column),
        ("--missing-group", rules.missing_group),
        ("--uncertain", rules.uncertain),
        ("--blank", rules.blank),
        ("--seed", request.seed or None),
        ("--on-error", "skip" if request.skip_bad else None),
    ]
    words += [str(word) for option, value in given if value is not None for word in (option, value)]
    return shlex.join([*words, *(["--shared"] if request.shared else [])])


def _dtype(parts: Sequence[SourceFile]) -> str:
    return "float16" if all(part.matrix.dtype == "float16" for part in parts) else "float32"


def _sources(request: ImportRequest, parts: Sequence[SourceFile]) -> list[dict[str, str]]:
    """Return the name and the sha256 of every file of embeddings."""
    hashes = ContentIndex().sha256_many([part.path for part in parts])
    return [{"name": part.path.name, "sha256": sha256} for part, sha256 in zip(parts, hashes, strict=True)]
