# The few words a person or a build machine needs. Each is safe to repeat.
#   make setup   what is missing: system packages, .venv, locked dependencies, swarmpy itself
#   make test    setup, the checks of `make lint`, then every test; the real clusters come last
#   make lint    formatting, lint, types, import layers
#   make demo    a real cluster on this machine, before your eyes (needs root)
#   make clean   what the above made in this folder

SHELL := /bin/bash
BIN := .venv/bin
.DEFAULT_GOAL := help
.PHONY: help setup lint test demo clean

help:
	@sed -n '2,6s/^# *//p' Makefile

setup:
	@PYTHON="$(PYTHON)" tools/setup.sh

lint: setup
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

# Lab tests are never left out here: where they cannot run, the run fails and says what is missing. A fault of
# form fails the run too, but does not keep the tests from telling what they know.
test: setup
	@status=0; $(MAKE) --no-print-directory lint || status=1; \
	$(BIN)/python -m pytest $(TESTFLAGS) || status=1; exit $$status

demo: setup
	@$(BIN)/python -m swarmpy.lab.demo

clean:
	@rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage*
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
