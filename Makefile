# `make demo` and `make test` set up what they need in .venv and run.
PYTHON ?= python3
TORCH ?= torch==2.13.0
PIP = .venv/bin/python -m pip --disable-pip-version-check --quiet

.PHONY: demo test lint clean
.DEFAULT_GOAL := help

help:  ## This list.
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

demo: .venv/run.stamp  ## Eight simulated weeks: chat, retrain, gate, promote, roll back (8 to 13 minutes).
	.venv/bin/nocap --data-dir data demo run

test: .venv/dev.stamp  ## The test suite (10 to 20 minutes on 2 cores).
	.venv/bin/python -m pytest

lint: .venv/dev.stamp  ## ruff, mypy and the import contracts.
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

clean:  ## Remove the environment; data stays.
	rm -rf .venv

# GPU users choose their torch build: make demo TORCH='torch==2.11.0 --index-url …' (docs/operations.md).
.venv/torch.stamp: constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "nocap needs Python 3.11 or newer; set PYTHON=/path/to/it."; exit 1; }
	@echo "Setting up .venv (once; torch and its friends take a few minutes) …"
	@$(PYTHON) -m venv .venv
	@$(PIP) install --upgrade pip
	@$(PIP) install -c constraints.txt $(TORCH) || $(PIP) install $(TORCH)
	@touch $@

.venv/run.stamp: .venv/torch.stamp pyproject.toml
	@$(PIP) install -c constraints.txt -e '.[model]'
	@touch $@

.venv/dev.stamp: .venv/run.stamp
	@$(PIP) install -c constraints.txt -e '.[model,dev]'
	@touch $@
