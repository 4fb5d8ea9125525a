# Runs with GNU make and a POSIX shell; every tool comes from the virtual environment.

VENV ?= .venv
VENV_VERIFY ?= .venv-verify
VENV_LOCK ?= .venv-lock
PYTEST_ARGS ?= -n auto

# The first interpreter that is new enough; `make PYTHON=/path/to/python ...` overrides it.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& { echo "$$p"; exit; }; done; echo python3)

# Raised by hand: the ground truth of tests/verify was looked at with these two.
VERIFY_PINS := torch==2.13.0 transformers==5.23.0

BIN := $(VENV)/bin
PIP_FLAGS := --quiet --disable-pip-version-check --no-input
DEMO := llava-1.5-7b --text-tokens 64 --compress cluster:k=64

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo install dev test format verify loop bench lock clean distclean \
	check check-lint check-format check-types check-imports check-docs

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' Makefile

demo: $(VENV)/.stamp-run  ## Estimate LLaVA-1.5-7B, 576 against 64 visual tokens, on two GPUs
	"$(BIN)/costmodel" estimate $(DEMO) --gpu a100-80gb-sxm
	"$(BIN)/costmodel" estimate $(DEMO) --gpu rtx-a6000

install: $(VENV)/.stamp-run  ## Install the package and what it needs into .venv

dev: $(VENV)/.stamp-dev  ## Install the tools for development as well

test: $(VENV)/.stamp-test  ## Run the whole test suite but the part that needs torch
	"$(BIN)/python" -m pytest -m "not verify" --ignore=tests/verify $(PYTEST_ARGS)

# One target each, so that `make -k check` reports all that is wrong, not the first.
check: check-lint check-format check-types check-imports check-docs  ## Lint, format, types, import order, documents

check-lint: $(VENV)/.stamp-dev
	"$(BIN)/python" -m ruff check .

check-format: $(VENV)/.stamp-dev
	"$(BIN)/python" -m ruff format --check .

check-types: $(VENV)/.stamp-dev
	"$(BIN)/python" -m mypy

check-imports: $(VENV)/.stamp-dev
	"$(BIN)/lint-imports" --no-logo

check-docs: $(VENV)/.stamp-dev
	"$(BIN)/python" -m pytest -q tests/test_packaging.py tests/test_docs.py

format: $(VENV)/.stamp-dev  ## Apply the formatter and the safe fixes of the linter
	"$(BIN)/python" -m ruff check --fix .
	"$(BIN)/python" -m ruff format .

# Offline, so that a test that needs a download fails here and not only elsewhere.
verify: $(VENV_VERIFY)/.stamp-verify  ## Compare with torch and transformers, and run what measures
	HF_HUB_OFFLINE=1 "$(VENV_VERIFY)/bin/python" -m pytest \
		tests/verify tests/reference tests/benchmarks/test_rehearsal.py tests/cli/test_measure.py costmodel/reference $(PYTEST_ARGS)

loop: $(VENV_VERIFY)/.stamp-verify  ## Measure, calibrate and predict on this machine's processor
	"$(VENV_VERIFY)/bin/python" benchmarks/cpu_loop.py

bench: $(VENV)/.stamp-test  ## Run every benchmark and print its table
	@for script in $(filter-out benchmarks/cpu_loop.py,$(wildcard benchmarks/*.py)); do \
		echo "== $$script"; "$(BIN)/python" "$$script" || exit 1; done

# Pins must suit the oldest Python supported, so resolve them there: make lock PYTHON=python3.11
lock:  ## Resolve the newest versions again and write both constraints files
	rm -rf "$(VENV_LOCK)"
	"$(PYTHON)" -m venv "$(VENV_LOCK)"
	"$(VENV_LOCK)/bin/python" -m pip install $(PIP_FLAGS) --upgrade pip setuptools
	"$(VENV_LOCK)/bin/python" -m pip install $(PIP_FLAGS) --no-build-isolation -e ".[dev]"
	{ echo "# Written by 'make lock': exact versions to install, test and develop with."; \
	  "$(VENV_LOCK)/bin/python" -m pip freeze --all --exclude-editable --exclude pip; \
	} > constraints.txt
	"$(VENV_LOCK)/bin/python" -m pip install $(PIP_FLAGS) --no-build-isolation \
		-c constraints.txt -e ".[verify]" $(VERIFY_PINS)
	{ echo "# Written by 'make lock': what 'make verify' needs beyond constraints.txt."; \
	  "$(VENV_LOCK)/bin/python" -m pip freeze --all --exclude-editable --exclude pip \
	  | sed 's/+.*//' | grep -vxFf constraints.txt | grep -viE '^(nvidia|cuda|triton)'; \
	} > constraints-verify.txt
	rm -rf "$(VENV_LOCK)"

clean:  ## Remove caches and build results
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis \
		.import_linter_cache .bench .benchmarks demo-out
	find . -name '.venv*' -prune -o -type d -name __pycache__ -exec rm -rf {} +

distclean: clean  ## Remove the virtual environments too
	rm -rf "$(VENV)" "$(VENV_VERIFY)" "$(VENV_LOCK)"

# The stamps make repeated calls fast; they expire when the dependencies change.  Warnings of
# the build backend (it advises against the editable mode used here) would drown real errors.
$(VENV)/.stamp-run: EXTRA :=
$(VENV)/.stamp-test: EXTRA := [test]
$(VENV)/.stamp-dev: EXTRA := [dev]
$(VENV)/.stamp-run $(VENV)/.stamp-test $(VENV)/.stamp-dev: \
		$(VENV)/.stamp-venv pyproject.toml constraints.txt
	@echo "Installing costmodel$(EXTRA) into $(VENV)"
	@"$(BIN)/python" -m pip install $(PIP_FLAGS) -c constraints.txt setuptools
	@PYTHONWARNINGS=ignore "$(BIN)/python" -m pip install $(PIP_FLAGS) -c constraints.txt \
		--no-build-isolation -e ".$(EXTRA)"
	@touch "$@"

$(VENV_VERIFY)/.stamp-verify: \
		$(VENV_VERIFY)/.stamp-venv pyproject.toml constraints.txt constraints-verify.txt
	@echo "Installing costmodel[verify] into $(VENV_VERIFY); torch is large, this takes a while"
	@"$(VENV_VERIFY)/bin/python" -m pip install $(PIP_FLAGS) -c constraints.txt setuptools
	@PYTHONWARNINGS=ignore "$(VENV_VERIFY)/bin/python" -m pip install $(PIP_FLAGS) \
		-c constraints.txt -c constraints-verify.txt --no-build-isolation -e ".[verify]"
	@touch "$@"

# A working environment that is already there is kept; a broken one (its interpreter was
# removed) is made anew.
%/.stamp-venv:
	@if "$*/bin/python" -c '' 2>/dev/null; then \
		"$*/bin/python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
			echo "error: $* was made with a Python older than 3.11;" \
				"remove it or set VENV=another-folder" >&2; exit 1; }; \
		"$*/bin/python" -c 'import pip' 2>/dev/null \
			|| "$*/bin/python" -m ensurepip >/dev/null; \
	else \
		"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
			echo "error: Python 3.11 or newer is needed, and '$(PYTHON)' is not;" \
				"set PYTHON=/path/to/python3.11" >&2; exit 1; }; \
		"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
			echo "error: '$(PYTHON)' has no venv or ensurepip module;" \
				"on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }; \
		"$(PYTHON)" -m venv --clear "$*"; \
	fi
	@touch "$@"
