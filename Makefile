# fsview: every target sets up what it needs; see `make help`.
.DEFAULT_GOAL := help
.PHONY: help setup setup-run demo test torture lint bench man clean

VENV  := .venv
BIN   := $(VENV)/bin
TREES ?= $(or $(FSVIEW_TREES),build/trees)
SHELL_SCRIPTS := .ci/run .ci/setup $(wildcard examples/*.sh tests/bench/*.sh)

help:  ## show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup:  ## Debian packages and .venv for working on fsview (quiet when there is nothing to do)
	@.ci/setup dev

setup-run:  ## the same, but only what running fsview needs
	@.ci/setup run

demo: setup-run  ## two releases of Django, compared through a mount
	@PATH="$(CURDIR)/$(BIN):$$PATH" examples/demo.sh

test: setup  ## all tests but the torture, by as many processes as there are cores
	@$(BIN)/python -m pytest -n auto --dist worksteal

torture: setup  ## kill it, fill the disk, flip its bits, try examples of hypothesis anew: takes long
	@$(BIN)/python -m pytest -m "torture or hypothesis" --hypothesis-profile=explore

lint: setup  ## ruff, mypy, and the syntax of the shell scripts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet . || { $(BIN)/ruff format --check .; exit 1; }
	@$(BIN)/mypy
	@for script in $(SHELL_SCRIPTS); do bash -n $$script || exit 1; done

bench:  ## build Debian trees (root), then print the table; BENCH='--quick --only find' for a part (hours else)
	@.ci/setup bench
	@FSVIEW_TREES="$(TREES)" tests/bench/trees.sh debian-12-base debian-12-updated debian-13-base debian-12-dev
	@FSVIEW_TREES="$(TREES)" PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m tests.bench $(BENCH)

man: setup  ## man pages, from the help texts, in build/man
	@$(BIN)/python .ci/man.py build/man
	@echo "read one with: man -l build/man/fsview.1"

clean:  ## remove .venv, build/ and caches
	@rm -rf --one-file-system $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
