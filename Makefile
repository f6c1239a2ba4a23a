# Needs python3 (3.10 to 3.13) and make. Each target makes the environment it needs, once.
PYTHON ?= python3
ENGINE ?= embedded
ARGS   ?=

.DEFAULT_GOAL := help
.PHONY: help demo test test-faults mutate lint docs notebooks lock env env-demo java clean

help: ## Show this list
	@echo "make TARGET [PYTHON=python3.12] ..."
	@grep -hE '^[a-z%-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14 | sed 's/^/  /'

ifeq ($(ENGINE),spark)
demo: env java
demo: BIN := .venv/bin
else
demo: env-demo
demo: BIN := .venv-demo/bin
endif
demo: ## Curate images and text that are on this machine; ENGINE=spark does it on local Spark
	@echo "==> Running the demo on the $(ENGINE) engine"
	@$(WITH_JAVA) $(BIN)/python -m gio_spark.demo --engine $(ENGINE) --out demo-output $(ARGS)

# A process of its own for each kind of Spark: its two APIs cannot be told apart within one.
GROUPS = "not (spark or connect or cluster or faults)" "spark and not faults" connect cluster

test: lint java ## Check style, types and layers, then run every test (ARGS="-k word" narrows)
	@failed=; for group in $(GROUPS); do \
		echo "==> Running the tests: $$group"; \
		$(WITH_JAVA) .venv/bin/python -m pytest -q -m "$$group" $(ARGS); code=$$?; \
		if [ $$code -eq 5 ] && [ -n "$(ARGS)" ]; then code=0; fi; \
		if [ $$code -ne 0 ]; then failed="$$failed [$$group]"; fi; \
	done; \
	if [ -n "$$failed" ]; then echo "error: tests failed in$$failed" >&2; exit 1; fi

test-faults: env java ## Kill writers, fill disks and race runs against each other, at every boundary
	@echo "==> Running the tests of faults"
	@$(WITH_JAVA) .venv/bin/python -m pytest -q -m "faults and not spark" $(ARGS)
	@$(WITH_JAVA) .venv/bin/python -m pytest -q -m "faults and spark" $(ARGS)

mutate: env ## Change one constant or operator at a time; do tests notice? (ARGS="--under DIR --count 40")
	@.venv/bin/python tools/mutant_sample.py $(ARGS)

lint: env ## Check style (ruff), types (mypy) and the direction of imports (import-linter)
	@echo "==> Checking style"
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check --quiet .
	@echo "==> Checking types"
	@.venv/bin/mypy
	@echo "==> Checking the layers"
	@.venv/bin/lint-imports

docs: env ## Write docs/configuration.md from the settings models
	@.venv/bin/python tools/configuration_page.py

notebooks: env ## Run notebooks/ and keep their outputs (ARGS=notebooks/quickstart.ipynb narrows)
	@.venv/bin/python tools/notebooks.py $(ARGS)

bench-%: env java ## Run benchmarks/bench_NAME.py: make bench-pipeline ARGS="..."
	@echo "==> Running benchmarks/bench_$*.py"
	@$(WITH_JAVA) .venv/bin/python benchmarks/bench_$*.py $(ARGS)

lock: env ## Renew requirements.lock from pyproject.toml and tools/pins.txt
	@.venv/bin/python -m pip install --quiet uv
	@.venv/bin/uv pip compile pyproject.toml --quiet --universal --python-version 3.10 \
		--all-extras --group dev --constraint tools/pins.txt --upgrade --no-annotate --no-header \
		--no-emit-index-url --no-emit-find-links --output-file requirements.lock
	@echo "==> Wrote requirements.lock"

env:
	@$(PYTHON) tools/environment.py dev

env-demo:
	@$(PYTHON) tools/environment.py demo

java: env
	@.venv/bin/python tools/java.py > .venv/java-home

# Where Java was asked for, its home was written down; the embedded engine runs without.
WITH_JAVA = JAVA_HOME="$$(cat .venv/java-home 2>/dev/null || echo "$$JAVA_HOME")"

clean: ## Remove the environments, caches and demo output
	rm -rf .venv .venv-demo demo-output .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
