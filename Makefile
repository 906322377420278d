# make demo   install what is pinned, run the whole graph on a real model, end with a manifest and a report
# make ui     look at it in the Dagster UI
# make trial  train a small policy in several orders, to see whether the order saves steps
# make test   everything: format, lint, types, import contracts, tests
# make conformance   our exports through the real trainers, each in an environment of its own

PYTHON ?= python3
PRESET ?= demo
BIN    := .venv/bin
KEY    := $(PRESET)-v1
TRIAL  ?= trial
export SAERL_HOME ?= $(CURDIR)/.saerl

.DEFAULT_GOAL := help
.PHONY: help install demo ui trial test format lint types contracts pytest docs conformance lock clean

help: ## What there is to make
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: .venv/.installed ## The environment, from the lock file

.venv/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
	  || { echo "error: this needs Python 3.11 to 3.13, but $(PYTHON) is $$($(PYTHON) --version). Set PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@

demo: .venv/.installed ## The whole graph on a real model (PRESET=small: a minute)
	$(BIN)/saerl register examples/demo/$(PRESET).toml
	$(BIN)/saerl plan $(KEY)
	$(BIN)/saerl run $(KEY)

ui: .venv/.installed ## The Dagster UI and daemon on 127.0.0.1:3000
	$(BIN)/saerl init
	DAGSTER_HOME=$(SAERL_HOME)/dagster $(BIN)/dagster dev --workspace workspace.yaml --host 127.0.0.1 --port $${PORT:-3000}

# The policy of each trial, and the optimizer steps that make it.
POLICY_trial := policy
POLICY_quick := quick-policy
STEPS_trial  := 6000
STEPS_quick  := 400

trial: .venv/.installed ## Does the order save steps? (hours; TRIAL=quick: ten minutes)
	@test -n "$(POLICY_$(TRIAL))" || { echo "error: TRIAL is trial or quick, not '$(TRIAL)'"; exit 1; }
	test -e examples/trial/$(POLICY_$(TRIAL))/tokenizer.json || \
	  $(BIN)/python examples/trial/policy.py --steps $(STEPS_$(TRIAL)) --out examples/trial/$(POLICY_$(TRIAL))
	$(BIN)/saerl register examples/trial/$(TRIAL).toml
	$(BIN)/saerl run $(TRIAL)-v1
	$(BIN)/saerl trial $(TRIAL)-v1

test: format lint types contracts pytest ## Everything

format: .venv/.installed
	$(BIN)/ruff format --check .

lint: .venv/.installed
	$(BIN)/ruff check .

types: .venv/.installed
	$(BIN)/mypy

contracts: .venv/.installed
	$(BIN)/lint-imports

pytest: .venv/.installed
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist worksteal

docs: .venv/.installed ## The spec reference, from the code
	$(BIN)/python -m saerl_assets.domain.spec_reference > docs/spec.md

# make conformance-verl runs one. A folder of conformance/ has the packages that the trainer needs, in no-deps.txt the
# trainer where most of what it asks for needs a GPU, and in beside.txt what is only looked at.
CONFORMANCE := $(patsubst conformance/%/pytest.ini,%,$(wildcard conformance/*/pytest.ini))

conformance: $(CONFORMANCE:%=conformance-%) ## Our exports through the real trainers (Python 3.11 or 3.12)

conformance-%: .venv-conformance/%/.installed
	HF_HUB_OFFLINE=1 HF_HOME=$(<D)/cache $(<D)/bin/python -m pytest conformance/$*

.PRECIOUS: .venv-conformance/%/.installed
.SECONDEXPANSION:
.venv-conformance/%/.installed: $$(wildcard conformance/$$*/*.txt)
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check -r conformance/$*/requirements.txt
	test ! -e conformance/$*/no-deps.txt || \
	  DS_BUILD_OPS=0 $(@D)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation \
	    -r conformance/$*/no-deps.txt
	test ! -e conformance/$*/beside.txt || \
	  $(@D)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r conformance/$*/beside.txt \
	    --target $(@D)/beside
	@touch $@

lock: .venv/.installed ## Write the lock file from what is installed
	@(echo "# Every package that works together, pinned. Made by: make lock"; \
	  $(BIN)/pip freeze --exclude-editable --exclude saerl-assets | sed -E 's/\+cpu$$//') > requirements.lock

clean: ## Remove the environments and the home
	rm -rf .venv .venv-conformance .saerl
