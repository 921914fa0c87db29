# Two commands on a fresh machine: `make demo` runs the main job, `make test` passes the tests. Each sets up what it needs.
PYTHON ?= python3
VENV ?= .venv
# Threads that spin while they wait slow a busy machine down; tests run in parallel processes of one thread each.
export OMP_WAIT_POLICY = passive
# Without bytecode files every start compiles torch again: five seconds for each process of the tests and of a run.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test lint types format golden table clean

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --no-compile --disable-pip-version-check --editable '.[dev]'
	touch $@

demo: $(VENV)/installed
	$(VENV)/bin/compress demo

test: $(VENV)/installed
	OMP_NUM_THREADS=1 $(VENV)/bin/pytest -q --numprocesses 2 --dist worksteal

lint: $(VENV)/installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: $(VENV)/installed
	$(VENV)/bin/mypy

format: $(VENV)/installed
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

# Rewrites tests/**/golden/*; look at the diff before you commit it.
golden: $(VENV)/installed
	UPDATE_GOLDEN=1 $(VENV)/bin/pytest -q tests/compressor/report

# Rewrites the table in README.md from benchmarks/results/.
table: $(VENV)/installed
	$(VENV)/bin/python -m benchmarks.quality_table

clean:
	rm -rf $(VENV) demo runs .mypy_cache .pytest_cache .ruff_cache
