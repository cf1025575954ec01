# `make` alone lists the targets. Everything runs in .venv, which is made on first use and made
# again when pyproject.toml or requirements.lock changes.

PYTHON ?= python3
BIN := .venv/bin
VENV := .venv/.made-from-lock
# Tests of these rooms start chips of their own, which need all cores: they run one after another,
# the others as many at a time as there are cores. A room that is new counts among the others.
CHIPS := api bench calibrate checkpoint cli docs run
ALONE := $(addprefix tests/,$(CHIPS))
BESIDE := -n auto --dist loadfile $(addprefix --ignore=,$(ALONE))
define tested
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q $(BESIDE) -m "$(1)"
	$(BIN)/python -m pytest -q $(ALONE) -m "$(1)"
endef

.DEFAULT_GOAL := help
.PHONY: help venv demo test test-all test-triton check golden bench accuracy clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: $(VENV) ## make .venv with the pinned tools and this package, editable

$(VENV): pyproject.toml requirements.lock
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint requirements.lock --editable '.[test]'
	touch $@

demo: $(VENV) ## train a small GPT on two chips of this host, then compare big machines
	$(BIN)/supernode run gpt-mini --chips 2 --steps 100
	$(BIN)/supernode compare llama3-8b --on cloudmatrix384 gb200-nvl72 hgx-h100 hgx-h20

test: $(VENV) ## all tests, but for the zoo and those that need a GPU or measure speed
	$(call tested,not zoo and not gpu and not bench)

test-all: $(VENV) ## these and the zoo: every common model on every scheme
	$(call tested,not gpu and not bench)

test-triton: .venv-triton36/.made .venv-triton39/.made ## the Triton backend on the oldest and newest triton
	.venv-triton36/bin/python -m pytest -q tests/triton_cpu
	.venv-triton39/bin/python -m pytest -q tests/triton_cpu

.venv-triton%/.made: pyproject.toml requirements.lock
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --constraint requirements.lock --editable . pytest hypothesis llvmlite liger-kernel \
	  'triton==$(subst triton3,3.,$(patsubst .venv-%,%,$(@D))).*'
	touch $@

check: $(VENV) ## the gate, five minutes: format, lint, types, imports, sizes, fast tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports --no-cache
	$(BIN)/python tools/check_sizes.py
	$(call tested,not slow and not zoo and not gpu and not bench)

golden: $(VENV) ## write the golden texts anew; review the diff
	$(BIN)/python -m pytest -q -m "not zoo and not gpu and not bench" --rewrite-goldens

bench: $(VENV) ## measure speed beside torch and gloo; writes dated reports to bench/reports
	$(BIN)/python -m bench

accuracy: $(VENV) ## predict every published row; writes docs/reference/accuracy.md and its plot
	$(BIN)/supernode accuracy --write docs/reference/accuracy.md

clean: ## remove .venv, caches and build outputs
	rm -rf .venv .venv-triton36 .venv-triton39 build dist .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find src tests tools -name __pycache__ -type d -exec rm -rf {} +
