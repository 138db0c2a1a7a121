# make demo    set up .venv, then show what Runyard does (about a minute; offline once set up)
# make test    set up .venv with the tools, then run every check
#
# Also: crash (300 random schedules of the crash suite, about half an hour), lint, docs (write the reference pages anew),
# lock (write requirements/lock.txt anew), bench, demo-stop, clean.
# PYTHON=/path/to/python3 chooses the interpreter for .venv; WORKERS=n the number of test processes;
# TESTS="tests/cli -k kill" narrows `make test` down.

SHELL := /bin/sh
BIN := .venv/bin
WORKERS ?= 2
TESTS ?= tests

# The half that runs in other people's environments, on Python 3.8 and later (tomllib: only the yard half calls that).
CLIENT_HALF := $(wildcard $(addprefix src/runyard/,wire client capture agent))

# The demo has a home of its own, so that it leaves yours alone.
DEMO_HOME := $(CURDIR)/build/demo-home

# Random schedules of the crash suite in full.
SCHEDULES ?= 300

.PHONY: demo demo-stop test crash lint docs lock bench clean setup setup-dev

demo: setup
	@mkdir -p "$(DEMO_HOME)"
	RUNYARD_HOME="$(DEMO_HOME)" $(BIN)/runyard demo
	@echo "The demo's server stays up for you to look around; \`make demo-stop\` ends it. To use its home and its runyard:"
	@echo "  export RUNYARD_HOME='$(DEMO_HOME)' PATH='$(CURDIR)/.venv/bin':\"\$$PATH\""

demo-stop: setup
	RUNYARD_HOME="$(DEMO_HOME)" $(BIN)/runyard stop

test: lint
	$(BIN)/python -m pytest -n $(WORKERS) $(TESTS)

crash: setup-dev
	$(BIN)/python -m pytest -n $(WORKERS) tests/crash --schedules $(SCHEDULES)

lint: setup-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --no-cache
	$(BIN)/vermin --quiet --no-tips --violations --target=3.8- --exclude tomllib $(CLIENT_HALF)

docs: setup-dev
	$(BIN)/python tools/reference.py

lock: setup-dev
	$(BIN)/python tools/lock.py

bench: setup-dev
	$(BIN)/python -m bench

clean:
	@if [ -x $(BIN)/runyard ] && [ -d "$(DEMO_HOME)" ]; then RUNYARD_HOME="$(DEMO_HOME)" $(BIN)/runyard stop; fi
	rm -rf .venv build dist

setup:
	@tools/venv.sh

setup-dev:
	@tools/venv.sh dev
