# Two commands are enough: `make serve` and `make test`.
PYTHON ?= python3
HOST ?= 127.0.0.1
PORT ?= 8000
BUNDLES ?= bundles
DATA ?= data
RECIPE ?= training/recipes/everyday.toml
BENCHMARKS ?=
UPGRADE ?= --upgrade
LOCK = constraints.txt
WORKERS ?= 2
EXHAUSTIVE ?=
# Tests of a file run in one process, in order: they share what the file's fixtures have made. WORKERS=0 is one process.
# A process of several has one thread: OpenMP's threads spin while they wait, which would take the others' cores.
PYTEST = OMP_NUM_THREADS=1 .venv/bin/python -m pytest --numprocesses $(WORKERS) --dist loadfile
PEERS = litserve bentoml mlserver ray
PACKAGE_litserve = litserve==0.2.19
PACKAGE_bentoml = bentoml==1.4.39
PACKAGE_mlserver = mlserver==1.7.1
PACKAGE_ray = ray[serve]==2.60.0
NAME = $(basename $(notdir $(RECIPE)))
ABOUT = $(wildcard $(basename $(RECIPE)).about.json)
CARD = $(wildcard $(basename $(RECIPE)).card.md)
DECISION = $(wildcard $(basename $(RECIPE)).decision.json)
EXPORT = .venv/bin/zorro export runs/$(NAME)/checkpoint --force $(DECISION:%=--decision %)
EXPORT_OPTIONS ?= $(if $(filter everyday,$(NAME)),--variant fp32 --half-checkpoint)
# Its labels are not those of the collections that it is scored on.
SCORE = $(if $(filter everyday,$(NAME)),.venv/bin/python -m experiments.everyday runs/$(NAME)/bundle/1 \
	--data $(DATA) --split test --scores runs/$(NAME)/test.json,.venv/bin/zorro evaluate runs/$(NAME)/bundle/1 \
	--data $(DATA) --split test --json > runs/$(NAME)/test.json)
export ORT_DISABLE_TELEMETRY = 1

# help: list the targets
help:
	@grep -E '^# [a-z-]+: ' $(MAKEFILE_LIST) | sed 's/^# /  make /'

# serve: serve BUNDLES on HOST and PORT, without torch
serve: .venv-serve/ready
	@ZORRO_HOST=$(HOST) ZORRO_PORT=$(PORT) ZORRO_BUNDLES=$(BUNDLES) exec .venv-serve/bin/zorro serve

# test: run the tests, with the coverage that media, runtime and service must keep; EXHAUSTIVE=1 runs every one, as the gate does
test: .venv/ready
	$(PYTEST) $(if $(EXHAUSTIVE),,-m "not exhaustive") --cov --cov-report=term --durations=10

# quick: the fast tests, for the inner loop; those marked slow are left to `make test`
quick: .venv/ready
	$(PYTEST) -m "not slow and not exhaustive"

# lint: style, types and the arrows between the packages
lint: .venv/ready
	.venv/bin/ruff check .
	.venv/bin/ruff format --check --quiet .
	.venv/bin/mypy
	.venv/bin/lint-imports

# train: train by RECIPE on DATA; a run that was stopped goes on
train: .venv/ready
	.venv/bin/zorro train $(RECIPE) --data $(DATA)

# export: export the last run of RECIPE to BUNDLES, with its scores on the test split of DATA, proven from bytes to answer
export: .venv/ready
	$(EXPORT) runs/$(NAME)/bundle/1 $(EXPORT_OPTIONS)
	$(SCORE)
	$(EXPORT) $(BUNDLES)/$(NAME)/1 --data $(DATA) $(EXPORT_OPTIONS) --metrics runs/$(NAME)/test.json \
		$(ABOUT:%=--about %) $(CARD:%=--card %)
	.venv/bin/zorro bundle prove $(BUNDLES)/$(NAME)/1 --data $(DATA)

# bench: measure BENCHMARKS (and install the servers it compares with), write benchmarks/results/*.json and print tables
bench: .venv/bench $(PEERS:%=.venv-peers/%/ready)
	.venv/bin/python -m benchmarks $(BENCHMARKS)

# check-serve: start a server without torch, send it a clip, stop it
check-serve: .venv-serve/ready
	.venv-serve/bin/python deploy/check_serving.py --bundles $(BUNDLES)

# image: build the container image without a Docker engine and get an answer from inside it (root, buildah, debootstrap)
image:
	BUNDLES=$(BUNDLES) deploy/build_image.sh

# lock: renew LOCK from pyproject.toml; UPGRADE= keeps the versions that it has and only adds or removes packages
lock: .venv-lock/ready
	.venv-lock/bin/uv pip compile pyproject.toml --quiet --all-extras --universal --python-version 3.11 \
		--fork-strategy fewest --no-header --no-annotate --no-emit-index-url $(UPGRADE) --output-file $(LOCK)
	@# torch pins what its CUDA builds bring; a CPU build brings none of it.
	@sed -i -E '/^(nvidia-|cuda-|triton==)/d' $(LOCK)

# clean: remove what the other targets made, except runs and bundles
clean:
	rm -rf .venv .venv-serve .venv-lock .venv-peers build *.egg-info .coverage

# One environment serves, the other does the rest, both at the versions of LOCK. pip runs again only when
# pyproject.toml or LOCK has changed.
.venv-serve/ready: EXTRAS = cpu
.venv/ready: EXTRAS = cpu,train,export,dev

.venv-serve/ready .venv/ready: pyproject.toml $(LOCK)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
		f"Python 3.11 or newer is needed, {sys.executable} is {sys.version.split()[0]}: make PYTHON=/path/to/python3.11 ...")'
	@test -x $(@D)/bin/pip || $(PYTHON) -m venv $(@D)
	@echo "installing [$(EXTRAS)] into $(@D)"
	@$(@D)/bin/python -m pip install --quiet --constraint $(LOCK) --editable '.[$(EXTRAS)]'
	@# Tests compare an importer with it; it asks for torchaudio, which has no CPU build, so it comes without what it asks for.
	@test $(@D) != .venv || $(@D)/bin/python -m pip install --quiet --no-deps zorro-pytorch==0.1.1
	@touch $@

# What benchmarks compare with is no part of a test.
.venv/bench: .venv/ready
	@echo "installing [bench] into $(@D)"
	@$(@D)/bin/python -m pip install --quiet --constraint $(LOCK) --editable '.[bench]'
	@touch $@

# The resolver that writes LOCK is no part of any other environment.
.venv-lock/ready:
	@test -x $(@D)/bin/pip || $(PYTHON) -m venv $(@D)
	@$(@D)/bin/python -m pip install --quiet 'uv>=0.11'
	@touch $@

# Each peer has an environment of its own, without LOCK: they want different versions of the same packages.
$(PEERS:%=.venv-peers/%/ready): pyproject.toml
	@test -x $(@D)/bin/pip || $(PYTHON) -m venv $(@D)
	@echo "installing $(notdir $(@D)) into $(@D)"
	@$(@D)/bin/python -m pip install --quiet --editable '.[cpu]' '$(PACKAGE_$(notdir $(@D)))'
	@touch $@

.PHONY: help serve test quick lint train export bench check-serve image lock clean
