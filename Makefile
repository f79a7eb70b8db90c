# What a newcomer types is `make run`; `make help` says the rest. Everything goes into .venv and $FASTCHAT_HOME (var/).

.PHONY: help run test chaos fuzz check bench soak lock clean
.DEFAULT_GOAL := help

FASTCHAT_HOME ?= var
export FASTCHAT_HOME
export PIP_DISABLE_PIP_VERSION_CHECK = 1

# The first of these that is new enough makes .venv; PYTHON=... chooses another one.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)

BIN := .venv/bin
RUNTIME := .venv/.runtime
DEVELOPMENT := .venv/.development

help:
	@echo 'make run     start the network: PostgreSQL, balancer and chat services, until Ctrl-C'
	@echo 'make test    all tests, on a PostgreSQL of their own'
	@echo 'make chaos   faults upon a real network for CHAOS_SECONDS (600), then every mutant; SEED='
	@echo 'make fuzz    whatever others may say, in any order, for FUZZ_SECONDS (120) each; TARGET=, SEED='
	@echo 'make check   ruff, mypy and the floors (import-linter)'
	@echo 'make bench   what the server costs under load: one table, in about 5 minutes'
	@echo 'make soak    a steady load for SOAK_SECONDS (30 minutes): what grows that should not?'
	@echo 'make lock    new requirements.lock and requirements-dev.lock from pyproject.toml'
	@echo 'make clean   remove .venv and what tools left; the state in var/ stays'

run: $(RUNTIME)
	@exec $(BIN)/twistd --pidfile= -ny fastchat.tac

test: $(DEVELOPMENT)
	@$(BIN)/python -m tests $(if $(SEED),--seed $(SEED))

CHAOS_SECONDS ?= 600

chaos: $(DEVELOPMENT)
	@$(BIN)/python -m tests.chaos --all --seconds $(CHAOS_SECONDS) $(if $(SEED),--seed $(SEED))

FUZZ_SECONDS ?= 120

fuzz: $(DEVELOPMENT)
	@$(BIN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS) $(if $(SEED),--seed $(SEED)) $(TARGET)

check: $(DEVELOPMENT)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(RUNTIME)
	@$(BIN)/python -m benchmarks

SOAK_SECONDS ?= 1800

soak: $(DEVELOPMENT)
	@$(BIN)/python -m tests.chaos.soak --seconds $(SOAK_SECONDS)

# Exactly what the lock says, each file checked against its hashes. What has no wheel is built with the locked build
# tools, which therefore come first; nothing is fetched for a build.
define install
	@test -n "$(PYTHON)" || { echo 'FastChat needs Python 3.11 or newer; found: '"$$(python3 --version 2>&1)"; exit 1; }
	@echo 'Preparing .venv with $(PYTHON) from $(1) (once; a minute or two) ...'
	@$(BIN)/python -c '' 2>/dev/null || $(PYTHON) -m venv --clear .venv \
		|| { echo 'No virtual environment can be made: install your system'"'"'s python3-venv'; rm -rf .venv; exit 1; }
	@sed -n '/^\(packaging\|setuptools\|wheel\)==/,/^ *# via/p' $(1) > .venv/build.lock
	@$(BIN)/python -m pip install -q --require-hashes --no-deps --only-binary :all: -r .venv/build.lock
	@$(BIN)/python -m pip install -q --require-hashes --no-build-isolation -r $(1)
	@$(BIN)/python -m pip install -q --no-deps --no-build-isolation -e .
endef

$(RUNTIME): requirements.lock pyproject.toml twisted/plugins/fastchat_plugin.py
	$(call install,requirements.lock)
	@touch $@

$(DEVELOPMENT): requirements-dev.lock pyproject.toml twisted/plugins/fastchat_plugin.py
	$(call install,requirements-dev.lock)
	@touch $@ $(RUNTIME)

COMPILE = $(BIN)/pip-compile --quiet --generate-hashes --allow-unsafe --no-emit-index-url --no-emit-find-links \
	--no-header --strip-extras pyproject.toml

# The runtime's lock is a subset of the development's, so that either can be installed over the other.
lock: $(DEVELOPMENT)
	$(COMPILE) --extra build --extra dev --upgrade --output-file requirements-dev.lock
	$(COMPILE) --extra build --constraint requirements-dev.lock --output-file requirements.lock

clean:
	rm -rf .venv .mypy_cache .ruff_cache .import_linter_cache .hypothesis _trial_temp* twistd.log twisted/plugins/dropin.cache
	find . -name __pycache__ -not -path './var/*' -prune -exec rm -rf {} +
