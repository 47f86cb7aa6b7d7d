# Needs Python 3.11 or newer. Settings: make test TORCH=... PYTHON=... ARGS=... (CONTRIBUTING.md says more)

# The torch this project is tested with, in the words of `pip install`; name another build or version here or in the
# environment, e.g. make demo TORCH="torch==2.13.0 --index-url ..." for one from the index of your hardware.
TORCH ?= torch==2.13.0
export TORCH

.PHONY: help environment demo test check format bench calibrate clean

help: ## lists these commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

environment: ## makes .venv, or brings it up to date; the commands below do it themselves
	@sh scripts/environment.sh

demo: environment ## runs the default study and says where its report is
	@.venv/bin/wherefrom study --out runs/study $(ARGS)
	@printf 'Open %s in a browser.\n' "$$(pwd)/runs/study/report.html"

test: environment ## runs all tests; some of them: make test ARGS=tests/test_geometry.py
	@.venv/bin/python -m pytest $(ARGS)

check: environment ## checks format, style and types
	@.venv/bin/ruff format --check .
	@.venv/bin/ruff check .
	@.venv/bin/pyrefly check

format: environment ## formats the code and mends what can be mended by itself
	@.venv/bin/ruff format .
	@.venv/bin/ruff check --fix .

bench: environment ## prints the measured ratios as JSON lines
	@.venv/bin/python benchmarks/run.py $(ARGS)

calibrate: environment ## measures how often roles of heads and verdicts are right, for docs; some minutes
	@.venv/bin/python benchmarks/calibrate.py $(ARGS)
	@.venv/bin/python benchmarks/rule.py $(ARGS)

clean: ## removes the environment and caches, never runs/
	rm -f .venv/complete
	rm -rf .venv dist .pytest_cache .ruff_cache .hypothesis
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || :
