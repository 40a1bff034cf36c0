# make demo    set up, then run the whole story and say where the report is
# make test    lint, types, import rules and tests
# make docs    build the documentation into build/docs; a link that leads nowhere fails
# make test-docs  build it, and hold every printed command against the command line
# make dist    build the wheel twice, compare, try it in a fresh environment
# make sbom    list what is in the environment, with versions and licences (CycloneDX)
# make licences  the licence of every package that Ullage is installed with; the GPL's alone fails
# make fuzz    the log's parsers, each for MINUTES=10
# make conformance-vllm   install vLLM for the CPU beside (3.5 GB), serve the built-in model, drive the whole way
# make conformance-text   the same with transformers' own server and llama.cpp's
# make venv    only set up; .venv/bin/ullage is then the command
#
# PIP_ARGS passes through to pip, e.g. PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"
# TORCH=cuda asks for the CUDA build. WORKERS is how many tests run at once (all cores, at most 4).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
PIP_ARGS ?=
TORCH ?= cpu
OUT ?= demo
WORKERS ?= $(shell n=$$(getconf _NPROCESSORS_ONLN); [ $$n -gt 4 ] && n=4; echo $$n)
MINUTES ?= 10
READY := $(VENV)/.ready

.PHONY: dist sbom licences venv demo test lint test-slow test-docs docs fuzz benchmark clean conformance-vllm conformance-text

venv: $(READY)

$(READY): pyproject.toml tools/install_torch.py
	@echo "[1/4] virtual environment in $(VENV)"
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Ullage needs Python 3.11 or newer; set PYTHON=")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "[2/4] pip"
	@$(PIP) install --quiet --upgrade pip
	@echo "[3/4] torch ($(TORCH) build, about 200 MB for the CPU)"
	@$(BIN)/python tools/install_torch.py $(TORCH) $(PIP_ARGS)
	@echo "[4/4] ullage and what it needs (a minute or so)"
	@$(PIP) install --quiet $(PIP_ARGS) --editable '.[all]' --group dev
	@touch $(READY)
	@echo "ready: $(BIN)/ullage --help"

demo: venv
	@$(BIN)/ullage demo --out $(OUT)

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n $(WORKERS) --dist loadgroup --no-loadscope-reorder

test-slow: venv
	$(BIN)/python -m pytest -m slow

# Its own environment: nothing that Ullage runs on depends on what renders its pages.
docs:
	@test -x build/docs-venv/bin/python || $(PYTHON) -m venv build/docs-venv
	@build/docs-venv/bin/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	@build/docs-venv/bin/python -m pip install --quiet $(PIP_ARGS) --group docs
	NO_MKDOCS_2_WARNING=1 build/docs-venv/bin/mkdocs build --quiet --strict

test-docs: venv docs
	$(BIN)/python -m pytest tests/docs tests/examples

dist:
	$(PYTHON) tools/check_wheel.py --out dist --pip-args "$(PIP_ARGS)"

# From an environment of its own, so that the list does not list itself.
sbom: venv
	@test -x build/sbom-venv/bin/python || $(PYTHON) -m venv build/sbom-venv
	@build/sbom-venv/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) 'cyclonedx-bom>=5'
	@mkdir -p dist
	build/sbom-venv/bin/cyclonedx-py environment $(BIN)/python --pyproject pyproject.toml --output-format JSON --output-file dist/ullage.cdx.json

licences: venv
	$(BIN)/python tools/licences.py

fuzz: venv
	$(BIN)/python -m tests.log.fuzz --minutes $(MINUTES)

benchmark: venv
	@for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

# An engine brings its own torch, so it gets an environment of its own; the two speak HTTP.
conformance-vllm: venv
	@echo "[1/2] vLLM for the CPU in build/vllm-venv"
	@$(PYTHON) tools/install_engine.py vllm build/vllm-venv $(PIP_ARGS)
	@echo "[2/2] the whole way (a quarter of an hour on two cores)"
	@$(BIN)/python -m pytest tests/conformance/test_vllm.py -m slow --basetemp build/conformance/run
	@cat build/conformance/vllm-*.json

conformance-text: venv
	@echo "[1/2] transformers' server in build/transformers-venv, llama.cpp's in build/llama-venv"
	@$(PYTHON) tools/install_engine.py transformers build/transformers-venv $(PIP_ARGS)
	@$(PYTHON) tools/install_engine.py llama.cpp build/llama-venv $(PIP_ARGS)
	@echo "[2/2] what of them can be verified"
	@$(BIN)/python -m pytest tests/conformance/test_text_engines.py -m slow --basetemp build/conformance/run
	@cat build/conformance/text-*.json

clean:
	rm -rf $(VENV) demo build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
