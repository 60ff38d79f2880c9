# Everything runs in .venv, which is made on first use from hash-pinned requirements with plain pip.
# `make` alone says what there is.

PYTHON ?= $(shell command -v python3.11 || echo python3)
BIN := .venv/bin
VENV := .venv/.stamp

.DEFAULT_GOAL := help
.PHONY: help venv run demo test browser check format sim sim-mutants lives crash races power mutants bench soak quality docs lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: $(VENV) ## Build .venv, if what it is made from has changed

# --clear: a package that left the requirements leaves the venv too.
$(VENV): requirements/dev.txt requirements/run.in pyproject.toml
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

run: $(VENV) ## Serve on this machine; data in build/data
	$(BIN)/qmtl serve --data build/data

demo: $(VENV) ## Play the whole story in one process; results in build/demo
	$(BIN)/qmtl demo --out build/demo

test: $(VENV) ## Run the tests; those of pages need a Chromium, see browser
	@command -v chromium >/dev/null || $(MAKE) --no-print-directory browser || \
		echo "NO BROWSER: tests/browser is skipped; install Chromium and run again"
	$(BIN)/python -m pytest -n 2 -q

browser: ## Install Chromium from apt, for tests/browser
	apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null

check: $(VENV) ## Lint, formatting, types, and which floor imports which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(VENV) ## Format the code, and mend what the linter can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

sim: $(VENV) ## Simulate a million steps of worlds whose network, disk and clocks fail
	$(BIN)/qmtl sim --seeds 0-1199 --steps 1000 --jobs 2

sim-mutants: $(VENV) ## Break each invariant on purpose, in a copy; the simulation must find every one
	QMTL_SIM_MUTANTS=all $(BIN)/python -m pytest tests/simulation/test_mutants.py -q

lives: $(VENV) ## Simulate 2,000 lives of worlds in which anyone does anything
	QMTL_SIM_EXAMPLES=2000 $(BIN)/python -m pytest tests/simulation -q

crash: $(VENV) ## Kill servers and loops with SIGKILL: 50 times at random, and at every boundary
	QMTL_CRASH_ROUNDS=50 $(BIN)/python -m pytest tests/crash -q

races: $(VENV) ## Race 16 clients to approve, reject, apply and kill, 200 times
	QMTL_RACE_ROUNDS=200 $(BIN)/python -m pytest tests/crash/test_races.py -q

power: $(VENV) ## Cut the power, or fail the disk, at every I/O operation of every use case
	QMTL_POWER=all $(BIN)/python -m pytest tests/power -q -n 2

mutants: $(VENV) ## Break the gate, the decision, the activation and the statistics on purpose; no mutant may survive
	rm -rf mutants
	$(BIN)/mutmut run
	@survived="$$($(BIN)/mutmut results | grep -v ': timeout$$')"; echo "$$survived"; test -z "$$survived"

bench: $(VENV) ## Measure
	$(BIN)/python -m bench

soak: $(VENV) ## A year of 1,000 strategies on PostgreSQL and NATS, with everything killed in turn: nothing lost, nothing grows
	$(BIN)/python -m bench.soak

quality: $(VENV) ## Measure what the evidence promises, on 10,000 paths a cell; fails on a broken promise
	$(BIN)/python -m bench.quality

docs: $(VENV) ## Write the reference pages anew from the code
	$(BIN)/python -m qmtl.entry.reference docs/reference

# Pins what *.in asks for. Pins that still satisfy it stay; delete a .txt first to move everything.
UV_COMPILE := uv pip compile --quiet --generate-hashes --python-version 3.11 \
	--no-emit-index-url --no-emit-find-links --no-header

lock: $(VENV) ## Pin requirements/*.in anew, with hashes
	cd requirements && ../$(BIN)/$(UV_COMPILE) run.in --output-file run.txt
	cd requirements && ../$(BIN)/$(UV_COMPILE) dev.in --output-file dev.txt

clean: ## Remove whatever can be made again
	rm -rf .venv build dist src/*.egg-info .coverage* htmlcov
	rm -rf mutants .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .schemathesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
