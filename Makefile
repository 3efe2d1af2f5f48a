# Each target makes what it needs; run any of them on a fresh clone.
PYTHON ?= python3
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
ML_VENV := .venv-ml
# The formatter and linter of the page's JavaScript; npx fetches it.
BIOME := $(BIN)/npx --yes @biomejs/biome@2.6.8
JAVASCRIPT := airflow_provider_mljobs/ui/static tests/ui/js

.DEFAULT_GOAL := help
.PHONY: help demo test test-system test-ui test-nightly screenshots check format docs bench bench-chaos clean

help: ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

demo: $(VENV)/.ready ## Run the weekly retraining DAG on an embedded Snowflake
	@$(BIN)/python -m airflow_provider_mljobs.emulator -- $(BIN)/python example_dags/demo.py

test: $(VENV)/.ready $(ML_VENV)/.ready ## Run the tests: no network, no account
	$(BIN)/node --test tests/ui/js/*.test.mjs
	$(BIN)/python -m pytest --ignore tests/system --ignore tests/ui/browser

test-system: $(VENV)/.ready ## Kill, stop and restart real workers and triggerers, on Postgres and SQLite (seven minutes)
	$(BIN)/python -m pytest tests/system

test-ui: $(VENV)/.ready ## Drive the pages in a real browser, in front of a real Airflow (five minutes)
	@$(BIN)/python -m tests.ui.chromium
	$(BIN)/python -m pytest tests/ui/browser

test-nightly: $(VENV)/.ready ## Send 10 000 hostile texts through every argument (some minutes)
	$(BIN)/python -m pytest tests/jobs/test_hostile_text.py tests/jobs/test_specification_properties.py --hypothesis-profile=nightly

check: $(VENV)/.ready ## Lint, formatting, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIOME) ci $(JAVASCRIPT)

format: $(VENV)/.ready ## Format the code and fix what the linter can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIOME) check --write $(JAVASCRIPT)

docs: $(VENV)/.ready ## Write the table of supported statements into docs/emulator.md
	$(BIN)/python -m tests.emulator_table

bench: $(VENV)/.ready $(ML_VENV)/.ready ## Measure imports, submits, watching, logs and pages, next to Airflow's and Snowflake's own (20 minutes)
	$(BIN)/python -m tests.benchmarks

bench-chaos: $(VENV)/.ready ## Crash and disturb 500 runs of a job at every statement: nothing may be lost or left (15 minutes)
	$(BIN)/python -m tests.benchmarks.chaos

screenshots: $(VENV)/.ready ## Take the pictures of the documentation
	@$(BIN)/python -m tests.ui.chromium
	$(BIN)/python -m tests.ui.screenshots

clean: ## Remove the virtual environments and caches
	rm -rf $(VENV) $(ML_VENV) build .mypy_cache .pytest_cache .ruff_cache dist

# pip makes the environment (jobs of the embedded Snowflake use its pip); uv fills it, in a tenth of the time.
$(VENV)/.ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; '$(PYTHON)' is older. Try: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	@echo "Setting up $(VENV) (about a minute, once) …"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@UV_COMPILE_BYTECODE=1 $(BIN)/uv pip install --quiet --python $(BIN)/python --editable '.[local,demo,ray,dev]'
	@touch $@

# Snowflake's own client, to test against: apart, because it downgrades what Airflow needs.
$(ML_VENV)/.ready: $(VENV)/.ready
	@echo "Setting up $(ML_VENV) (Snowflake's ML client, for the tests) …"
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(ML_VENV)
	@$(BIN)/uv pip install --quiet --python $(ML_VENV)/bin/python 'snowflake-ml-python==2.6.*' \
		|| echo "snowflake-ml-python can't be installed here; its tests will be skipped."
	@touch $@
