# The two commands of the README, and what developers type. Everything happens in .venv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# Tests start many processes: each would compile groco anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-all lint types docs clean

demo: $(VENV)/.installed
	$(BIN)/groco pretrain
	$(BIN)/groco knn --baselines

test: $(VENV)/.installed-for-tests lint types
	$(BIN)/python -m pytest -n auto --dist worksteal --durations 15 -m "not long"

test-all: $(VENV)/.installed-for-tests lint types
	$(BIN)/python -m pytest -n auto --dist worksteal --durations 15

lint: $(VENV)/.installed-for-tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-for-tests
	$(BIN)/mypy

docs: $(VENV)/.installed-for-tests
	$(BIN)/python -m pip install --quiet -e '.[docs]'
	$(BIN)/sphinx-build -W -q docs site

clean:
	rm -rf $(VENV) build dist site

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -e .
	touch $@

$(VENV)/.installed-for-tests: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -e '.[test]'
	touch $@ $(VENV)/.installed
