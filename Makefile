.PHONY: help setup demo test check fix
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin

help:   ## list the targets
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed 's/:.*## */\t/'
setup: $(VENV)/ready  ## create .venv and install rf with everything that its tests need
$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@
demo: setup  ## render with the embedded model, sparse, and print the tables
	mkdir -p out
	$(BIN)/rf generate "a large red circle moving right over a blue background" --seed 1 --sparsity 0.8 --output out/demo.mp4 --overwrite
test: setup  ## everything that runs without a GPU
	OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile
check: setup  ## read-only: lint, format, types
	$(BIN)/python -m ruff check . && $(BIN)/python -m ruff format --check . && $(BIN)/python -m mypy
fix: setup  ## the same, but rewrite the files
	$(BIN)/python -m ruff check --fix . && $(BIN)/python -m ruff format .
