# `make demo` and `make test` do all of their set-up, once: see `make help`.

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check -qq
CONSTRAINTS := requirements/tested.txt
INSTALLED := $(VENV)/.installed
INSTALLED_DOCS := $(VENV)/.installed-docs

DEMO_CONFIG := configs/gckd/gckd_street2mall.py
DEMO_DIR := work_dirs/demo
PRETRAIN_CONFIG := configs/pretrain/synthclip_tiny_web.py
PRETRAIN_DIR := work_dirs/synthclip_tiny_web
DATA := data/synthpedes
BENCHMARKS := evaluation data step_time

# more arguments for tools/make_synthpedes.py, tools/train.py, pytest, the tests of damaged
# inputs, mkdocs build
DATA_OPTIONS ?=
DEMO_OPTIONS ?=
PYTEST_OPTIONS ?= -n 2
FUZZ_OPTIONS ?= --fuzz-rounds 20
DOCS_OPTIONS ?= --strict

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help data demo pretrain adapted test fuzz lint docs bench clean

help: ## list the targets
	@echo 'Targets (each does its own set-up in $(VENV)):'
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 16

data: $(INSTALLED) ## draw world 0 of SynthPedes, a minute (DATA_OPTIONS='--world 1')
	@$(PY) tools/make_synthpedes.py --out $(DATA) $(DATA_OPTIONS)

demo: $(INSTALLED) ## draw pedestrians, train on one domain, adapt to another, search it
	@echo '==> drawing street and mall'
	@$(PY) tools/make_synthpedes.py street mall --out $(DATA) \
		--contact-sheet $(DEMO_DIR)/contact_sheet.png
	@echo '==> training on street, then adapting to mall, on the CPU: $(DEMO_CONFIG)'
	@$(PY) tools/train.py $(DEMO_CONFIG) --work-dir $(DEMO_DIR) $(DEMO_OPTIONS)
	@echo '==> testing what the source stage ended with'
	@$(PY) tools/test.py $(DEMO_CONFIG) $(DEMO_DIR)/source.pth \
		--work-dir $(DEMO_DIR) --out $(DEMO_DIR)/source_only.json
	@echo '==> testing the adapted model'
	@$(PY) tools/test.py $(DEMO_CONFIG) "$$(cat $(DEMO_DIR)/last_checkpoint)" \
		--work-dir $(DEMO_DIR) \
		--out $(DEMO_DIR)/gckd.json --rank-lists $(DEMO_DIR)/rank_lists.png
	@$(PY) tools/compare_results.py source-only=$(DEMO_DIR)/source_only.json \
		GCKD=$(DEMO_DIR)/gckd.json
	@echo '==> pictures in $(DEMO_DIR)/contact_sheet.png and rank_lists.png'

pretrain: $(INSTALLED) ## make the weights that the package ships, 12 minutes
	@$(PY) tools/make_synthpedes.py street mall campus web --out $(DATA)
	@$(PY) tools/train.py $(PRETRAIN_CONFIG) --work-dir $(PRETRAIN_DIR)
	@$(PY) tools/test.py $(PRETRAIN_CONFIG) "$$(cat $(PRETRAIN_DIR)/last_checkpoint)" \
		--work-dir $(PRETRAIN_DIR) --out $(PRETRAIN_DIR)/results.json
	@$(PY) tools/publish_model.py "$$(cat $(PRETRAIN_DIR)/last_checkpoint)" \
		$(PRETRAIN_DIR)/results.json synthclip_tiny_web --command 'make pretrain' \
		--folder $(PRETRAIN_DIR)
	@echo '==> the shipped ones are gckd_mm/pretrained/synthclip_tiny_web.pth and .json'

adapted: demo ## make the adapted weights that the package ships, from those of the demo
	@$(PY) tools/publish_model.py "$$(cat $(DEMO_DIR)/last_checkpoint)" \
		$(DEMO_DIR)/gckd.json gckd_street2mall --encoders-only \
		--command 'make adapted' --folder $(DEMO_DIR)
	@echo '==> the shipped ones are gckd_mm/pretrained/gckd_street2mall.pth and .json'

test: $(INSTALLED) ## run the tests (PYTEST_OPTIONS='-n 2 -k ranking')
	@$(PY) -m pytest $(PYTEST_OPTIONS)

fuzz: $(INSTALLED) ## try many damaged inputs (FUZZ_OPTIONS='--fuzz-rounds 100 --fuzz-seed 1')
	@$(PY) -m pytest -n 2 tests/fuzz $(FUZZ_OPTIONS)

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
	@rm -rf $(VENV) $(DEMO_DIR) $(PRETRAIN_DIR) $(DATA) build dist site gckd_mm.egg-info
	@rm -rf .mypy_cache .pytest_cache .ruff_cache

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
