# Two commands do everything on a fresh machine with Python and a package registry: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
SHOWN := logS logS_lo logS_hi BBB HIV in_domain
INSTALL := $(PIP) install --quiet --constraint .constraints.txt

.PHONY: demo test lint types tests base docs clean

demo: $(VENV)/.installed
	$(BIN)/mora-lite predict examples/molecules.csv --force
	$(BIN)/python examples/show_table.py examples/molecules.predictions.csv $(SHOWN)

test: lint types tests

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# mypy does not run the import hooks of an editable install, so it reads a copy, made afresh each time.
types: $(VENV)/.installed-dev
	rm -rf build
	$(PIP) install --quiet --no-deps --target build/site .
	test -d build/site/mora_lite/quant -a -d build/site/mora_lite/cli
	$(BIN)/mypy

tests: $(VENV)/.installed-dev
	$(BIN)/pytest -q

# The real base model, for the tests that compare with it; without it they are skipped.
base: $(VENV)/.installed-dev
	$(BIN)/mora-lite pull smollm2-135m

# The documents as a site, with the API page made from the docstrings; needs no network.
docs: $(VENV)/.installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

# The stamps are older than pyproject.toml when its dependencies may have changed.
$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml .constraints.txt | $(BIN)/python
	$(INSTALL) -e .
	touch $@

$(VENV)/.installed-dev: pyproject.toml .constraints.txt | $(BIN)/python
	$(INSTALL) -e ".[dev]"
	touch $@ $(VENV)/.installed
