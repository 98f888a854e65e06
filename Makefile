# Two commands: `make demo` sets up and does the main job, `make test` sets up and proves everything.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# A worker a core, and a thread a worker: most tests are too small to share a core's work.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist worksteal

.PHONY: demo test test-fast oldest pytest coverage lint wheel bench docs clean

demo: $(VENV)/.demo
	@$(BIN)/mt demo

test: lint wheel pytest

test-fast: $(VENV)/.test
	$(PYTEST) -m "not slow"

# The wheel and every test with the oldest versions.  Not mypy: numpy 1.26 has other type stubs than numpy 2.
oldest:
	PIP_CONSTRAINT=$(CURDIR)/oldest.txt $(MAKE) VENV=.venv-oldest wheel pytest

pytest: $(VENV)/.test
	$(PYTEST)

coverage: $(VENV)/.test
	$(PYTEST) --cov --cov-config=pyproject.toml --cov-report=term

lint: $(VENV)/.test
	$(BIN)/ruff check mt tests benchmarks docs
	$(BIN)/ruff format --check mt tests benchmarks docs
	$(BIN)/codespell mt tests benchmarks docs .github *.md *.cfg *.toml
	$(BIN)/python tests/check_words.py
	$(BIN)/mypy

wheel: $(VENV)/.test
	$(BIN)/python tests/prove_wheel.py

bench: $(VENV)/.test
	@$(BIN)/python -m benchmarks

docs: $(VENV)/.test
	$(BIN)/python docs/generate_cli.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# One stamp per set of extras; a finished install is not repeated until the metadata changes.
$(VENV)/.demo: setup.cfg pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[offline]'
	@touch $@

$(VENV)/.test: setup.cfg pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[offline,dicom,hub,test,dev]'
	@touch $@

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

clean:
	rm -rf $(VENV) .venv-oldest build dist *.egg-info
