# One verb for each chore. `make demo` and `make test` need python3 (3.11 or 3.12), git and make, nothing else.
SHELL := /bin/bash
PYTHON ?= python3
UV := 0.13.9
ENV := .venv/.installed
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export MLFLOW_DISABLE_TELEMETRY := true
export GX_ANALYTICS_ENABLED := false

.PHONY: demo test check lock clean

demo: $(ENV)
	dvc pull -q -r demo data.dvc
	dvc repro
	@aupair report

# One thread a worker: they share the cores. A file's tests stay in one worker, since they share its fixtures.
test: export OMP_NUM_THREADS := 1
test: $(ENV)
	pytest -q -n logical --maxprocesses 8 --dist loadfile

check: $(ENV)
	ruff check src tests
	ruff format --check src tests
	mypy
	lint-imports

# The environment: hash-pinned, torch and torchvision from the same registry (they go together).
$(ENV): requirements.lock pyproject.toml setup.sh
	PYTHON=$(PYTHON) UV=$(UV) bash setup.sh
	touch $@

# Renew the pins. For 3.11 (they install on 3.12 as well), without one address of a registry.
lock: $(ENV)
	uv pip compile --python-version 3.11 --generate-hashes --no-emit-index-url --no-header -q --extra dev pyproject.toml -o requirements.lock

# Also deletes the local MLflow store with every registered version.
clean:
	rm -rf work reports predictions mlflow.db mlruns mlartifacts
