# One verb for each chore. `make demo` and `make test` need python3 (3.11 to 3.13), git and make, nothing else.
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

# One thread a worker: they share the cores. A file's tests stay in one worker, since they share its fixtures; the files
# keep their order, slow ones first (tests/conftest.py): xdist would begin with those of many tests.
test: export OMP_NUM_THREADS := 1
test: $(ENV)
	pytest -q -n logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder

check: $(ENV)
	ruff check src tests components pipelines benchmarks
	ruff format --check src tests components pipelines benchmarks
	mypy
	lint-imports

# Ours against a reference, question by question, into benchmarks/results.md; on a machine that does nothing else.
# ONLY="faces mapping": only these.
bench: $(ENV)
	python benchmarks/run.py $(ONLY)

# The flow on four corpora that nobody tuned on, three trainings each, into benchmarks/proving_ground.md; continues where it
# was stopped (docs/proving_ground.md).
proving-ground: $(ENV)
	python benchmarks/proving_ground.py

# By docker where its engine answers (the client alone does not build), else by podman; Containerfile tells of BASE and
# BUILD_FLAGS. The last line is the image's name.
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

# The digest of BASE as it is today: `make image BASE=NAME@sha256:...` then builds from that image and no other.
base-digest: BASE ?= python:3.11-slim-bookworm
base-digest:
	@set -e; engine=$(ENGINE); [ -n "$$engine" ] || { echo "aupair: no container engine answers" >&2; exit 1; }; \
	$$engine pull -q $(BASE) >/dev/null; $$engine image inspect --format '{{index .RepoDigests 0}}' $(BASE)

# Supply chain (docs/supply_chain.md). The tools run in environments of their own, which uv makes; they are not in the lock.
# Exit codes of the audit: 1 a vulnerability is known, 3 there is no data; OSV=all.zip: from a downloaded export, offline.
audit: sbom
	python .ci/audit.py requirements.lock $(if $(OSV),--osv $(OSV))

# The packages of the lock, or with IMAGE=NAME:TAG those that are installed in an image, as CycloneDX.
CYCLONEDX := uv tool run -q --from cyclonedx-bom==7.5.0 cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible
sbom: $(ENV)
	@set -e; $(if $(IMAGE),$(ENGINE) run --rm $(IMAGE) python -m pip freeze --all --exclude aupair,cat requirements.lock) > .venv/.packages; \
	$(CYCLONEDX) -o sbom.json .venv/.packages; echo sbom.json

# OpenSSF's signature of a bundle with a key of yours, beside the bundle: make sign BUNDLE=work/bundle KEY=key.pem
BUNDLE ?= work/bundle
SIGN := uv tool run -q --from model-signing==1.1.1 --with pyopenssl model_signing
sign: $(ENV)
	$(SIGN) sign key $(BUNDLE) --private_key $(KEY) --signature $(BUNDLE).sig
verify: $(ENV)
	$(SIGN) verify key $(BUNDLE) --public_key $(KEY) --signature $(BUNDLE).sig

# The image and an MLflow server at work. Needs an engine, or root on Debian, which gets podman and PostgreSQL.
test-containers: export IMAGE ?= localhost/aupair:test
test-containers: export AUPAIR_TEST_IMAGE = $(IMAGE)
test-containers: $(ENV)
	bash .ci/engine.sh > .venv/.engine
	. .venv/.engine && $(MAKE) --no-print-directory image
	. .venv/.engine && pytest -m containers tests/containers

# Broken inputs, kills and races until the time is over, and a table of them (docs/reliability.md); `make test` has a small dose.
attack: MINUTES ?= 60
attack: $(ENV)
	python tests/attack/run.py --minutes $(MINUTES)

# The environment: hash-pinned, torch and torchvision from the same registry (they go together).
$(ENV): requirements.lock pyproject.toml setup.sh
	PYTHON=$(PYTHON) UV=$(UV) bash setup.sh
	touch $@

# Renew the pins. For 3.11 (they install on 3.12 and 3.13 as well), without one address of a registry.
lock: $(ENV)
	uv pip compile --python-version 3.11 --generate-hashes --no-emit-index-url --no-header -q --extra dev pyproject.toml -o requirements.lock

# Also deletes the local MLflow store with every registered version.
clean:
	rm -rf work reports predictions dvc_plots mlflow.db* mlruns mlartifacts
