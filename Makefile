# Everything runs in an environment of its own, .venv, made from pyproject.toml.
PYTHON ?= python3
BIN := .venv/bin
KERNEL ?= $(lastword $(sort $(wildcard /boot/vmlinuz-*)))
MODULES ?= $(patsubst /boot/vmlinuz-%,/lib/modules/%,$(KERNEL))
PIP := $(BIN)/pip install --quiet --disable-pip-version-check
QUICK := not slow and not fuzz
SIDE_BY_SIDE := -n auto --maxprocesses 4 --dist worksteal -p no:benchmark

.PHONY: demo test check fuzz bench readme traces vectors clean

# Replay the bundled traces as virtual machines in every mode.
demo: .venv/run
	@$(BIN)/mmu demo

# What tests need, then the tests.
test: .venv/test
	$(BIN)/pytest $(SIDE_BY_SIDE)

# Linters, types, import contract; then the tests bounds-checked and interpreted. Each pass finds
# what the others cannot: reads outside an array, and integer overflow.
check: .venv/check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	NUMBA_BOUNDSCHECK=1 $(BIN)/pytest -q -m "$(QUICK)" $(SIDE_BY_SIDE)
	NUMBA_DISABLE_JIT=1 $(BIN)/pytest -q -m "$(QUICK)" $(SIDE_BY_SIDE) --cov --cov-report= --cov-fail-under=90

# Long random search with a fixed budget.
fuzz: .venv/test
	$(BIN)/pytest -q -m fuzz $(SIDE_BY_SIDE)

# Accesses per second of each bundled trace, and the ratio to a C program of the same model.
bench: .venv/test
	$(BIN)/pytest bench --benchmark-only --benchmark-columns=median,rounds -q -s

# Run the README's commands and put their output back into it.
readme: .venv/run
	$(BIN)/python bench/readme.py

# Record long traces into a cache, all or some: make traces NAMES="bfs sqlite". Needs valgrind.
traces: .venv/run
	$(BIN)/python traces/record.py $(NAMES)

# Boot Linux in QEMU once more and write down its page tables and what is said of them.
vectors: .venv/run
	$(BIN)/python tests/vectors/linux_guest.py --kernel "$(KERNEL)" --modules "$(MODULES)"

.venv/python:
	$(PYTHON) -m venv .venv
	@touch $@

.venv/run: .venv/python pyproject.toml
	$(PIP) --editable .
	@touch $@

.venv/test: .venv/python pyproject.toml
	$(PIP) --editable '.[test]'
	@touch $@ .venv/run

.venv/check: .venv/python pyproject.toml
	$(PIP) --editable '.[check]'
	@touch $@ .venv/test .venv/run

clean:
	rm -rf .venv build *.egg-info .coverage .hypothesis .mypy_cache .ruff_cache .import_linter_cache
