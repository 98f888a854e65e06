"""`mt cache`: wording, JSON, exit status and what it does to files."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from mt import cli
from mt.cache import open_features
from mt.errors import CacheError, InputError, MissingExtraError, MtError
from mt.system.files import megabytes
from mt.types import LabelledRows
from tests.cache import samples
from tests.cache.test_catalog import put
from tests.probe.features import write_features


def mt(cache: Path, command: str, *arguments: object, fails: type[MtError] | None = None, **options: Any) -> Result:
    """Run `mt cache COMMAND` on a cache folder."""
    parts = [str(part) for part in ("cache", command, *arguments, "--cache-dir", cache)]
    result = CliRunner().invoke(cli.group, parts, **options)
    if fails is not None:
        assert isinstance(result.exception, fails), result.output
    elif result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def lines(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def read_csv(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def two_files(cache: Path) -> str:
    return megabytes(sum(path.stat().st_size for path in cache.glob("*/test/*.h5")))


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 4
    path.write_bytes(content)


def embeddings_of(path: Path) -> int:
    return path.stat().st_size - samples.N * samples.DIM * 4


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Two complete files, and one each that is superseded, limited, random, incomplete."""
    folder = tmp_path / "cache"
    put(folder, fingerprint="a" * 64, age=100)
    put(folder, fingerprint="b" * 64)
    put(folder, fingerprint="c" * 64, split="test")
    put(folder, fingerprint="d" * 64, split="test", limit=5)
    put(folder, fingerprint="e" * 64, random_weights=True)
    put(folder, fingerprint="0" * 64, backbone="swav", partial=True)
    return folder


class TestList:
    def test_it_shows_what_is_used_and_counts_the_rest(self, cache: Path) -> None:
        result = mt(cache, "list")
        size = megabytes(next(cache.glob("*/*/*.h5")).stat().st_size).split()
        assert [line.split() for line in result.stdout.splitlines()] == [
            ["dataset", "split", "model", "rows", "dim", "size", "state"],
            ["folder:moles", "test", "dino", "11", "160", *size, "1", "skipped"],
            ["folder:moles", "train", "dino", "11", "160", *size, "1", "skipped"],
            ["folder:moles", "train", "swav", "11", "160", *size, "incomplete"],
        ]
        assert "3 superseded, limited or random-weight files not taken. Take them: --everything" in result.stderr

    @pytest.mark.parametrize("option", ["--everything", "--all"])
    def test_all_shows_everything(self, cache: Path, option: str) -> None:
        result = mt(cache, "list", option, "--model", "dino")
        assert all(word in result.stdout for word in ("superseded", "limited", "random"))
        assert len(result.stdout.splitlines()) == 6

    def test_json(self, cache: Path) -> None:
        first, *_ = lines(mt(cache, "list", "--json"))
        assert first.items() >= {"dataset": "folder:moles", "split": "test", "model": "dino", "rows": 11}.items()
        assert first["fingerprints"]["file"] == "c" * 64

    def test_an_empty_cache_says_what_to_do(self, tmp_path: Path) -> None:
        result = mt(tmp_path / "none", "list")
        assert result.stdout == ""
        assert "mt featurize" in result.stderr

    def test_an_unknown_name_is_an_error(self, cache: Path) -> None:
        result = mt(cache, "list", "--dataset", "pcam", fails=InputError)
        assert str(result.exception).startswith(f"No feature file for pcam in {cache}")

    def test_a_damaged_file_stops_nothing(self, cache: Path) -> None:
        flip(next(cache.glob("*/train/dino-bbbb*.h5")), 100)
        result = mt(cache, "list")
        assert "damaged" in result.stdout
        assert len(result.stdout.splitlines()) >= 4

    def test_names_hold_no_markup(self, tmp_path: Path) -> None:
        put(tmp_path, dataset="folder:[bold]x[/bold]")
        assert "folder:[bold]x[/bold]" in mt(tmp_path, "list").stdout


