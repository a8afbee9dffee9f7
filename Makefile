# Needs python3 (3.11 to 3.13), make and pip; everything else goes into .venv.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: help install demo dev dev-s3 test lint check-types unit test-long test-faults bench-ingestion bench-engine bench-comparison bench-warehouse bench-explorer bench-orchestration bench-gpu bench-workers bench-scale judge screenshots audit sbom lock clean

help:  ## What can be made
	@grep -E '^[a-z0-9-]+:.*##' Makefile | sed -E 's/:.*##/\t/'

install: .venv/installed  ## Everything the platform needs, into .venv

demo: .venv/installed  ## Ingest, transcribe and query the sample videos
	$(BIN)/asr demo

dev: .venv/installed  ## Dagster's UI and daemon, with the sensors on
	$(BIN)/asr dev

dev-s3: .venv/installed-dev  ## The UI and the daemon, over a bucket with notifications on this machine
	$(BIN)/python deploy/local/dev_s3.py

test: lint check-types unit  ## All checks and tests

lint: .venv/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-cache

check-types: .venv/installed-dev
	$(BIN)/mypy

unit: .venv/installed-dev
	$(BIN)/pytest -n 2 --dist loadgroup -m "not long and not fault"

test-long: .venv/installed-dev  ## What takes minutes: real daemons, from a video or an event to its words
	$(BIN)/pytest -n 2 --dist loadgroup -m "long and not fault" tests

# EVERY=4: of what is tried one by one, a quarter.
EVERY := 1
test-faults: .venv/installed-dev  ## Forty-one faults and hostile files, a kill at every step, two thousand damaged files
	$(BIN)/python -m benchmarks.faults --every $(EVERY)

bench-ingestion: .venv/installed-dev  ## A hundred thousand changing objects, ten million listed ones, a kill at every step
	$(BIN)/python -m benchmarks.ingestion

bench-engine: .venv/installed-dev  ## Against the transformers pipeline and faster-whisper; times, invariance, long files
	$(BIN)/python -m benchmarks.engine

bench-comparison: .venv/installed-dev  ## Intervals that hold the truth, no false alarms; both models on the samples' twins
	$(BIN)/python -m benchmarks.comparison

bench-warehouse: .venv/installed-dev  ## A hundred million words asked and loaded; readers, kills and Postgres beside
	$(BIN)/python -m benchmarks.warehouse

bench-explorer: .venv/installed-dev  ## How long a browser waits for the first of ten million words (installs chromium)
	command -v chromium >/dev/null || (apt-get update -qq && apt-get install -y -qq chromium)
	$(BIN)/python -m benchmarks.explorer

bench-orchestration: .venv/installed-dev  ## What a run adds, what a crontab takes, Ray's curve, a hundred thousand batches
	$(BIN)/python -m benchmarks.orchestration

bench-gpu: .venv/installed-dev  ## large-v3-turbo's shape on a GPU, end to end; needs one with CUDA
	$(BIN)/python -m benchmarks.gpu

bench-workers: .venv/installed-dev  ## One model with many workers, many models, or batches?
	$(BIN)/python -m benchmarks.workers

bench-scale: .venv/installed-dev  ## What a core, a batch and a video cost: docs/scale.md is computed from it
	$(BIN)/python -m benchmarks.scale

judge: .venv/installed-dev  ## Judge micro_whisper by speech that it was not trained on (installs flite)
	ldconfig -p | grep -q libflite_cmu_us_slt || (apt-get update -qq && apt-get install -y -qq flite)
	$(BIN)/python -m micro_whisper.evaluate --out benchmarks/results/micro_whisper.json

screenshots: .venv/installed-dev  ## The pictures of README and docs, from a real run (installs chromium)
	command -v chromium >/dev/null || (apt-get update -qq && apt-get install -y -qq chromium)
	$(BIN)/python -m docs.screenshots

audit: .venv-audit/installed  ## Whether advisories are known of the pinned packages; needs PyPI's, or fails
	mkdir -p build && rm -f build/audit.txt
	.venv-audit/bin/pip-audit --strict --no-deps --disable-pip --progress-spinner off \
	  --requirement constraints.txt --output build/audit.txt 2> build/audit.log \
	  || { cat build/audit.txt 2> /dev/null || { tail -n 1 build/audit.log; \
	  echo "nothing was audited: PyPI's advisories are out of reach; try again where they are not"; }; exit 1; }
	@tail -n 1 build/audit.log

sbom: .venv/installed .venv-audit/installed  ## All that is installed, as CycloneDX: build/sbom.json
	mkdir -p build
	.venv-audit/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible \
	  --output-file build/sbom.json .venv/bin/python

.venv-audit/installed: Makefile
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/python -m pip --disable-pip-version-check install --quiet pip-audit==2.10.1 cyclonedx-bom==7.5.0
	touch $@

# torch by hand: with CUDA or without is the machine's choice, and the version must be one with both.
TORCH := 2.13.0
lock:  ## Resolve all dependencies anew and pin what came out
	rm -rf .venv-lock && $(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip --disable-pip-version-check install --quiet --editable '.[dev]' torch==$(TORCH)
	(echo '# Every package that is installed and tested; made by make lock.'; \
	 .venv-lock/bin/python -m pip freeze --exclude-editable | sed 's/+cpu$$//') > constraints.txt
	rm -rf .venv-lock

clean:  ## Remove .venv and caches; data and videos stay
	rm -rf .venv .venv-audit .mypy_cache .pytest_cache .ruff_cache *.egg-info

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/python pyproject.toml constraints.txt
	@echo "installing into .venv, about 2 GB; this takes some minutes"
	$(PIP) install --quiet --constraint constraints.txt --editable '.[whisper]'
	touch $@

.venv/installed-dev: .venv/installed
	$(PIP) install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@
