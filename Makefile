# `make test` and `make demo` do all their own set-up; they need Python 3.11 or newer, and `make test` also Chromium, npm, and
# OpenSearch, or Maven and Java 21 to start one (see CONTRIBUTING).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: help demo test bench engine lint format openapi check wheel-check faults latencies long vendor-lit screenshots lock clean

help:  ## what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): requirements-dev.txt requirements-uv.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv --clear $(VENV)
	$(PIP) --require-hashes -r requirements-uv.txt
	@# uv takes a tenth of pip's time; but only pip knows of a mirror that pip.conf names.
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements-dev.txt || \
		$(PIP) --require-hashes -r requirements-dev.txt
	$(PIP) --no-deps --no-build-isolation -e .
	@touch $(READY)

demo: $(READY)  ## fill a store as a mail dashboard would, and serve it
	$(BIN)/audit-pipeline demo

test: $(READY)  ## everything that has to hold
	$(BIN)/python -m pytest -m 'not long and not alone' -n 2 --dist worksteal --durations 20
	$(BIN)/python -m pytest -m alone

faults: $(READY)  ## every fault, many times (under an hour); the table goes into docs/durability.md
	rm -f build/faults.json
	FAULTS=long $(BIN)/python -m pytest -m 'long or not long' tests/faults
	$(BIN)/python -m tests.faults.tally

latencies: $(READY)  ## what a log call takes while the store is up, hung and down (twenty minutes), into docs/durability.md
	$(BIN)/python -m benchmarks.outage

long: $(READY)  ## the other long rounds: exports dropped, 10,000 random requests, all states of the viewer
	$(BIN)/python -m pytest -m long --ignore=tests/faults

SIZE ?= 10000000

bench: $(READY)  ## measure it beside the alternatives, and write docs/performance.md (SIZE=200000 for a quick look)
	$(BIN)/python -m benchmarks --size $(SIZE) $(BENCH)

engine: $(READY)  ## an OpenSearch by hand, until Ctrl-C
	$(BIN)/python tests/engine.py

lint: $(READY)  ## ruff, ruff format and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict audit_pipeline api index_templates

format: $(READY)  ## put the code in its form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

openapi: $(READY)  ## write docs/openapi.json anew
	AUDIT_STORE_URL=memory:// AUDIT_JWT_SECRET=none $(BIN)/python -c 'from audit_pipeline.api import create_app, openapi; \
		print(openapi.text(create_app().routes), end="")' > docs/openapi.json.new
	mv docs/openapi.json.new docs/openapi.json

wheel-check: $(READY)  ## build the wheel, and use it in an environment of its own
	$(BIN)/python tests/wheel_check.py

check: lint test wheel-check  ## all of the above

vendor-lit:  ## bundle Lit anew, from the versions that tools/vendor-lit names (needs npm)
	cd tools/vendor-lit && npm ci --ignore-scripts --no-audit --no-fund && node bundle.mjs ../../api/viewer/vendor

screenshots: $(READY)  ## pictures of all states of the viewer in build/screenshots, and that of the README (needs Chromium)
	$(BIN)/python -m tests.browser.screenshots

lock: $(READY)  ## choose the versions of all dependencies anew
	$(LOCK) pyproject.toml --extra all -o requirements.txt
	$(LOCK) pyproject.toml --extra all --group dev -o requirements-dev.txt
	echo uv | $(LOCK) - -o requirements-uv.txt

LOCK := $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-emit-find-links --custom-compile-command "make lock"

clean:  ## delete what make made
	rm -rf $(VENV) build dist *.egg-info tools/vendor-lit/node_modules tests/browser/node_modules