class TestInfo:
    def test_it_says_all_that_the_file_says(self, cache: Path) -> None:
        path = next(cache.glob("*/test/dino-cccc*.h5"))
        shown = mt(cache, "info", path).stdout
        for part in (
            str(path),
            "ok 10, truncated 1",
            "benign 6, malignant 4",
            "age, site/view",
            "CC0",
            "device cpu",
            "mt featurize --model dino --dataset folder:moles",
            "c" * 64,
            "roc_auc",
        ):
            assert part in shown

    def test_json_holds_the_manifest(self, cache: Path) -> None:
        (found,) = lines(mt(cache, "info", "--split", "test", "--model", "dino", "--json"))[:1]
        assert found["manifest"]["task"] == "binary"
        assert found["status"] == {"ok": 10, "truncated": 1}
        assert found["classes"] == {"benign": 6, "malignant": 4}
        assert found["groups"] == 6

    def test_missing_labels_are_not_counted(self, tmp_path: Path) -> None:
        labels = np.array([[1, -1], [0, -1], [1, 1], [0, 0]], dtype=np.int8)
        write_features(tmp_path, n=4, task="multilabel", labels=labels)
        (found,) = lines(mt(tmp_path, "info", "--json"))
        assert found["classes"] == {"class 0": 2, "class 1": 1}

    def test_incomplete_and_damaged_files_are_shown_too(self, cache: Path) -> None:
        assert "missing 7" in mt(cache, "info", "--model", "swav").stdout
        path = next(cache.glob("*/test/dino-cccc*.h5"))
        flip(path, 300)
        assert "disagree with their checksum" in mt(cache, "info", path).stdout

    def test_a_path_that_is_not_there_is_an_error(self, cache: Path) -> None:
        mt(cache, "info", cache / "none.h5", fails=InputError)


class TestTaken:
    """Commands take the same files: by default none that is superseded, limited or of random weights."""

    @pytest.mark.parametrize("command", ["list", "info", "verify", "export"])
    @pytest.mark.parametrize("named", [[], ["--dataset", "folder:moles", "--model", "dino"]], ids=["all", "named"])
    def test_all_of_them_agree_and_everything_widens_them(
        self, cache: Path, tmp_path: Path, command: str, named: list[str]
    ) -> None:
        out = ["--out", str(tmp_path / "out")] if command == "export" else []
        taken = []
        for wide in ([], ["--everything"]):
            found = lines(mt(cache, command, *named, *wide, *out, "--json"))
            files = {Path(one.get("source", one["path"])) for one in found}
            taken.append({path.stem.rpartition("-")[2][0] for path in files if path.suffix == ".h5"})
        assert taken == [{"b", "c"}, {"a", "b", "c", "d", "e"}]

    def test_a_file_that_is_named_is_taken(self, cache: Path) -> None:
        (path,) = cache.glob("*/*/*-aaaaaaaaaaaa.h5")
        assert [one["path"] for one in lines(mt(cache, "info", path, "--json"))] == [str(path)]

    @pytest.mark.parametrize("form", ["npy", "csv"])
    def test_several_files_never_go_to_a_folder_that_is_called_like_a_file(
        self, cache: Path, tmp_path: Path, form: str
    ) -> None:
        out = tmp_path / f"x.{form}"
        found = mt(cache, "export", "--model", "dino", "--format", form, "--out", out, fails=InputError)
        assert str(found.exception).startswith(f"--out {out} names one {form} file, and 2 feature files match.")
        assert not out.exists()


