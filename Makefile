# `make demo` and `make test` do everything on a fresh machine that has Python and a package registry.
PYTHON ?= python3
VENV := .venv
INTEROP := .venv-interop
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
SHOWN := logS logS_lo logS_hi logD Caco2 hERG_blocker CYP3A4_inhibitor in_domain
INSTALL := $(PIP) install --quiet --constraint .constraints.txt

.PHONY: demo test lint types tests docs interop oldest gpu-test base fuzz web-runtime zig reader clean

# Predict the example and print the table that README.md shows.
demo: $(VENV)/.installed
	$(BIN)/mora-lite predict examples/molecules.csv --tasks logS,logD,Caco2,hERG_blocker,CYP3A4_inhibitor --force
	$(BIN)/python examples/show_table.py examples/molecules.predictions.csv $(SHOWN)

# What has to pass before a change is merged.
test: lint types tests

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# mypy does not run the import hooks of an editable install, so it reads a copy that is made afresh each time.
types: $(VENV)/.installed-dev
	rm -rf build
	$(PIP) install --quiet --no-deps --target build/site .
	test -d build/site/mora_lite/quant -a -d build/site/mora_lite/cli
	$(BIN)/mypy

# PYTEST_OPTIONS: more options of pytest, for example `make tests PYTEST_OPTIONS=-x`. WORKERS: processes; a file is read
# by one of them, which makes its fixtures once. 0 for none, as a debugger wants it.
WORKERS ?= 2
tests: $(VENV)/.installed-dev
	-test -d $(WEB_RUNTIME) || ! command -v npm >/dev/null || $(MAKE) web-runtime
	$(BIN)/pytest -q -n $(WORKERS) --dist loadfile $(PYTEST_OPTIONS)

# ONNX Runtime Web from npm, for the page of `export --web`. Without it the tests of that page are skipped.
WEB_RUNTIME := node_modules/onnxruntime-web
web-runtime:
	npm install --prefix . --no-save --no-package-lock --ignore-scripts --no-audit --no-fund --fetch-retries 1 \
	  onnxruntime-web@$$(sed -n 's/^RUNTIME_VERSION = "\(.*\)"/\1/p' export/web.py)

# Load an exported pack in Hugging Face Optimum, which needs an older transformers and so an environment of its own.
interop: $(VENV)/.installed-dev $(INTEROP)/.installed
	$(BIN)/python tests/support/optimum_values.py export build/interop
	HF_HUB_OFFLINE=1 $(INTEROP)/bin/python tests/support/optimum_values.py compare build/interop

# The tests with the oldest versions of the dependencies that pyproject.toml allows; with torch's CUDA libraries 6 GB.
OLDEST := .venv-oldest
oldest:
	$(PYTHON) -m venv --clear $(OLDEST)
	$(OLDEST)/bin/pip --disable-pip-version-check install --quiet uv
	$(OLDEST)/bin/uv pip install --quiet --python $(OLDEST) --resolution lowest-direct --compile-bytecode --editable ".[test]"
	$(OLDEST)/bin/pytest -q $(PYTEST_OPTIONS)

# On a machine with a CUDA device: torch, Triton, RDKit, pytest and this package are enough (`pip install --no-deps .`).
# Only the files that hold such tests are read, since others import more. Tests whose packages are missing are skipped.
gpu-test:
	$(or $(wildcard $(BIN)/pytest),pytest) -q -m gpu --durations=5 $$(grep -rl --include="test_*.py" "mark.gpu" tests)

# The real base model, for the tests that compare with it. Without it they are skipped.
base: $(VENV)/.installed-dev
	$(BIN)/mora-lite pull smollm2-135m

# Mutated SMILES through the native reader under sanitizers, for FUZZ_SECONDS of CPU time. A find stops it with the text.
FUZZ_SECONDS ?= 60
CSRC := mora_lite/chem/csrc
fuzz: $(VENV)/.installed-dev
	mkdir -p build
	PYTHONPATH=tests/support $(BIN)/python -c "from native_texts import GROUPED, HARD; \
	  from mora_lite.chem.native import PROBES; print(*PROBES, *HARD, *GROUPED, sep='\n')" > build/fuzz.smi
	$(CC) -std=c11 -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -I$(CSRC) \
	  $(filter-out $(CSRC)/module.c $(CSRC)/wasm.c,$(wildcard $(CSRC)/*.c)) tests/chem/fuzz_native.c -o build/fuzz_native -lm
	build/fuzz_native build/fuzz.smi $(FUZZ_SECONDS) $$(date +%s)

# The native reader as WebAssembly, after a change of its sources; zig compiles it, which takes 400 MB unpacked.
reader: zig
	$(BIN)/python tests/support/reader_wasm.py export/page/reader.wasm

zig: $(VENV)/.installed-dev
	$(PIP) install --quiet ziglang==$$(sed -n 's/^ZIG = "\(.*\)"/\1/p' tests/support/reader_wasm.py)

# The documents as a site, with the API page made from the docstrings; needs no network.
docs: $(VENV)/.installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) $(INTEROP) $(OLDEST) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

# The stamps are older than pyproject.toml when its dependencies may have changed.
$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml .constraints.txt | $(BIN)/python
	$(INSTALL) -e .
	touch $@

$(VENV)/.installed-dev: pyproject.toml .constraints.txt | $(BIN)/python
	$(INSTALL) -e ".[dev]"
	touch $@ $(VENV)/.installed

# Optimum takes torch and ONNX Runtime from the other environment, so that little is downloaded.
$(INTEROP)/.installed: $(VENV)/.installed-dev
	rm -rf $(INTEROP)
	$(BIN)/python -m venv $(INTEROP)
	$(BIN)/python -c "import pathlib, torch; print(pathlib.Path(torch.__file__).parents[1])" > \
	  $$($(INTEROP)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/shared.pth
	$(INTEROP)/bin/python -m pip --disable-pip-version-check install --quiet --no-warn-conflicts \
	  --constraint .constraints.txt "optimum-onnx==0.1.0"
	touch $@
