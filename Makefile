# Two commands on a fresh machine: `make app` and `make test`.
PYTHON ?= python3
HOST ?= 127.0.0.1
PORT ?= 7860
BIN := .venv/bin
# The system's certificates where it keeps any, so that networks with an authority of their own work too.
CERTIFICATES := $(if $(wildcard /etc/ssl/certs/ca-certificates.crt),--system-certs)
INSTALL = $(BIN)/uv pip install --quiet --compile-bytecode $(CERTIFICATES) --python $(BIN)/python --override requirements-overrides.txt

.PHONY: app test check bench clean programs

app: .venv/app.stamp
	$(BIN)/python app.py --host $(HOST) --port $(PORT)

test: .venv/dev.stamp programs
	$(BIN)/python -m pytest

check: .venv/dev.stamp
	$(BIN)/ruff check --no-cache .
	$(BIN)/ruff format --no-cache --check .
	$(BIN)/mypy
	$(BIN)/python .ci/check_imports.py
	$(BIN)/python .ci/check_readme.py

bench: .venv/dev.stamp
	for name in cam vlm faithfulness localisation training triage app; do $(BIN)/python -m benchmarks.$$name --save || exit 1; done
	$(BIN)/python .ci/check_readme.py --write

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache build runs prepared out

programs:
	@.ci/programs

.venv/bin/uv:
	@PYTHON=$(PYTHON) .ci/venv

.venv/app.stamp: requirements.txt requirements-overrides.txt | .venv/bin/uv
	$(INSTALL) -r requirements.txt
	@touch $@

.venv/dev.stamp: requirements-dev.txt .venv/app.stamp
	$(INSTALL) -r requirements-dev.txt
	@touch $@
