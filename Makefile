# Everything there is to do, from a fresh clone. Needs Python >= 3.11 and make; no compiler, no root.
.POSIX:
PYTHON ?= python3
VENV = .venv
STAMP = $(VENV)/.installed
BIN = $(VENV)/bin
# Extra arguments: make run ARGS="--port 9090", make test ARGS="-k offline"
ARGS =

# make simulate SEEDS=20
SEEDS = 300

.PHONY: help setup run test lint check bench simulate lock format clean

help:
	@echo "make run     start homeserver, bot and frontend here; prints the line to give pip"
	@echo "make test    every test: unit, conformance, integration with real Synapse, pip and uv"
	@echo "make check   formatter, linter, types, import rules (make lint), unit tests; two or three minutes"
	@echo "make bench   the project's own benchmarks; BENCH=DIR compares with other proxies"
	@echo "make simulate   liars, cut paths and outages by the thousand, into docs/protocol/simulation.md; SEEDS=20 for fewer"
	@echo "make setup   make .venv with all of the above; the others call it"
	@echo "make lock    pin the dependencies anew (requirements-run.lock: those of the program alone)"

setup: $(STAMP)

# --no-deps: the lock is complete, and pip 23 looks for a newer coverage[toml] beside the pinned coverage, which has no hash.
$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "Setting up $(VENV) (once; a minute or two) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

run: setup
	@exec $(BIN)/matrix-pypi up $(ARGS)

test: setup
	@$(BIN)/python -m pytest $(ARGS)

lint: setup
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

check: lint
	@$(BIN)/python -m pytest -q -m "not integration and not internet" tests/unit $(ARGS)

bench: setup
	@$(BIN)/python bench/run.py $(if $(BENCH),--peers "$(BENCH)",) $(ARGS)

simulate: setup
	@$(BIN)/python -m tests.byzantine --seeds $(SEEDS) --others $$(( ($(SEEDS) + 9) / 10 )) $(ARGS)

COMPILE = $(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
    --no-emit-package matrix-pypi --quiet

lock: setup
	@$(COMPILE) --all-extras --upgrade -o requirements.lock
	@$(COMPILE) --extra provenance -c requirements.lock -o requirements-run.lock

format: setup
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage
