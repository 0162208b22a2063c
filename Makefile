# Development commands. `make demo` and `make test` need only python3 (3.11 to 3.13), git and make.
SHELL := /bin/bash
PYTHON ?= python3
UV := 0.13.9
ENV := .venv/.installed
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export MLFLOW_DISABLE_TELEMETRY := true
export GX_ANALYTICS_ENABLED := false

.PHONY: demo test check bench proving-ground image base-digest audit sbom sign verify test-containers attack lock clean

demo: $(ENV)
	dvc pull -q -r demo data.dvc
	dvc repro
	@aupair report
	@echo "dvc.lock is untracked: the demo's figures differ from CPU to CPU. Commit that of your own data (docs/experiments.md)."

# Each worker uses one thread, since the workers share the cores. The tests of a file run in one worker, since they share
# fixtures. Files keep their order, slow ones first (tests/conftest.py); xdist would start with the files of most tests.
test: export OMP_NUM_THREADS := 1
test: $(ENV)
	pytest -q -n logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder

check: $(ENV)
	ruff check src tests components pipelines benchmarks
	ruff format --check src tests components pipelines benchmarks
	mypy
	lint-imports

# Compare aupair with reference implementations, and write benchmarks/results.md; run it on an idle machine.
# ONLY="faces mapping" selects benchmarks.
bench: $(ENV)
	python benchmarks/run.py $(ONLY)

# Run the flow three times on each of four corpora that no setting was tuned on, and write benchmarks/proving_ground.md
# (docs/proving_ground.md). A stopped run continues where it ended.
proving-ground: $(ENV)
	python benchmarks/proving_ground.py

# Build the image with docker if its engine is running, else with podman; Containerfile documents BASE and BUILD_FLAGS.
# The last line of output is the image's name.
ENGINE ?= $(shell docker info >/dev/null 2>&1 && echo docker || { podman info >/dev/null 2>&1 && echo podman; })
REVISION = $(shell git rev-parse $(1) HEAD 2>/dev/null || echo unknown)$(shell [ -z "$$(git status --porcelain -- . ':!dvc.lock' 2>&1)" ] || echo -dirty)
image: IMAGE ?= aupair:$(call REVISION,--short)
image:
	@set -e; engine=$(ENGINE); image=$(IMAGE); \
	[ -n "$$engine" ] || { echo "aupair: no container engine answers; start docker, or install podman" >&2; exit 1; }; \
	$$engine build -t $$image -f Containerfile $(if $(BASE),--build-arg BASE=$(BASE)) --build-arg UV=$(UV) \
		--build-arg GIT_SHA=$(call REVISION) --build-arg GIT_DATE=$$(git log -1 --format=%cs 2>/dev/null) $(BUILD_FLAGS) .; \
	$$engine image prune -f --filter label=org.opencontainers.image.title=aupair >/dev/null; \
	echo "built in $$SECONDS s"; echo $$image

# Print the current digest of BASE; `make image BASE=NAME@sha256:...` then builds from exactly that image.
base-digest: BASE ?= python:3.11-slim-bookworm
base-digest:
	@set -e; engine=$(ENGINE); [ -n "$$engine" ] || { echo "aupair: no container engine answers" >&2; exit 1; }; \
	$$engine pull -q $(BASE) >/dev/null; $$engine image inspect --format '{{index .RepoDigests 0}}' $(BASE)

# Supply chain (docs/supply_chain.md). uv runs these tools in separate environments; they are not in the lock file.
# Exit codes of the audit: 1 for a known vulnerability, 3 for missing data. OSV=all.zip reads a downloaded export, offline.
audit: sbom
	python .ci/audit.py requirements.lock $(if $(OSV),--osv $(OSV))

# Write a bill of materials (CycloneDX) of the lock file, or with IMAGE=NAME:TAG of the packages installed in an image.
CYCLONEDX := uv tool run -q --from cyclonedx-bom==7.5.0 cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible
sbom: $(ENV)
	@set -e; $(if $(IMAGE),$(ENGINE) run --rm $(IMAGE) python -m pip freeze --all --exclude aupair,cat requirements.lock) > .venv/.packages; \
	$(CYCLONEDX) -o sbom.json .venv/.packages; echo sbom.json

# Sign a bundle with a private key (OpenSSF model signing), beside the bundle: make sign BUNDLE=work/bundle KEY=key.pem
BUNDLE ?= work/bundle
SIGN := uv tool run -q --from model-signing==1.1.1 --with pyopenssl model_signing
sign: $(ENV)
	$(SIGN) sign key $(BUNDLE) --private_key $(KEY) --signature $(BUNDLE).sig
verify: $(ENV)
	$(SIGN) verify key $(BUNDLE) --public_key $(KEY) --signature $(BUNDLE).sig

# Test the image and an MLflow server. Needs a container engine, or root on Debian, where podman and PostgreSQL are installed.
test-containers: export IMAGE ?= localhost/aupair:test
test-containers: export AUPAIR_TEST_IMAGE = $(IMAGE)
test-containers: $(ENV)
	bash .ci/engine.sh > .venv/.engine
	. .venv/.engine && $(MAKE) --no-print-directory image
	. .venv/.engine && pytest -m containers tests/containers

# Run random tests with broken inputs, killed processes and races for MINUTES, and print a table of the results
# (docs/reliability.md); `make test` includes a few of them.
attack: MINUTES ?= 60
attack: $(ENV)
	python tests/attack/run.py --minutes $(MINUTES)

# The environment, from hash-pinned packages. torch and torchvision must come from the same registry.
$(ENV): requirements.lock pyproject.toml setup.sh
	PYTHON=$(PYTHON) UV=$(UV) bash setup.sh
	touch $@

# Renew the pins, for Python 3.11 (they install on 3.12 and 3.13 as well), without the address of any registry.
lock: $(ENV)
	uv pip compile --python-version 3.11 --generate-hashes --no-emit-index-url --no-header -q --extra dev pyproject.toml -o requirements.lock

# Also deletes the local MLflow store with every registered version.
clean:
	rm -rf work reports predictions dvc_plots mlflow.db* mlruns mlartifacts
