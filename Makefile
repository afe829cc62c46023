# `make demo` and `make test` do all of their set-up, once: see `make help`.

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check -qq
CONSTRAINTS := requirements/tested.txt
INSTALLED := $(VENV)/.installed
INSTALLED_DOCS := $(VENV)/.installed-docs

DEMO_CONFIG := configs/demo/source_only_miniature.py
DEMO_DIR := work_dirs/demo
DEMO_DATA := data/miniature
BENCHMARKS := evaluation data

# more arguments for tools/train.py, pytest and mkdocs build
DEMO_OPTIONS ?=
PYTEST_OPTIONS ?= -n 2
DOCS_OPTIONS ?= --strict

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test lint docs bench clean

help: ## list the targets
	@echo 'Targets (each does its own set-up in $(VENV)):'
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 16

demo: $(INSTALLED) | $(DEMO_DATA) ## train and test a small retriever: a table and pictures
	@echo '==> training on the CPU: $(DEMO_CONFIG)'
	@$(PY) tools/train.py $(DEMO_CONFIG) --work-dir $(DEMO_DIR) $(DEMO_OPTIONS)
	@echo '==> testing'
	@$(PY) tools/test.py $(DEMO_CONFIG) "$$(cat $(DEMO_DIR)/last_checkpoint)" \
		--work-dir $(DEMO_DIR) \
		--out $(DEMO_DIR)/results.json --rank-lists $(DEMO_DIR)/rank_lists.png
	@echo '==> results in $(DEMO_DIR)/results.json, pictures in $(DEMO_DIR)/rank_lists.png'

test: $(INSTALLED) ## run the tests (PYTEST_OPTIONS='-n 2 -k ranking')
	@$(PY) -m pytest $(PYTEST_OPTIONS)

lint: $(INSTALLED) ## check style and types
	@echo '==> ruff check' && $(PY) -m ruff check
	@echo '==> ruff format --check' && $(PY) -m ruff format --check
	@echo '==> mypy' && $(PY) -m mypy

docs: $(INSTALLED_DOCS) ## build the documentation into site/
	@echo '==> building the documentation'
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --quiet $(DOCS_OPTIONS)
	@echo '==> site/index.html'

bench: $(INSTALLED) ## measure, and write the figures to benchmarks/results/
	@mkdir -p benchmarks/results
	@for name in $(BENCHMARKS); do \
		echo "==> benchmarks/$$name.py"; \
		$(PY) benchmarks/$$name.py --json benchmarks/results/$$name.json || exit 1; \
	done

clean: ## remove what make made: environment, demo, builds, caches
	@rm -rf $(VENV) $(DEMO_DIR) $(DEMO_DATA) build dist site gckd_mm.egg-info
	@rm -rf .mypy_cache .pytest_cache .ruff_cache

$(DEMO_DATA): | $(INSTALLED)
	@echo '==> drawing miniature datasets into $@'
	@$(PY) tests/miniature.py $@

$(INSTALLED): setup.py $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
		echo "gckd_mm needs Python 3.10 or later; '$(PYTHON)' is" \
			"$$($(PYTHON) --version 2>&1 || true)." \
			'Name another with: make ... PYTHON=python3.11' >&2; \
		exit 1; }
	@echo '==> installing into $(VENV) (once; 2 GB, some minutes)'
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install -e '.[mm,test]' -c $(CONSTRAINTS)
	@touch $@

$(INSTALLED_DOCS): $(INSTALLED)
	@echo '==> installing the documentation tools'
	@$(PIP) install -e '.[docs]' -c $(CONSTRAINTS)
	@touch $@
