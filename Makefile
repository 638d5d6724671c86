# make run    builds a language model on this machine and lets you talk to it
# make test   runs every check and every test
#
# Both set up .venv by themselves and need only Python 3.11+ and make.

PYTHON  ?= python3
MINUTES ?= 5
JOBS    ?= 2
ARGS    ?=

VENV := .venv
BIN  := $(VENV)/bin
PIP  := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help run test

help:
	@sed -n 's/^# \{0,1\}//p;/^$$/q' Makefile

# Talks to the model afterwards when a person is at the keyboard.
run: $(VENV)/.for-run
	@if [ -t 0 ] && [ -t 1 ]; then chat=--chat; else chat=; fi; \
	set -x; $(BIN)/underhood build --minutes $(MINUTES) $$chat $(ARGS)

test: $(VENV)/.for-test
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --quiet --check .
	$(BIN)/basedpyright --warnings
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -n $(JOBS) $(ARGS)

# A stamp says what the environment was last installed from, so that a second call starts at once.
$(VENV)/.for-run: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing Underhood into $(VENV) (a few minutes the first time)"
	@$(PIP) -e . && touch $@

$(VENV)/.for-test: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing Underhood and its test tools into $(VENV) (a few minutes the first time)"
	@$(PIP) -e '.[test]' && touch $@ $(VENV)/.for-run

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	{ echo "Underhood needs Python 3.11 or newer; name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv $(VENV)
