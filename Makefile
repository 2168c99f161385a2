# The commands of a checkout. `make setup` needs only Python 3.11 or newer, git and make.
PYTHON ?= python3.11
BIN := .venv/bin

.PHONY: help setup demo test lint format docs clean

help:
	@echo "make demo    label a bucket of generated street scenes, end to end (about five minutes)"
	@echo "make test    run the tests"
	@echo "make lint    ruff, mypy and the import rule"
	@echo "make format  let ruff format the code"
	@echo "make docs    write docs/api/ and docs/cli.md from the code"
	@echo "make setup   make .venv with everything that the others need"
	@echo "make clean   remove .venv, caches and the demo's output"

setup: .venv/.ready

.venv/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,lint]'
	@touch $@

demo: setup
	@$(BIN)/python -m flows.demo

test: setup
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: setup
	$(BIN)/python docs/make_api.py

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache demo-output *.egg-info
