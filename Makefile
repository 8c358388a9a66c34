# Two commands are enough: `make serve` and `make test`.
PYTHON ?= python3
HOST ?= 127.0.0.1
PORT ?= 8000
BUNDLES ?= bundles
DATA ?= data/sights_sounds
RECIPE ?= training/recipes/sights-sounds.toml

# help: list the targets
help:
	@grep -E '^# [a-z-]+: ' $(MAKEFILE_LIST) | sed 's/^# /  make /'

# serve: serve BUNDLES on HOST:PORT, without torch
serve: .venv-serve/ready
	@ZORRO_HOST=$(HOST) ZORRO_PORT=$(PORT) ZORRO_BUNDLES=$(BUNDLES) exec .venv-serve/bin/zorro serve

# test: run every test, with the coverage that media, runtime and service must keep
test: .venv/ready
	.venv/bin/python -m pytest --cov --cov-report=term

# lint: style, types and the arrows between the packages
lint: .venv/ready
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports

# train: train by RECIPE on DATA; a run that was stopped goes on
train: .venv/ready
	.venv/bin/zorro train $(RECIPE) --data $(DATA)

# export: export the last run of RECIPE to BUNDLES
export: .venv/ready
	.venv/bin/zorro export runs/$(basename $(notdir $(RECIPE)))/checkpoint $(BUNDLES)/$(basename $(notdir $(RECIPE)))/1

# bench: measure, write benchmarks/results/*.json and print tables
bench: .venv/ready
	.venv/bin/python -m benchmarks

# clean: remove what the other targets made
clean:
	rm -rf .venv .venv-serve build *.egg-info .coverage

.venv-serve/ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, got " + sys.version)'
	$(PYTHON) -m venv .venv-serve
	.venv-serve/bin/python -m pip install --quiet --editable '.[cpu]'
	@touch $@

.venv/ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, got " + sys.version)'
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet 'torch==2.13.0'
	.venv/bin/python -m pip install --quiet --editable '.[cpu,train,export,dev]'
	@touch $@

.PHONY: help serve test lint train export bench clean