class TestVerify:
    def test_sound_files_pass(self, cache: Path) -> None:
        result = mt(cache, "verify", "--everything")
        assert result.exit_code == 0
        assert result.stdout.count("ok ") == 6
        assert "(1 of 3 blocks are there)" in result.stdout
        assert "6 files verified, 0 damaged." in result.stderr

    def test_damaged_rows_are_named_and_the_exit_status_is_one(self, cache: Path) -> None:
        path = next(cache.glob("*/test/dino-cccc*.h5"))
        flip(path, embeddings_of(path))
        result = mt(cache, "verify", "--everything")
        assert result.exit_code == 1
        assert f"damaged  {path}\n         rows 0 to 3 (block 0): bild-é0.png, bild-é1.png" in result.stdout
        assert "6 files verified, 1 damaged." in result.stderr
        (found,) = lines(mt(cache, "verify", path, "--json"))
        assert not found["ok"]
        assert found["damaged"][0]["ids"] == [f"bild-é{row}.png" for row in range(4)]

    @pytest.mark.parametrize("at", [0, 9, 300, 511, 700, 4000])
    def test_damage_elsewhere_fails_too(self, cache: Path, at: int) -> None:
        path = next(cache.glob("*/test/dino-cccc*.h5"))
        flip(path, at)
        result = mt(cache, "verify", path)
        assert result.exit_code == 1
        assert result.stdout.startswith(f"damaged  {path}")

    def test_damage_in_an_incomplete_file_is_found(self, cache: Path) -> None:
        path = next(cache.glob("*/train/swav-*.partial"))
        flip(path, embeddings_of(path))
        assert mt(cache, "verify", path).exit_code == 1

    def test_the_command_itself_exits_with_one(self, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = next(cache.glob("*/test/dino-cccc*.h5"))
        flip(path, 700)
        with pytest.raises(SystemExit) as exited:
            cli.main(["cache", "verify", "--cache-dir", str(cache)])
        assert exited.value.code == 1
        assert "Traceback" not in capsys.readouterr().err


class TestRemove:
    def test_it_asks(self, cache: Path) -> None:
        result = CliRunner().invoke(
            cli.group, ["cache", "remove", "--split", "test", "--cache-dir", str(cache)], input="n\n"
        )
        assert result.exit_code == 1
        assert f"Remove 2 files ({two_files(cache)})?" in result.stderr
        assert len(list(cache.glob("*/test/*.h5"))) == 2

    def test_yes_removes_files_locks_and_empty_folders(self, cache: Path) -> None:
        freed = two_files(cache)
        result = mt(cache, "remove", "--split", "test", "--yes")
        assert f"2 files removed, {freed} freed." in result.stderr
        assert not list(cache.glob("*/test"))
        assert len(list(cache.glob("*/train/*.h5"))) == 3

    def test_json_tells_what_is_gone(self, cache: Path) -> None:
        paths = {str(path) for path in cache.glob("*/test/*.h5")}
        printed = lines(mt(cache, "remove", "--split", "test", "--yes", "--json"))
        assert {line["path"] for line in printed} == paths
        assert all(line["removed"] and line["split"] == "test" for line in printed)

    def test_nothing_is_removed_without_being_named(self, cache: Path) -> None:
        mt(cache, "remove", "--yes", fails=InputError)

    def test_a_damaged_file_can_be_removed_but_no_other_program_s(self, cache: Path, tmp_path: Path) -> None:
        path = next(cache.glob("*/test/dino-cccc*.h5"))
        flip(path, 0)
        mt(cache, "remove", path, "--yes")
        assert not path.exists()
        (tmp_path / "thesis.h5").write_bytes(b"years of work")
        mt(cache, "remove", tmp_path / "thesis.h5", "--yes", fails=CacheError)
        assert (tmp_path / "thesis.h5").exists()

    def test_a_file_that_is_being_written_stays(self, cache: Path) -> None:
        path = next(cache.glob("*/train/swav-*.partial"))
        options = {"manifest": samples.manifest(backbone="swav", fingerprints=_fingerprints("0"))}
        with samples.open_writer(path.with_suffix(".h5"), **options):
            result = mt(cache, "remove", "--model", "swav", "--yes")
            printed = lines(mt(cache, "remove", "--model", "swav", "--yes", "--json"))
        assert [(line["model"], line["removed"]) for line in printed] == [("swav", False)]
        assert path.exists()
        assert "is being written by process" in result.stderr
        assert "0 files removed" in result.stderr


def _fingerprints(letter: str) -> dict[str, str]:
    fingerprints: dict[str, str] = samples.manifest()["fingerprints"]
    return fingerprints | {"file": letter * 64}


class TestPrune:
    def test_a_dry_run_only_says(self, cache: Path) -> None:
        before = sorted(cache.rglob("*"))
        result = mt(cache, "prune", "--dry-run")
        reasons = [line.rsplit("(")[1] for line in result.stdout.splitlines()]
        assert reasons == ["limited)", "superseded)", "random)"]
        assert sorted(cache.rglob("*")) == before

    def test_it_removes_what_is_left_out_and_what_kills_left(self, cache: Path) -> None:
        train = next(cache.glob("*/train"))
        (train / "swav-111111111111.tmp").write_bytes(b"half")
        (train / "gone-111111111111.h5.lock").write_bytes(b"")
        assert {line["removed"] for line in lines(mt(cache, "prune", "--dry-run", "--json"))} == {False}
        assert {line["removed"] for line in lines(mt(cache, "prune", "--json"))} == {True}
        kept = sorted(path.name for path in cache.rglob("*") if path.is_file())
        names = ("dino-bbbbbbbbbbbb.h5", "dino-cccccccccccc.h5", "swav-000000000000.partial")
        locks = [f"{name.removesuffix('.h5').removesuffix('.partial')}.h5.lock" for name in names]
        assert kept == sorted([*names, *locks])
        assert mt(cache, "prune", "--json").stdout == ""


class TestExport:
    @pytest.fixture
    def source(self, cache: Path) -> Path:
        return next(cache.glob("*/test/dino-cccc*.h5"))

    def test_npy(self, cache: Path, source: Path, tmp_path: Path) -> None:
        result = mt(cache, "export", source, "--out", tmp_path / "out" / "x.npy")
        assert result.stdout.splitlines() == [str(tmp_path / "out" / "x.npy"), str(tmp_path / "out" / "x.rows.csv")]
        features = open_features(source)
        assert np.array_equal(np.load(tmp_path / "out" / "x.npy"), features.embeddings)
        table = read_csv(tmp_path / "out" / "x.rows.csv")
        assert [row["id"] for row in table] == features.ids
        assert [int(row["label"]) for row in table] == features.labels.tolist()
        assert table[0].keys() == {"id", "label", "group", "age", "site/view"}
        assert "1 row without an embedding omitted" in result.stderr

    def test_csv_keeps_every_bit(self, cache: Path, source: Path, tmp_path: Path) -> None:
        mt(cache, "export", source, "--format", "csv", "--out", tmp_path / "x.csv")
        table = read_csv(tmp_path / "x.csv")
        numbers = np.array([[row[f"f{at}"] for at in range(samples.DIM)] for row in table]).astype("f4")
        assert np.array_equal(numbers, open_features(source).embeddings)

    def test_parquet(self, cache: Path, source: Path, tmp_path: Path) -> None:
        parquet = pytest.importorskip("pyarrow.parquet")
        mt(cache, "export", source, "--format", "parquet", "--out", tmp_path / "x.parquet")
        table = parquet.read_table(tmp_path / "x.parquet")
        features = open_features(source)
        assert table.column("id").to_pylist() == features.ids
        assert table.column("label").to_pylist() == features.labels.tolist()
        assert np.array_equal(np.array(table.column("embedding").to_pylist(), "f4"), features.embeddings)

    def test_several_labels_have_a_column_each(self, tmp_path: Path) -> None:
        manifest = samples.manifest(task="multilabel", class_names=["edema", "mass"])
        rows = LabelledRows(None, np.tile([[0, 1]], (samples.N, 1)), ids=samples.rows().ids)
        path = samples.write(tmp_path / "x" / "train" / "dino-0.h5", manifest=manifest, rows=rows)
        mt(tmp_path, "export", path, "--out", tmp_path / "x.npy")
        assert (tmp_path / "x.rows.csv").read_text().splitlines()[:2] == [
            "id,label_edema,label_mass",
            "bild-é0.png,0,1",
        ]

    def test_several_files_go_into_a_folder(self, cache: Path, tmp_path: Path) -> None:
        result = mt(cache, "export", "--out", tmp_path / "out", "--json")
        assert [Path(line["path"]).name for line in lines(result)] == [
            f"folder-moles-0719e081-{part}.{end}"
            for part in ("test-dino-cccccccccccc", "train-dino-bbbbbbbbbbbb")
            for end in ("npy", "rows.csv")
        ]

    def test_without_pyarrow_it_says_what_to_install(
        self, cache: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        arguments = (source, "--format", "parquet", "--out", tmp_path / "x.parquet")
        result = mt(cache, "export", *arguments, fails=MissingExtraError)
        assert "pip install pyarrow" in str(result.exception)
        assert list(tmp_path.glob("*x.parquet*")) == []

    def test_a_damaged_file_is_not_exported(self, cache: Path, source: Path, tmp_path: Path) -> None:
        flip(source, embeddings_of(source))
        result = mt(cache, "export", source, "--out", tmp_path / "x.npy", fails=CacheError)
        assert "rows 0 to 3" in str(result.exception)
        assert not (tmp_path / "x.npy").exists()

    def test_an_incomplete_file_is_not_exported(self, cache: Path, tmp_path: Path) -> None:
        result = mt(cache, "export", "--model", "swav", "--out", tmp_path / "x.npy", fails=CacheError)
        assert "Finish it with: mt featurize" in str(result.exception)
