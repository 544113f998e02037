# Two commands on a fresh machine: `make demo` does the main job on the embedded data, `make test` runs the checks.
# PYTHON may name any Python from 3.11 to 3.13.

PYTHON ?= python3
VENV := .venv
BIN := $(abspath $(VENV))/bin

.PHONY: install demo test lint picture measure web-test

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

# Train, export and edit made portraits in the folder demo/, which is made anew each time.
demo: install
	rm -rf demo && mkdir demo
	cd demo && $(BIN)/ccvae-deploy data portraits samples --count 12 --seed 2026
	cd demo && mv samples/images imgs
	cd demo && $(BIN)/ccvae-deploy train
	cd demo && $(BIN)/ccvae-deploy export --format onnx
	cd demo && $(BIN)/ccvae-deploy edit imgs/ --set smiling=1 --samples 8
	@echo "contact sheet: demo/imgs-edited/sheet.png"

# The pictures of README and docs, with the bundle that `make demo` left.
picture: install
	cd demo && $(BIN)/ccvae-deploy edit imgs/000002.png imgs/000004.png imgs/000005.png imgs/000007.png \
		--set smiling=1 --samples 8 --out picture --overwrite
	cp demo/picture/sheet.png docs/sheet.png
	cd demo && $(BIN)/ccvae-deploy edit imgs/000001.png imgs/000003.png imgs/000009.png imgs/000011.png \
		--vary smiling --samples 8 --out other-smiles --overwrite
	cp demo/other-smiles/sheet.png docs/other-smiles.png

# The figures of the README, with the bundle that `make demo` left.
measure: install
	$(BIN)/python tests/benchmarks/measure.py demo/runs/latest/bundle-onnx
	$(BIN)/python tests/benchmarks/edit_speed.py demo/runs/latest/bundle-onnx

# The graphs in onnxruntime-web under Node, which needs npm; `make test` passes this over where the package is missing.
web-test: install
	cd tests/web && npm install --no-package-lock --no-audit --no-fund
	CCVAE_REPORT=1 $(BIN)/pytest -s tests/ccvae_export/test_runtimes.py

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# A process a core; `.venv/bin/pytest FILE` runs a file's tests in one.
test: lint
	$(BIN)/pytest --numprocesses auto --dist worksteal
