# Three commands on a fresh machine: `make run`, `make check` and `make test`. Each makes .venv first, if it is missing or out of date.
# `make run PYTHON=python3.12` chooses the interpreter of a new .venv; `make clean` removes an old one.
PYTHON ?= python3
# `make test WORKERS=4` tests in as many processes; each takes a core and two gigabytes of memory.
WORKERS ?= 2
BIN := .venv/bin
INSTALLED := .venv/.install.stamp
SIDE_BY_SIDE := -n $(WORKERS) --dist loadfile --no-loadscope-reorder
heading = printf '\n=== %s\n' "$(1)"

.DEFAULT_GOAL := help
.PHONY: help run check test lint bench weights docs address lab format constraints clean

help:  ## List the targets
	@sed -nE 's/^([a-z]+):.*## (.*)/  make \1\t\2/p' Makefile | expand -t 20

run: $(INSTALLED)  ## Run the whole tutorial on synthetic scans; results in runs/tutorial
	$(BIN)/python -m brats_utils run

# In the order in which they fail soonest; of the tests, those that failed last time come first.
check: $(INSTALLED) lint  ## In a minute and a half: lint, format, types, and the tests that train nothing
	@$(call heading,pytest without the slow tests)
	$(BIN)/pytest $(SIDE_BY_SIDE) -m "not slow" --failed-first --exitfirst --durations=5 --durations-min=2 tests

test: $(INSTALLED) lint  ## Lint, format, types, tests, then every notebook; stops at the first failure
	@$(call heading,pytest)
	$(BIN)/pytest $(SIDE_BY_SIDE) --durations=25 tests
	@$(call heading,notebooks with nbmake)
	rm -rf runs/nbmake  # 04 must find what 03 makes now, not what it made last week
	WANDB_MODE=offline TQDM_DISABLE=1 $(BIN)/pytest --nbmake --nbmake-timeout=600 --exitfirst --durations=0 notebooks

lint: $(INSTALLED)
	@$(call heading,ruff check)
	$(BIN)/ruff check .
	@$(call heading,ruff format --check)
	$(BIN)/ruff format --check .
	@$(call heading,mypy)
	$(BIN)/mypy

bench: $(INSTALLED)  ## Measure our recipe against the classic one; `ONLY=steps` for one part, `ONLY=peers` for nnU-Net beside it
	TQDM_DISABLE=1 $(BIN)/python -m benchmarks $(ONLY)

weights: $(INSTALLED)  ## Train the pretrained network of the package anew, from phantoms; a quarter of an hour, and it goes on if interrupted
	TQDM_DISABLE=1 $(BIN)/python -m benchmarks.weights

docs: $(INSTALLED)  ## Turn the notebooks of a finished `make run` into a static gallery in build/docs
	$(BIN)/python docs/gallery.py

# Needs no .venv, so that it can be the first thing done in a copy on GitHub.
address:  ## Let badges and clone commands lead to a repository on GitHub: `make address REPO=name/repository`
	@$(PYTHON) docs/address.py "$$REPO"

lab: $(INSTALLED)  ## Open JupyterLab on the notebooks
	$(BIN)/jupyter lab notebooks

format: $(INSTALLED)  ## Format and fix the code, strip the notebooks' outputs
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/nbstripout --keep-id notebooks/*.ipynb

# In an environment of its own: constraints that no longer fit pyproject.toml would keep .venv from installing.
constraints:  ## Pin every dependency anew, for every platform and Python 3.11 on
	$(PYTHON) -m venv build/uv
	build/uv/bin/pip install --quiet uv
	build/uv/bin/uv pip compile --quiet --universal --python-version 3.11 --all-extras --no-annotate \
		--no-emit-index-url --no-emit-find-links --custom-compile-command 'make constraints' \
		pyproject.toml > build/constraints.txt
	mv build/constraints.txt constraints.txt

clean:  ## Remove .venv, build leftovers and caches; data/ and runs/ stay
	rm -rf .venv build *.egg-info .mypy_cache .pytest_cache .ruff_cache

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "error: found $$($(PYTHON) --version 2>/dev/null || echo "no $(PYTHON)"), expected Python 3.11 or later." \
		"Try: make $(MAKECMDGOALS) PYTHON=python3.11" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --disable-pip-version-check -c constraints.txt -e '.[notebooks,raw,dev]'
	@touch $@
