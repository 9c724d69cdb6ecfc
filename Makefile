# `make demo` shows what this does; `make up` starts the service and stays; `make test` runs the quick tests.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := PYTHONUNBUFFERED=1 $(BIN)/pip install --disable-pip-version-check --root-user-action=ignore -c docker/constraints.txt
# One line that says what is being downloaded, where somebody looks on; nothing where nobody does.
SHOW := while read -r what name size _; do \
	if [ -t 1 ]; then case "$$what" in Downloading|Installing) printf '\r\033[K  %s %.60s %s' "$$what" "$$name" "$$size";; esac; fi; done; \
	if [ -t 1 ]; then printf '\r\033[K'; fi

.PHONY: demo up test test-all long-test lint weights pictures bench fault-test load-test deploy-test audit clean

# A virtual environment with pinned packages. torch by itself first: nothing else may choose another one.
$(VENV)/.installed: pyproject.toml docker/constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; try make PYTHON=python3.12 ...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing torch into $(VENV), 1.5 GB or more, once (2 to 10 minutes)"
	@$(PIP) torch==2.13.0 | { $(SHOW); }
	@echo "installing the other packages, 600 MB (1 to 5 minutes)"
	@$(PIP) -e '.[service,worker,embedded,dev]' | { $(SHOW); }
	@touch $@

# Start everything, reconstruct a picture of a shape that the model never saw into out/, stop everything; half a minute.
demo: $(VENV)/.installed
	@SDFSRN_DATA="$${SDFSRN_DATA:-$(CURDIR)/out/.service}" $(BIN)/python -m service --port 0 --run $(BIN)/sdfsrn demo --out out

# The service on http://127.0.0.1:8000, until Ctrl-C; SDFSRN_PORT=8013 make up takes another port.
up: $(VENV)/.installed
	@$(BIN)/python -m service

# The tests that take seconds each; under five minutes on two cores. Two processes share the files out among them.
test: $(VENV)/.installed
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# With the tests marked slow; what CI runs.
test-all: $(VENV)/.installed
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m 'not long'

# The tests that take minutes each: trainings of full length, and requests by the hundred against all that the API describes.
long-test: $(VENV)/.installed
	$(BIN)/python -m pytest -m long

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Train the default model anew, evaluate it on shapes it never saw, store both in sdfsrn/weights, and draw the pictures anew.
weights: $(VENV)/.installed
	$(BIN)/sdfsrn weights
	$(BIN)/python -m docs.pictures.draw

# Draw the pictures of README and docs anew, with the default model as it is now.
pictures: $(VENV)/.installed
	$(BIN)/python -m docs.pictures.draw

# Every claim of speed and quality, measured; an hour, or under two minutes with QUICK=1.
bench: $(VENV)/.installed
	$(BIN)/python -m tests.benchmarks $(if $(QUICK),--quick)

# Kill, stop, fill and confuse a running service in every phase of its jobs, and count what became of them; ten minutes.
fault-test: $(VENV)/.installed
	$(BIN)/python -m tests.faults

# Ten thousand queued jobs, two hundred listeners, pictures beside a training: named figures; ten minutes on a quiet machine.
load-test: $(VENV)/.installed
	$(BIN)/python -m tests.load

# The compose stack for real: build, use, crash its parts, replace it in place, take down; SCALE=2: two workers of a kind.
deploy-test: $(VENV)/.installed
	$(BIN)/python -m tests.deploy --scale $(or $(SCALE),1)

# Known holes in the pinned packages; the auditor stays out of what it audits.
audit:
	test -x $(VENV)/audit/bin/pip-audit || { $(PYTHON) -m venv $(VENV)/audit && $(VENV)/audit/bin/pip install -q pip-audit; }
	$(VENV)/audit/bin/pip-audit --no-deps --disable-pip -r docker/constraints.txt

clean:
	rm -rf $(VENV) out build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
