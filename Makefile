# Everything a fresh clone needs: Python 3.11, make and git. `make run` shows the pipeline, `make test` proves it.

PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: run test lint clean

# Everything in one virtual environment, pinned by constraints.txt; made again when either file changes.
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,dvc]'
	touch $@

run: $(VENV)/installed
	@PATH="$(CURDIR)/$(BIN):$$PATH" DVC_NO_ANALYTICS=1 $(BIN)/dvc repro

test: $(VENV)/installed
	$(BIN)/python -m pytest

# mypy finds the three folders under their import name through links, as an installed package would.
lint: $(VENV)/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	mkdir -p build/types/tinyhd_pipe
	for folder in store stages pipeline; do ln -sfn ../../../$$folder build/types/tinyhd_pipe/$$folder; done
	MYPYPATH=build/types $(BIN)/mypy -p tinyhd_pipe
	$(BIN)/lint-imports --no-logo 2>/dev/null || $(BIN)/lint-imports

clean:
	rm -rf $(VENV) build data runs .dvc/tmp .dvc/cache dvc.lock
