# Everything a newcomer needs: `make demo` and `make test` install what they use into .venv by themselves.
PYTHON ?= python3
VENV ?= .venv
# One torch for everything; installed first, so that no other package pulls a different one.
TORCH ?= torch==2.13.0
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: demo test test-slow test-gpu check fix bench-smoke docs clean

demo: $(VENV)/.core
	@$(BIN)/circius generate demo "What is the capital of France?"

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 -m "not slow and not gpu"

test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m slow

test-gpu: $(VENV)/.dev
	$(BIN)/python -m pytest -m gpu

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -n 2 -m quick

fix: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench-smoke: $(VENV)/.dev
	$(BIN)/python benchmarks/bench_cache_memory.py --lengths 8192 32768

docs: $(VENV)/.dev
	$(BIN)/python -m circius.cli.reference docs/cli.md

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit("circius needs Python 3.11 or newer, this is " + sys.version.split()[0] + ": run make with PYTHON=python3.12, say" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet "$(TORCH)"
	@touch $@

$(VENV)/.core: $(VENV)/.python pyproject.toml
	$(PIP) install --quiet --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.core
	$(PIP) install --quiet --editable ".[dev]"
	@touch $@
