# Everything from a bare machine: `make test` sets up .venv once and runs the tests; `make help` lists the rest.
SHELL := bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
WORKERS ?= 2
SEEDS ?= 1
MINUTES ?= 480
JOBS ?= 1
FILES ?= 2000

VENV := .venv/bin/python
STAMP := .venv/.installed
# One thread per process: pytest-xdist runs one process per core.
PYTEST := OMP_NUM_THREADS=1 $(VENV) -m pytest

.PHONY: help setup demo proofs probes benchmark bench bench-scale fuzz test test-all test-slow test-gpu test-torchcodec test-browser test-oracles test-slurm check format clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo "  variables: PYTHON=$(PYTHON) WORKERS=$(WORKERS) SEEDS=$(SEEDS)"

setup: $(STAMP) ## create .venv and install everything into it (once; again when the requirements change)

$(VENV):
	@version=$$($(PYTHON) -c 'import platform; print(platform.python_version())' 2>/dev/null || echo "not installed"); \
	case "$$version" in 3.11.*|3.12.*|3.13.*) ;; *) \
		echo "PYTHON=$(PYTHON) is $$version; ssl_video needs Python 3.11, 3.12 or 3.13." >&2; \
		echo "Name one that is installed, for example: make $(or $(MAKECMDGOALS),setup) PYTHON=python3.12" >&2; \
		exit 2; esac
	$(PYTHON) -m venv .venv

# pip tells each download; of some hundred lines only the large ones and the end are worth reading.
$(STAMP): pyproject.toml constraints.txt | $(VENV)
	@echo "Installing into .venv (about 3 GB to download the first time) ..."
	@set -o pipefail; $(VENV) -m pip install --disable-pip-version-check --progress-bar off \
		-c constraints.txt -e '.[dev]' \
		| awk '/\([0-9.]+ (MB|GB)\)/ || /^(Building|Successfully built)/ { print; fflush() } \
		       /^Installing collected/ { print "Installing the collected packages"; fflush() }'
	@touch $@

demo: setup ## make the data set, pre-train, evaluate, and show table and picture (SEEDS=3 for three seeds)
	$(VENV) -m ssl_video.cli.main demo --seeds $(SEEDS)

proofs: setup ## every order method on videos whose answers are known, beside its controls; resumable (MINUTES=)
	$(VENV) -m benchmark.proofs --minutes $(MINUTES)

probes: setup ## what gives an order away without learning, on the embedded data (ROOT=DIR: on a folder of videos)
	$(VENV) -m benchmark.probes $(if $(ROOT),--name $(notdir $(ROOT)) dataset=folder dataset.root=$(ROOT))

benchmark: setup ## pre-train and measure every method; resumable (MINUTES= JOBS= METHODS= INTERACTIONS=DIR WAGON=DIR)
	$(VENV) -m benchmark.run --minutes $(MINUTES) --jobs $(JOBS) \
		$(if $(INTERACTIONS),--interactions $(INTERACTIONS)) $(if $(WAGON),--wagon $(WAGON)) \
		$(if $(METHODS),--methods $(METHODS))

bench: setup ## measure the data path and the step against their rivals, as ratios in one run (LONG=1: also memory)
	$(VENV) -m benchmark.data_path $(if $(LONG),--memory --manifest)

bench-scale: setup ## measure more processes against one, checkpoints, starting and stopping (a quarter of an hour)
	$(VENV) -m benchmark.scaling

fuzz: setup ## read 2,000 broken files through every reader (FILES=)
	FUZZ_FILES=$(FILES) $(PYTEST) tests/data/test_fuzz.py -n $(WORKERS)

test: setup ## run the tests, without the slow ones
	$(PYTEST) -m "not slow" -n $(WORKERS)

test-all: setup ## run all tests
	$(PYTEST) -n $(WORKERS)

test-slow: setup ## run the slow tests only
	$(PYTEST) -m "slow and not slurm" -n $(WORKERS)

test-gpu: setup ## run the tests that need a GPU; fails without one
	$(PYTEST) -m gpu --require gpu

test-torchcodec: setup ## run the tests that need torchcodec and FFmpeg's libraries; fails without them
	$(PYTEST) -m torchcodec --require torchcodec

test-browser: setup ## open the report in headless Chromium (apt-get install chromium); fails without one
	$(PYTEST) -m browser --require browser

test-slurm: setup ## run the tests on a real SLURM of two nodes, on loopback; installs slurm-wlm and munge (needs root)
	@command -v slurmd munged >/dev/null || { apt-get update -qq && \
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends slurm-wlm munge; }
	$(PYTEST) tests/slurm --require slurm

test-oracles: setup ## run the tests against Hugging Face's networks; installs transformers into .venv first
	$(VENV) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[oracles]'
	$(PYTEST) -m oracles --require oracles

check: setup ## format, lint and types, and the tests of configs and import directions; changes nothing
	$(VENV) -m ruff format --check .
	$(VENV) -m ruff check .
	$(VENV) -m mypy
	$(PYTEST) -q $(wildcard tests/test_imports.py tests/test_configs.py)

format: setup ## format the code and repair what the linter can
	$(VENV) -m ruff format .
	$(VENV) -m ruff check --fix .

clean: ## remove .venv, caches and builds; runs in outputs/ stay
	rm -rf .venv .pytest_cache .ruff_cache .mypy_cache build dist *.egg-info
	find ssl_video tests -name __pycache__ -type d -prune -exec rm -rf {} +
