# Each target makes its own virtual environment in .venv first, on any machine with Python 3.11 or newer and pip.
#   make demo     show the main job end to end        make check    lint, types, layers
#   make test     the tests (ARGS="-k name")          make bench    the benchmarks (ARGS="--only no-change", or --help)
#   make torture  the long forms: hours of chaos      make bench-peers   the tools that those compare with
#   make clean    remove what these made
# Another interpreter: make test PYTHON=python3.12

.DEFAULT_GOAL := help
.PHONY: help demo test torture check bench bench-peers clean

# The first one on the path that is new enough.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)

VENV := .venv
PEERS := .bench-peers
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
ARGS ?=

help:
	@sed -n '2,5s/^# //p' Makefile

demo: $(VENV)/.installed
	$(BIN)/reprod demo $(ARGS)

test: $(VENV)/.developing
	$(BIN)/python -m pytest -n 4 --dist loadfile $(ARGS)

# What `make test` does in seconds, for hours; each variable is the test's own, and can be set.
torture: export REPROD_MACHINE ?= 1000
torture: export REPROD_MODEL ?= 4000
torture: export REPROD_HISTORIES ?= 2000
torture: export REPROD_ENTRIES ?= 100000
torture: export REPROD_TORTURE ?= 200
torture: export REPROD_KILLS ?= 200
torture: export REPROD_STRIDE ?= 1
torture: export REPROD_RUNS ?= 250
torture: export REPROD_EVENTS ?= 100000
torture: export REPROD_ROUNDS ?= 1000
torture: export REPROD_CHAOS_S ?= 10
torture: export REPROD_CHAOS_SEEDS ?= 20
torture: export REPROD_SOAK_S ?= 3600
torture: export REPROD_FOLDERS ?= 500
torture: export REPROD_HEAVY ?= 1
torture: $(VENV)/.developing
	$(BIN)/python -m pytest --timeout 14400 -s tests/core/test_claims.py tests/core/test_digest.py \
		tests/core/test_pattern.py tests/core/test_redact_corpus.py tests/fs/test_watch_torture.py \
		tests/ops/test_hostile_handovers.py tests/ops/test_index_equals_files.py tests/ops/test_odd_files.py \
		tests/store/test_binding_model.py tests/store/test_retention_model.py tests/daemon/test_dirty.py \
		tests/daemon/test_following.py tests/e2e/test_e2e_barrier.py tests/e2e/test_e2e_capture.py \
		tests/e2e/test_e2e_chaos.py tests/e2e/test_e2e_conflicts.py tests/e2e/test_e2e_examples.py \
		tests/e2e/test_e2e_kill.py tests/e2e/test_e2e_kills.py tests/e2e/test_e2e_soak.py \
		tests/e2e/test_e2e_upgrade.py tests/systemd/test_service_reload_stop.py tests/heavy $(ARGS)

check: $(VENV)/.developing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.measuring
	$(BIN)/python tests/benchmarks/run.py $(ARGS)

# DVC and model_signing bring 100 packages along: an environment of their own. model_signing imports OpenSSL, but does
# not ask for it.
bench-peers: $(VENV)/.installed
	$(BIN)/python -m venv --without-pip $(PEERS)
	$(PIP) --python $(PEERS)/bin/python install dvc model-signing pyOpenSSL
	@missing=$$(for tool in b3sum hashdeep git; do command -v $$tool >/dev/null || printf ' %s' $$tool; done); \
	if [ -z "$$missing" ]; then echo "all peers are installed"; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && apt-get install -y -qq $$missing; \
	else echo "to be installed by hand, until then they are left out:$$missing" >&2; fi

clean:
	rm -rf $(VENV) $(PEERS) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find reprod tests -name __pycache__ -type d -prune -exec rm -rf {} +

# A Python without ensurepip (Debian's, without python3-venv) gets its pip from the one outside.
# Dependency groups need pip 25.1; the pip in a new environment is as old as its Python.
$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV) && $(PYTHON) -m venv --without-pip $(VENV) && \
		$(PYTHON) -m pip --python $(BIN)/python install --quiet pip; } || { rm -rf $(VENV); exit 1; }

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(PIP) install --upgrade 'pip>=25.1'
	$(PIP) install --editable '.[mlflow]'
	@touch $@

$(VENV)/.developing: pyproject.toml $(VENV)/.installed
	$(PIP) install --group test --group check
	@touch $@

$(VENV)/.measuring: $(VENV)/.developing
	$(PIP) install --editable '.[mlflow,blake3]'
	@touch $@
