# Everything a fresh clone needs: Python 3.11, make and git. `make run` shows the pipeline, `make test` proves it.

PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: run figures test lint clean

PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt

# One virtual environment, pinned by constraints.txt; brought up to date when either file changes.
$(VENV)/bin/dvc: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) --editable '.[dvc]'
	touch $@

$(VENV)/bin/pytest: $(VENV)/bin/dvc
	$(PIP) --editable '.[dev,dvc]'
	touch $@

run: $(VENV)/bin/dvc
	@PATH="$(CURDIR)/$(BIN):$$PATH" dvc repro

# Hold what `make run` measured against what README promises.
figures: run
	$(BIN)/python .ci/figures.py runs/evaluation/metrics.json

test: $(VENV)/bin/pytest
	$(BIN)/python -m pytest

# mypy finds the three folders under their import name through links, as an installed package would.
lint: $(VENV)/bin/pytest
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	mkdir -p build/types/tinyhd_pipe
	for folder in store stages pipeline; do ln -sfn ../../../$$folder build/types/tinyhd_pipe/$$folder; done
	MYPYPATH=build/types $(BIN)/mypy -p tinyhd_pipe
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) build data runs .dvc/tmp .dvc/cache dvc.lock
