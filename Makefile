# Every target sets up its own .venv on a machine that has only Python >= 3.11, pip and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Files of tests side by side, one thread each; a file's own tests stay together and share what they made.
WORKERS ?= 2
TESTS := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

.PHONY: demo test test-all check bench docs sbom clean

demo: $(STAMP)
	$(BIN)/repromia demo language --out demo-audit

test: $(STAMP)
	$(TESTS) -m "not slow"

test-all: $(STAMP)
	$(TESTS)

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(STAMP)
	$(BIN)/python -m mkdocs build --strict

bench: $(STAMP)
	$(BIN)/python -m benchmarks

# What is installed, with licences, as CycloneDX; in an environment of its own, which would be listed otherwise.
sbom: $(STAMP)
	test -x .sbom/bin/cyclonedx-py || $(PYTHON) -m venv .sbom
	.sbom/bin/python -m pip install -q -c constraints.txt cyclonedx-bom
	.sbom/bin/cyclonedx-py environment $(BIN)/python --pyproject pyproject.toml --output-reproducible --of JSON -o sbom.json

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) .sbom sbom.json demo-audit site
