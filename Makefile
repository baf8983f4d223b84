# Everything a fresh clone needs: Python 3.11 or newer, make and git. `make run` shows the pipeline, `make test` proves it.

# The pins were made with 3.11; any later Python will do where it is missing.
PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3.13 python3.14 python3 python,\
	$(shell $(name) -c 'import sys, venv, ensurepip; sys.version_info >= (3, 11) and print("$(name)")' 2>/dev/null)))
VENV   := .venv
BIN    := $(VENV)/bin
IMPORT := build/import

.PHONY: run figures test lint docs clean

PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt

# One virtual environment, pinned by constraints.txt; brought up to date when either file changes. The three folders are
# found under their import name through links, by Python and by every editor and type checker that reads `.pth` files.
$(VENV)/bin/dvc: pyproject.toml constraints.txt
	@test -n '$(PYTHON)' || { echo 'make: no Python from 3.11 on with venv and pip was found; install one (Debian: python3-venv), or name it: make PYTHON=/path/to/python' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) --editable '.[dvc]'
	mkdir -p $(IMPORT)/tinyhd_pipe
	for folder in store stages pipeline; do ln -sfn ../../../$$folder $(IMPORT)/tinyhd_pipe/$$folder; done
	echo '$(CURDIR)/$(IMPORT)' > "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/tinyhd_pipe_checkout.pth"
	touch $@

$(VENV)/bin/pytest: $(VENV)/bin/dvc
	$(PIP) --editable '.[dev,dvc]'
	touch $@

# DVC compares runs through git, and where there is none it stops unless told so. It is told in a file that git ignores,
# which holds for `dvc` typed by hand from then on, and is told otherwise once there is git.
run: $(VENV)/bin/dvc
	@no_scm=$$(git rev-parse --git-dir >/dev/null 2>&1 && echo false || echo true); \
	if $$no_scm || test -e .dvc/config.local; then $(BIN)/dvc config --quiet --local core.no_scm $$no_scm; fi
	@PATH="$(CURDIR)/$(BIN):$$PATH" dvc repro
	@echo 'the page of this run, for any browser: $(CURDIR)/runs/report.html'

# Hold what `make run` measured against what README promises.
figures: run
	$(BIN)/python .ci/figures.py runs/evaluation/metrics

# Two files at a time, each in one thread, which takes half as long as one after another in two. A process that dies ends
# the suite: were it replaced, its file would be waited for without end.
test: $(VENV)/bin/pytest
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --max-worker-restart 0

lint: $(VENV)/bin/pytest
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy -p tinyhd_pipe
	$(BIN)/lint-imports --no-logo

# Pages that are made from the code.
docs: $(VENV)/bin/dvc
	$(BIN)/python docs/make_pages.py

# All but the figures that git has.
clean:
	rm -rf $(VENV) build data runs/teacher runs/student runs/evaluation/videos runs/evaluation/comparison.* \
		runs/evaluation/evaluation.json runs/report.html \
		dvc_plots .dvc/tmp .dvc/cache dvc.lock
