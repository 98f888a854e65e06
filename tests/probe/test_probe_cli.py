"""`mt probe`, in words and in real processes: tables, JSON, errors, concurrency, kills, and a quick second run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from signal import SIGINT

import numpy as np
import pytest
from click.testing import CliRunner, Result

from mt.cli import group
from mt.probe.protocols import PROTOCOLS
from tests.open_stores import open_store
from tests.probe.features import write_features, write_pair

QUICK = ["--protocol", "clip", "--fraction", "0.2", "--fraction", "0.5", "--seeds", "3"]
HEAVY = "import sys; print([m for m in ('torch', 'sklearn', 'scipy', 'h5py', 'timm', 'pandas') if m in sys.modules])"


def run(cache: Path, *arguments: str, **environment: str) -> Result:
    command = ["probe", "--cache-dir", str(cache), *arguments]
    result = CliRunner().invoke(group, command, env={"COLUMNS": "160", **environment})
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def process(cache: Path, *arguments: str, after: str = "") -> subprocess.Popen[str]:
    """Start a real `mt probe`; `after` runs in the same interpreter once it is done."""
    call = ["probe", "--cache-dir", str(cache), *arguments]
    code = f"from mt.cli import main\ntry:\n    main({call!r})\nfinally:\n    {after or 'pass'}\n"
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", code], stdout=pipe, stderr=pipe, text=True)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    for model, signal in (("good", 1.0), ("twin", 1.0), ("bad", 0.0)):
        write_pair(tmp_path, model=model, signal=signal, grouped=True)
    return tmp_path


def test_a_table_a_dataset_with_both_uncertainties_named(cache: Path) -> None:
    write_pair(cache, "grades", task="ordinal", n_classes=3)
    result = run(cache, *QUICK, "--fraction", "1")
    assert result.exit_code == 0
    assert "toy: ROC AUC on 80 test cases" in result.stdout
    assert "grades: quadratic weighted kappa" in result.stdout
    assert "standard deviation over 3 draws" in result.stdout
    assert "{ } 95 % interval of the expected score, over draws and test cases together." in result.stdout
    assert "95 % interval over 20 test groups of cases (Wilson, Obuchowski's or binormal variance)" in result.stdout
    assert "95 % interval over 80 test cases, assumed independent (Fisher's z, linearised variance)" in result.stdout
    assert "(24 labels)" in result.stdout
    (line,) = (line for line in result.stdout.splitlines() if line.split()[:1] == ["bad"])
    assert line.count("±") == 2  # all labels are one draw
    assert line.count("[") == 3


def test_flags_are_words_with_their_names(tmp_path: Path) -> None:
    write_pair(tmp_path)
    shown = run(tmp_path, "--shots", "1", "--seeds", "2").stdout
    assert "All: too few labels to hold any out: C is 1, without a choice (fixed_C)." in shown
    assert "All: cases assumed independent." in shown
    shown = run(tmp_path, "--shots", "1", "--shots", "20", "--seeds", "2").stdout
    assert "a  too few labels to hold any out: C is 1, without a choice (fixed_C): 2 of 4 fits." in shown


def test_the_best_is_bold_and_what_is_level_with_it_is_marked(cache: Path) -> None:
    colours = {"FORCE_COLOR": "1", "TERM": "xterm-256color"}
    lines = run(cache, *QUICK[:4], "--seeds", "5", **colours).stdout.splitlines()
    rows = {name: next(line for line in lines if name in line) for name in ("good", "twin", "bad")}
    assert "=" not in rows["bad"].replace("\x1b[", "")
    bold = [name for name, line in rows.items() if "\x1b[1m0." in line]
    assert len(bold) == 1
    assert bold[0] != "bad"
    assert "=" in rows["twin" if bold == ["good"] else "good"]


def test_no_color_and_narrow_terminals_are_respected(cache: Path) -> None:
    result = run(cache, *QUICK, NO_COLOR="1", FORCE_COLOR="1", COLUMNS="60")
    assert "\x1b[3" not in result.stdout
    assert max(len(re.sub(r"\x1b\[\d*m", "", line)) for line in result.stdout.splitlines()) <= 60
    assert "0." in result.stdout


def test_json_is_one_object_a_score(cache: Path) -> None:
    result = run(cache, *QUICK, "--json")
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(rows) == 3 * 2 * 3
    wanted = {"dataset", "model", "fraction", "seed", "metric", "value", "low", "high", "n_labels", "n_test", "flags"}
    assert all(wanted <= set(row) for row in rows)
    assert "18 fitted" in result.stderr
    assert "18 scores from the store, 0 fitted" in run(cache, *QUICK, "--json").stderr


def test_a_mean_over_labels_comes_with_each_label(tmp_path: Path) -> None:
    write_pair(tmp_path, model="m", task="multilabel", n_classes=3)
    arguments = ["--fraction", "0.5", "--seeds", "1", "--json"]
    for _ in range(2):
        (row,) = map(json.loads, run(tmp_path, *arguments).stdout.splitlines())
        assert list(row["per_class"]) == ["class 0", "class 1", "class 2"]
        assert sum(row["per_class"].values()) / 3 == pytest.approx(row["value"])
    with process(tmp_path, *arguments, after=HEAVY) as again:
        assert again.communicate()[0].splitlines()[-1] == "[]"


def test_a_calibration_error_stands_beside_that_of_a_calibrated_model(tmp_path: Path) -> None:
    write_pair(tmp_path, model="m")
    for _ in range(2):
        text = run(tmp_path, "--fraction", "0.5", "--seeds", "2", "--metric", "ece").stdout
        assert re.search(r"debiased 0\.\d{3} .*\n.*by chance 0\.\d{3} \(0\.\d{3}-0\.\d{3}\)", text)
        assert "by chance: a calibrated model with these probabilities, its mean and 95 % range." in text
        assert "no interval: the expected calibration error is positive by chance alone" in text
    rows = run(tmp_path, "--fraction", "0.5", "--seeds", "2", "--metric", "ece", "--json").stdout.splitlines()
    for row in (one for one in map(json.loads, rows) if "identity" in one):
        low, high = row["if_calibrated_95"]
        assert low < row["if_calibrated"] < high
        assert 0 <= row["debiased"] < row["value"]
        assert row["low"] is row["high"] is None


def test_few_test_units_of_a_class_are_flagged(tmp_path: Path) -> None:
    write_features(tmp_path, model="m")
    labels = np.zeros(80, dtype=np.int64)
    labels[:15] = 1
    write_features(tmp_path, model="m", split="test", n=80, labels=labels)
    text = run(tmp_path, "--fraction", "0.5", "--seeds", "1").stdout
    assert "All: fewer than 20 test cases of the rarest class." in text


def test_a_table_names_the_labels_it_leaves_out_and_the_rows_it_cannot_compare(tmp_path: Path) -> None:
    labels = np.zeros((80, 3), dtype=np.int8)
    labels[:40, 0] = labels[::2, 2] = 1
    for model, n in (("m1", 80), ("m2", 80), ("m3", 60)):
        write_features(tmp_path, model=model, task="multilabel", n_classes=3)
        write_features(tmp_path, model=model, split="test", n=n, task="multilabel", n_classes=3, labels=labels[:n])
    for _ in range(2):  # fitted, then from the store
        text = run(tmp_path, "--fraction", "0.5", "--seeds", "1").stdout
        assert "Omitted from the mean, because the test cases with a known label hold fewer than two" in text
        assert "classes: class 1." in text
        assert "†: not compared, because draws or test cases differ from those of most rows: m3." in text


def test_paired_comparisons(cache: Path) -> None:
    arguments = [*QUICK[:4], "--seeds", "3", "--compare"]
    text = run(cache, *arguments).stdout
    assert "Paired differences" in text
    assert "good - twin" in text
    rows = [json.loads(line) for line in run(cache, *arguments, "--json").stdout.splitlines()]
    pairs = {row["comparison"]: row for row in rows if "comparison" in row}
    assert set(pairs) == {"bad - good", "bad - twin", "good - twin"}
    worse = pairs["bad - good"]
    assert worse["difference"] < 0
    assert worse["high"] < 0
    assert worse["p"] <= worse["p_holm"] < 0.05


def test_protocols_are_listed_in_full(tmp_path: Path) -> None:
    text = run(tmp_path, "--list-protocols").stdout
    for protocol in PROTOCOLS.values():
        assert protocol.name in text
        assert protocol.source in text
        assert protocol.fingerprint[:12] in text
        assert all(deviation in text for deviation in protocol.deviations)
        assert ", ".join(f"{C:g}" for C in getattr(protocol.method, "Cs", ())) in text
    rows = [json.loads(line) for line in run(tmp_path, "--list-protocols", "--json").stdout.splitlines()]
    assert [row["name"] for row in rows] == list(PROTOCOLS)


def test_an_empty_cache_is_one_line_and_status_1(tmp_path: Path) -> None:
    with process(tmp_path) as failed:
        out, err = failed.communicate()
    assert (failed.returncode, out) == (1, "")
    assert "mt featurize --model dino --dataset pcam" in err
    assert "Traceback" not in err


def test_a_run_from_the_store_imports_nothing_heavy(cache: Path) -> None:
    run(cache, *QUICK)
    with process(cache, *QUICK, after=HEAVY) as again:
        out, err = again.communicate()
    assert again.returncode == 0, err
    assert out.splitlines()[-1] == "[]"


def test_nothing_but_results_on_stdout(cache: Path) -> None:
    with process(cache, *QUICK, "--json") as started:
        out, _ = started.communicate()
    assert all(line.startswith("{") for line in out.splitlines())


@pytest.mark.slow
def test_concurrent_processes_lose_and_double_no_row(cache: Path) -> None:
    started = [process(cache, *QUICK, "--json") for _ in range(3)]
    outputs = [each.communicate() for each in started]
    assert [each.returncode for each in started] == [0] * 3, outputs
    keys = ("model", "fraction", "seed", "value")
    printed = [{tuple(json.loads(line)[key] for key in keys) for line in out.splitlines()} for out, _ in outputs]
    assert printed[0] == printed[1] == printed[2]
    scores = open_store(cache / "scores.sqlite").scores()
    assert len(scores) == 18
    assert max(Counter((s.model, s.fraction, s.seed) for s in scores).values()) == 1


@pytest.mark.slow
def test_a_kill_loses_nothing_that_was_scored(cache: Path) -> None:
    store = open_store(cache / "scores.sqlite")
    with process(cache, *QUICK[:4], "--seeds", "200") as started:
        while started.poll() is None and len(store.scores()) < 5:
            pass
        started.kill()
    kept = len(open_store(cache / "scores.sqlite").scores())
    assert kept >= 5
    with process(cache, *QUICK[:4], "--seeds", "3") as again:
        _, err = again.communicate()
    assert again.returncode == 0, err
    assert "scores from the store" in err
    assert "0 scores from the store" not in err


@pytest.mark.slow
def test_ctrl_c_says_what_is_kept_and_the_same_command_goes_on(cache: Path) -> None:
    store = open_store(cache / "scores.sqlite")
    with process(cache, *QUICK[:4], "--seeds", "200") as started:
        while started.poll() is None and len(store.scores()) < 5:
            pass
        started.send_signal(SIGINT)
        out, err = started.communicate()
    assert (started.returncode, out) == (130, "")
    said = re.search(r"(\d+) of 600 fits are kept\. Run the same command again", " ".join(err.split()))
    assert said is not None
    kept = int(said[1])
    assert "Traceback" not in err
    scored = {score.fit for score in store.scores()}
    assert len(store.has_fits(scored)) == len(scored)
    assert kept - len(scored) in (0, 1)  # the last may be kept before it is scored
    assert kept >= 5


def test_labels_of_the_validation_split_are_counted_in_the_table(tmp_path: Path) -> None:
    write_pair(tmp_path)
    write_features(tmp_path, split="val", n=40)
    text = run(tmp_path, "--fraction", "0.5", "--seeds", "1", "--select", "val").stdout
    assert "(100 labels)" in text
    assert "chosen on: val" in text


def test_scores_can_be_kept_elsewhere(cache: Path, tmp_path: Path) -> None:
    run(cache, *QUICK, "--scores", str(tmp_path / "mine.sqlite"))
    run(cache, *QUICK, MT_SCORES=str(tmp_path / "yours.sqlite"))
    assert not (cache / "scores.sqlite").exists()
    for name in ("mine", "yours"):
        assert len(open_store(tmp_path / f"{name}.sqlite").scores()) == 18


def test_subgroups_have_tables_of_their_own(cache: Path) -> None:
    write_features(cache, model="good", split="test", n=80, columns={"sex": ["F", "M"] * 40})
    text = run(cache, *QUICK, "--model", "good", "--by", "sex").stdout
    assert "toy, sex = F: ROC AUC on 40 test cases" in text
    assert "toy, sex = M: ROC AUC on 40 test cases" in text


def test_a_wrong_name_suggests_the_right_one(cache: Path) -> None:
    with process(cache, "--protocol", "cliip") as failed:
        _, err = failed.communicate()
    assert failed.returncode == 1
    assert "Did you mean 'clip'? See: mt probe --list-protocols" in " ".join(err.split())
    assert os.linesep.join(err.splitlines()[1:]) == ""
