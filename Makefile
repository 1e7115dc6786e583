# Every target that needs it makes .venv and installs the tested versions; a second call finds that done.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt
CODE := $(wildcard hf_invertune tests examples benchmarks mkdocs_hooks)

.DEFAULT_GOAL := help
.PHONY: help bench demo docs test test-slow lint format clean

help:  ## Say what the targets are
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed-test: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP_INSTALL) -e ".[test]"
	@touch $@

$(VENV)/.installed-quality: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP_INSTALL) -e ".[test,quality]"
	@touch $@

$(VENV)/.installed-docs: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP_INSTALL) -e ".[docs]"
	@touch $@

demo: $(VENV)/.installed-test  ## Find and remove a backdoor in a small CLIP, with no network; the report goes to audit-demo/
	$(BIN)/hf-invertune demo --output-dir audit-demo --overwrite

# One thread a worker: two workers with two threads each would fight over two cores.
test: $(VENV)/.installed-test  ## Run the tests, with coverage of at least 90 %
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --cov --cov-report=term-missing:skip-covered --cov-fail-under=90

test-slow: $(VENV)/.installed-test  ## Run the tests that take minutes
	$(BIN)/python -m pytest -m slow

bench: $(VENV)/.installed-test  ## Time the inner loops against bare passes, and fill the tables of docs/performance.md
	$(BIN)/python benchmarks/performance.py
	$(BIN)/python benchmarks/timings.py
	$(BIN)/python benchmarks/tables.py

docs: $(VENV)/.installed-docs  ## Build the documentation in site/; a broken link or a missing name is an error
	$(BIN)/mkdocs build --strict --quiet

lint: $(VENV)/.installed-quality  ## Check style and types
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy

format: $(VENV)/.installed-quality  ## Put the code in the project's style
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

clean:  ## Delete what the other targets made, but for .venv
	rm -rf audit-demo build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .coverage .coverage.*
	find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +
