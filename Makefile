# Two commands on a fresh machine with Python >= 3.11 and make: `make demo` and `make test`.
# Each makes its own .venv and installs into it once, under the pinned versions of constraints.txt.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable

.DEFAULT_GOAL := help
.PHONY: help demo test test-all lint audit format clean

help: ## Show what can be made
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 18

demo: $(VENV)/.installed ## Tune, judge and report a tiny model on this machine
	@$(BIN)/whet demo

test: $(VENV)/.installed-dev ## Run the test suite, a process for each core
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal

test-all: $(VENV)/.installed-dev ## Run the test suite with the slow tests
	@$(BIN)/python -m pytest -m "slow or not slow"

lint: $(VENV)/.installed-dev ## Check style and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

audit: $(VENV)/.installed-dev ## Look the pinned versions up among known vulnerabilities
	@$(BIN)/python scripts/audit_dependencies.py

format: $(VENV)/.installed-dev ## Format the code
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

clean: ## Remove the virtual environment and caches; runs/ stays
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "whet needs Python 3.11 or newer; call: make PYTHON=python3.12 ..."; exit 2; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing whet into $(VENV) (a minute or two, once)"
	@$(INSTALL) .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing whet and its test tools into $(VENV) (a minute or two, once)"
	@$(INSTALL) '.[dev]'
	@touch $@ $(VENV)/.installed
