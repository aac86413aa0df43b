# `make demo` and `make test` set everything up by themselves: a virtual environment in .venv, and what Debian lacks.
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(abspath $(VENV))/bin
STAMP := $(VENV)/.installed
MANIFESTS := pyproject.toml runtime/pyproject.toml

.PHONY: help setup demo test test-all lint typecheck clean

help:
	@echo "make demo       compile a digit classifier, run it and compare it with ONNX Runtime"
	@echo "make test       the fast tests"
	@echo "make test-all   every test: slow ones, real models (GRAPHOPT_ZOO), ONNX conformance"
	@echo "make lint       ruff and mypy"

setup: $(STAMP)

$(STAMP): $(MANIFESTS) | $(VENV)/bin/python
	@PYTHON=$(PYTHON) .ci/debian-packages
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ./runtime --editable '.[dev]'
	@touch $@

$(VENV)/bin/python:
	@PYTHON=$(PYTHON) .ci/debian-packages
	$(PYTHON) -m venv $(VENV)

DEMO := build/demo

demo: setup
	@mkdir -p $(DEMO)
	$(BIN)/graphopt compile models/digits_cnn.onnx --target native -o $(DEMO)/digits_cnn.gopt
	$(BIN)/python models/classify.py $(DEMO)/digits_cnn.gopt
	$(BIN)/graphopt compare models/digits_cnn.onnx --backend graphopt --backend onnxruntime

test: setup
	$(BIN)/pytest --numprocesses auto

test-all: setup
	$(BIN)/pytest --numprocesses auto -m ""

lint: setup typecheck
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# mypy follows folders, not setuptools' mapping: it reads a tree of links laid out like the installed packages.
TYPED := build/typed

typecheck:
	@rm -rf $(TYPED) && mkdir -p $(TYPED)/graphopt
	@ln -s $(CURDIR)/graphopt/* $(CURDIR)/passes $(CURDIR)/backends $(CURDIR)/training $(TYPED)/graphopt/
	@ln -s $(CURDIR)/runtime/graphopt_runtime $(TYPED)/
	cd $(TYPED) && $(BIN)/mypy --config-file $(CURDIR)/pyproject.toml -p graphopt -p graphopt_runtime
	cd $(TYPED) && MYPYPATH=.:$(CURDIR)/models $(BIN)/mypy --config-file $(CURDIR)/pyproject.toml \
		$(CURDIR)/models $(CURDIR)/benchmarks

clean:
	rm -rf build dist *.egg-info runtime/build runtime/*.egg-info $(VENV)
