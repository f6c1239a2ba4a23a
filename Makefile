# Needs python3 (3.10 to 3.13) and make. Each target makes the environment it needs, once.
PYTHON ?= python3
ENGINE ?= embedded
ARGS   ?=
# Processes that share the tests of the embedded engine and of numpy, by files.
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help demo test test-faults test-spark40 test-oldest test-no-extras coverage mutate lint \
	docs notebooks lock env env-demo java clean

# A Python that is named has environments of its own (.venv-3.10), beside those of plain `make`.
STARTER := $(shell command -v python3 || echo "$(PYTHON)")
ifeq ($(PYTHON),python3)
ENVIRONMENT = $(STARTER) tools/environment.py
else
ENVIRONMENT = $(STARTER) tools/environment.py --python "$(PYTHON)"
VENV := $(shell $(STARTER) tools/environment.py dev --python "$(PYTHON)" --folder)
ifeq ($(VENV),)
$(error PYTHON=$(PYTHON) is not a Python that can be used)
endif
endif
VENV ?= .venv
SUFFIX := $(VENV:.venv%=%)

help: ## Show this list
	@echo "make TARGET [PYTHON=python3.12] ..."
	@grep -hE '^[a-z%-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14 | sed 's/^/  /'

ifeq ($(ENGINE),spark)
demo: env java
demo: BIN := $(VENV)/bin
else
demo: env-demo
demo: BIN := .venv-demo$(SUFFIX)/bin
endif
demo: ## Curate images and text that are on this machine; ENGINE=spark does it on local Spark
	@echo "==> Running the demo on the $(ENGINE) engine"
	@$(WITH_JAVA) $(BIN)/python -m gio_spark.demo --engine $(ENGINE) --out demo-output $(ARGS)

# A process of its own for each kind of Spark: its two APIs cannot be told apart within one.
WITHOUT_JVM = "not (spark or connect or cluster or faults)"
GROUPS = $(WITHOUT_JVM) "spark and not faults" connect cluster

test: lint java ## Check style, types and layers, then run every test (ARGS="-k word" narrows)
	@failed=; for group in $(GROUPS); do \
		echo "==> Running the tests: $$group"; \
		workers=; if [ "$$group" = $(WITHOUT_JVM) ]; then workers="-n $(WORKERS) --dist loadfile"; fi; \
		$(WITH_JAVA) $(VENV)/bin/python -m pytest -q -m "$$group" $$workers $(ARGS); code=$$?; \
		if [ $$code -eq 5 ] && [ -n "$(ARGS)" ]; then code=0; fi; \
		if [ $$code -ne 0 ]; then failed="$$failed [$$group]"; fi; \
	done; \
	if [ -n "$$failed" ]; then echo "error: tests failed in$$failed" >&2; exit 1; fi

test-faults: env java ## Kill writers, fill disks and race runs against each other, at every boundary
	@echo "==> Running the tests of faults"
	@$(WITH_JAVA) $(VENV)/bin/python -m pytest -q -m "faults and not spark" $(ARGS)
	@$(WITH_JAVA) $(VENV)/bin/python -m pytest -q -m "faults and spark" $(ARGS)

test-spark40: env java ## The tests of local Spark on Spark 4.0.1 with its Delta
	@$(ENVIRONMENT) spark40
	@echo "==> Running the tests of local Spark on Spark 4.0"
	@$(WITH_JAVA) .venv-spark40$(SUFFIX)/bin/python -m pytest -q -m "spark and not faults" $(ARGS)

test-oldest: ## Tests without a JVM on the lowest versions that pyproject.toml allows
	@$(ENVIRONMENT) oldest
	@echo "==> Running the tests on the lowest versions"
	@.venv-oldest$(SUFFIX)/bin/python -m pytest -q -m $(WITHOUT_JVM) $(ARGS)

test-no-extras: ## What must work where no extra, and so no Spark, is installed
	@$(ENVIRONMENT) no-extras
	@echo "==> Checking the package without extras"
	@.venv-no-extras$(SUFFIX)/bin/python tools/without_extras.py

coverage: env ## Lines that the tests without a JVM run, and the files with the lowest share
	@echo "==> Running the tests without a JVM under coverage"
	@COVERAGE_CORE=sysmon $(VENV)/bin/coverage run -m pytest -q -m $(WITHOUT_JVM) $(ARGS); code=$$?; \
	$(VENV)/bin/coverage report --sort=cover | sed -n '1,32p'; \
	echo "Total: $$($(VENV)/bin/coverage report --format=total) % (all files: coverage report)"; \
	exit $$code

mutate: env ## Change one constant or operator at a time; do tests notice? (ARGS="--under DIR --count 40")
	@$(VENV)/bin/python tools/mutant_sample.py $(ARGS)

lint: env ## Check style (ruff), types (mypy) and the direction of imports (import-linter)
	@echo "==> Checking style"
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check --quiet .
	@echo "==> Checking types"
	@if $(VENV)/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 11))'; \
		then $(VENV)/bin/mypy; else echo "Skipped: numpy of Python 3.10 has other types"; fi
	@echo "==> Checking the layers"
	@$(VENV)/bin/lint-imports

docs: env ## Write docs/configuration.md from the settings models
	@$(VENV)/bin/python tools/configuration_page.py

notebooks: env ## Run notebooks/ and keep their outputs (ARGS=notebooks/quickstart.ipynb narrows)
	@$(VENV)/bin/python tools/notebooks.py $(ARGS)

bench-%: env java ## Run benchmarks/bench_NAME.py: make bench-pipeline ARGS="..."
	@echo "==> Running benchmarks/bench_$*.py"
	@$(WITH_JAVA) $(VENV)/bin/python benchmarks/bench_$*.py $(ARGS)

lock: env ## Renew requirements.lock from pyproject.toml and tools/pins.txt
	@$(VENV)/bin/python -m pip install --quiet uv
	@$(VENV)/bin/uv pip compile pyproject.toml --quiet --universal --python-version 3.10 \
		--all-extras --group dev --constraint tools/pins.txt --upgrade --no-annotate --no-header \
		--no-emit-index-url --no-emit-find-links --output-file requirements.lock
	@echo "==> Wrote requirements.lock"

env:
	@$(ENVIRONMENT) dev

env-demo:
	@$(ENVIRONMENT) demo

java: env
	@$(VENV)/bin/python tools/java.py > $(VENV)/java-home

# Where Java was asked for, its home was written down; the embedded engine runs without.
WITH_JAVA = JAVA_HOME="$$(cat $(VENV)/java-home 2>/dev/null || echo "$$JAVA_HOME")"

clean: ## Remove the environments, caches and demo output
	rm -rf .venv .venv-* .coverage demo-output .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
