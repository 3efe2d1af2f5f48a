# Each target makes what it needs; run any of them on a fresh clone.
PYTHON ?= python3
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
# Snowflake's own client, to test against: apart, because it downgrades what Airflow needs.
export ML_VENV := .venv-ml
ML_CLIENT := tests/ml_client
# The formatter and linter of the page's JavaScript; npx fetches it.
BIOME := $(BIN)/npx --yes @biomejs/biome@2.6.8
JAVASCRIPT := airflow_provider_mljobs/ui/static tests/ui/js
# Tests wait for jobs, so there is one worker more than cores. Each has an Airflow and an embedded Snowflake of its own.
WORKERS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
PARALLEL = --numprocesses $(WORKERS) --dist worksteal
QUICK := tests/jobs tests/gateway/test_statements.py tests/test_architecture.py tests/test_exceptions.py

.DEFAULT_GOAL := help
.PHONY: help demo demo-realistic test test-quick test-newest test-system test-ui test-nightly test-account screenshots check format docs bench bench-chaos clean
.PHONY: lock check-lock newest

help: ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 22

demo: $(VENV)/.ready ## Run the weekly retraining DAG on an embedded Snowflake
	@$(BIN)/python -m airflow_provider_mljobs.emulator -- $(BIN)/python example_dags/demo.py

demo-realistic: $(VENV)/.ready ## Run it with the times of an account: five minutes
	@$(BIN)/python -m airflow_provider_mljobs.emulator --realistic -- $(BIN)/python example_dags/demo.py

test: $(VENV)/.ready $(ML_VENV)/.ready ## Run the tests: no network, no account (17 minutes on two cores)
	$(BIN)/node --test tests/ui/js/*.test.mjs
	$(BIN)/python -m pytest --ignore tests/system --ignore tests/ui/browser $(PARALLEL) $(PYTEST_OPTIONS)

test-quick: $(VENV)/.ready ## Run the tests that need neither Airflow nor a Snowflake (a minute)
	$(BIN)/python -m pytest $(QUICK) $(PARALLEL) $(PYTEST_OPTIONS)

# In environments of their own, whose versions no lock knows.
NEWEST := VENV=.venv-newest ML_VENV=.venv-ml-newest

test-newest: ## Run the tests on the newest of all that pyproject.toml admits
	@rm -rf .venv-newest .venv-ml-newest
	@$(MAKE) --no-print-directory $(NEWEST) newest
	@$(MAKE) --no-print-directory $(NEWEST) PYTEST_OPTIONS='--ignore tests/test_lock.py' test

test-system: $(VENV)/.ready ## Kill, stop and restart real workers and triggerers, on Postgres and SQLite (nine minutes)
	$(BIN)/python -m pytest tests/system

test-ui: $(VENV)/.ready ## Drive the pages in a real browser, in front of a real Airflow (seven minutes)
	@$(BIN)/python -m tests.ui.chromium
	$(BIN)/python -m pytest tests/ui/browser

test-nightly: $(VENV)/.ready ## Check every property with 10 000 new examples instead of the same 100 (some minutes)
	$(BIN)/python -m pytest $$(grep -rl '^@given' tests) --hypothesis-profile=nightly $(PARALLEL)

test-account: $(VENV)/.ready $(ML_VENV)/.ready ## Compare a Snowflake account with the provider's beliefs (docs/account.md)
	@$(BIN)/python -m tests.account $(OPTIONS)

check: check-lock $(VENV)/.ready ## Lint, formatting, types, the lock
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
	rm -rf $(VENV) $(ML_VENV) .venv-newest .venv-ml-newest build .mypy_cache .pytest_cache .ruff_cache dist

# The environments are made by pip and filled by uv, in a tenth of the time, with the versions of the lock.
UV = UV_COMPILE_BYTECODE=1 $(BIN)/uv
UV_VERSION = $(shell sed -n '/^name = "uv"$$/{n;s/^version = "\(.*\)"$$/\1/p;}' uv.lock)
# A lock names PyPI's files, from whatever mirror they are installed.
LOCK = $(BIN)/uv lock --python $(BIN)/python --default-index https://pypi.org/simple
EXPORT = $(BIN)/uv export --quiet --frozen --no-emit-project --all-extras

$(BIN)/uv:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' || \
		{ echo "Python 3.11 to 3.14 is needed, and '$(PYTHON)' is none. Try: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	@echo "Setting up $(VENV) (about a minute, once) …"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

lock: | $(BIN)/uv ## Renew the locks: the newest of all that pyproject.toml admits
	$(LOCK) --upgrade
	$(LOCK) --upgrade --project $(ML_CLIENT)

check-lock: | $(BIN)/uv
	@for project in . $(ML_CLIENT); do \
		$(LOCK) --quiet --check --offline --project $$project 2>/dev/null || \
			{ echo "The lock $$project/uv.lock doesn't match $$project/pyproject.toml. Run: make lock"; exit 1; }; \
	done

$(VENV)/.ready: pyproject.toml uv.lock | check-lock
	@$(EXPORT) --output-file $(VENV)/lock.txt
	@$(UV) pip sync --quiet --require-hashes --python $(BIN)/python $(VENV)/lock.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

$(ML_VENV)/.ready: $(ML_CLIENT)/pyproject.toml $(ML_CLIENT)/uv.lock $(VENV)/.ready
	@echo "Setting up $(ML_VENV) (Snowflake's ML client, for the tests) …"
	@$(UV) venv --quiet --clear --python $(BIN)/python $(ML_VENV)
	@$(EXPORT) --project $(ML_CLIENT) --output-file $(CURDIR)/$(ML_VENV)/lock.txt
	@$(UV) pip sync --quiet --require-hashes --python $(ML_VENV)/bin/python $(ML_VENV)/lock.txt
	@touch $@

newest: | $(BIN)/uv
	@$(LOCK) --upgrade --dry-run
	@$(UV) pip install --quiet --upgrade --python $(BIN)/python --editable '.[local,demo,ray,dev]'
	@$(UV) venv --quiet --python $(BIN)/python $(ML_VENV)
	@$(UV) pip install --quiet --python $(ML_VENV)/bin/python --requirements $(ML_CLIENT)/pyproject.toml
	@touch $(VENV)/.ready $(ML_VENV)/.ready
