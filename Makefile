# Each target makes .venv and installs what it needs by itself. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/.stamps

# Spinning OpenMP threads cost a busy machine far more than they win an idle one.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: help setup demo test golden catalogue faults kills processes cluster mutants wheel check docs clean
.DEFAULT_GOAL := help

help:
	@echo "make demo   four short lessons on embedded digits, and the page runs/demo/report.html"
	@echo "make test   the tests (no network, no data needed; UNFOOL_DATA_DIR adds those on real data)"
	@echo "make golden the demos of all studies against the rows in tests/golden (minutes)"
	@echo "make catalogue  what unfool study --help says of each study, written anew from the studies"
	@echo "make faults a minute of hostile inputs: none may end in a traceback, above 1 GiB or after 10 s"
	@echo "make kills  kill -9 at random moments and inside writes: nothing is lost, nothing is different (minutes)"
	@echo "make processes  training in two processes against training in one, step by step in float64 (minutes)"
	@echo "make cluster  studies and jobs on three nodes of a Ray cluster on this machine, some of which are killed (a minute)"
	@echo "make mutants  small bugs, planted one at a time: how many of them a test finds (half an hour)"
	@echo "make wheel  wheel and sdist, in dist: complete, and what the README says works with the wheel alone (a minute)"
	@echo "make check  ruff, pyright, and the test that no import points up the layers"
	@echo "make docs   the documentation, in build/docs; a warning or a broken link fails"
	@echo "make setup  everything, with the dev and bench extras"
	@echo "make clean  remove .venv and runs/"

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(STAMPS)/run: $(BIN)/python pyproject.toml
	@echo "Installing unfool and PyTorch into $(VENV), once; this takes some minutes."
	$(BIN)/pip install --quiet -e .
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/dev: $(BIN)/python pyproject.toml
	$(BIN)/pip install --quiet -e '.[dev]'
	@mkdir -p $(STAMPS) && touch $@ $(STAMPS)/run

$(STAMPS)/bench: $(BIN)/python pyproject.toml
	$(BIN)/pip install --quiet -e '.[dev,bench]'
	@mkdir -p $(STAMPS) && touch $@ $(STAMPS)/dev $(STAMPS)/run

$(STAMPS)/docs: $(BIN)/python pyproject.toml
	$(BIN)/pip install --quiet -e '.[docs]'
	@mkdir -p $(STAMPS) && touch $@ $(STAMPS)/run

# Both at once: pip solves for all packages anew each time.
$(STAMPS)/ci: $(BIN)/python pyproject.toml
	$(BIN)/pip install --quiet -e '.[dev,docs]'
	@mkdir -p $(STAMPS) && touch $@ $(STAMPS)/dev $(STAMPS)/docs $(STAMPS)/run

setup: $(STAMPS)/bench

demo: $(STAMPS)/run
	$(BIN)/unfool demo --out runs/demo

# With WHICH='-m "not cluster"' the demos of all studies beside them: a demo uses all cores, a test one.
test: $(STAMPS)/dev
	$(BIN)/python -m pytest -n 2 $(WHICH)

golden: $(STAMPS)/dev
	$(BIN)/python -m pytest -n 2 -m golden tests/golden

catalogue: $(STAMPS)/dev
	$(BIN)/python tests/cli/study_catalogue.py

faults: $(STAMPS)/dev
	$(BIN)/python benchmarks/faults.py --seconds 60

kills: $(STAMPS)/dev
	$(BIN)/python benchmarks/kills.py

processes: $(STAMPS)/dev
	$(BIN)/python benchmarks/processes.py

cluster: $(STAMPS)/dev
	$(BIN)/python -m pytest -m cluster tests/cluster

mutants: $(STAMPS)/dev
	$(BIN)/python benchmarks/mutants.py

wheel: $(STAMPS)/dev
	$(BIN)/python benchmarks/packages.py --keep dist

check: $(STAMPS)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/python -m pytest -q tests/core/test_layers.py

docs: $(STAMPS)/docs
	$(BIN)/sphinx-build -q -W --keep-going -b html docs build/docs
	@echo "build/docs/index.html"

clean:
	rm -rf $(VENV) runs
