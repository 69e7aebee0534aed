# One door for people, CI and the README: every target below is what they all call. `make help` lists them.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NICE ?=
# Tests and lints share one target directory and one profile (scripts/tested-profile.sh), so nothing heavy is built twice.
export CARGO_TERM_COLOR ?= never
export PYO3_PYTHON := $(CURDIR)/$(BIN)/python
export PYTHONDONTWRITEBYTECODE := 1
ARCHIVE := .cache/debian-python.oci.tar
SYSTEMD_ARCHIVE := .cache/debian-systemd.oci.tar
PYTEST_ARGS ?=
FUZZ_SECONDS ?= 60

.PHONY: help
help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## Build the wheel, install it in .venv and run examples/quickstart.py, twice isolated
	scripts/install-packages build demo
	scripts/beside scripts/build-debian-archive $(ARCHIVE) -- scripts/build-wheel
	$(BIN)/python examples/quickstart.py $(ARCHIVE)

.PHONY: wheel
wheel: ## Build the wheel for users into dist/ and install it in .venv
	scripts/install-packages build
	scripts/build-wheel

.PHONY: test
test: ## Install what the tests need, then run the Rust and Python tests, and those of the microVM in an emulated machine
	scripts/install-packages build demo test emulator
	$(MAKE) tested
	scripts/beside $(MAKE) archives -- scripts/run-cargo-tests
	scripts/run-python-tests
	scripts/run-microvm-tests

.PHONY: test-fast
test-fast: ## While writing: the Rust tests, and the conformance suite on the memory and the container backend
	scripts/install-packages build
	$(MAKE) tested
	scripts/run-cargo-tests
	scripts/run-python-tests --shares tests/conformance --backend memory,container

.PHONY: test-long
test-long: ## The long form of what repeats itself (kills, races, cycles): before a release, about an hour
	scripts/install-packages build demo test
	scripts/beside $(MAKE) archives -- $(MAKE) tested
	MSB_TEST_LONG=1 scripts/run-python-tests tests -m "soak or long" -rP --durations 0 --durations-min 1

.PHONY: test-python
test-python: ## The Python tests alone; PYTEST_ARGS="tests/conformance -k exec" narrows
	$(MAKE) tested
	scripts/run-python-tests $(PYTEST_ARGS)

.PHONY: test-microvm
test-microvm: ## The tests of the microVM alone, in an emulated machine; PYTEST_ARGS narrows
	scripts/install-packages build demo emulator
	scripts/beside $(MAKE) archives -- $(MAKE) tested
	scripts/run-microvm-tests $(PYTEST_ARGS)

.PHONY: tested
tested: ## Build the wheel that the tests use, and what they need, into .venv
	scripts/build-wheel --tested
	scripts/install-venv test

.PHONY: archives
archives: ## Build the OCI archives of Debian that the tests use
	scripts/build-debian-archive $(ARCHIVE)
	DEBIAN_PACKAGES=systemd-sysv,dbus scripts/build-debian-archive $(SYSTEMD_ARCHIVE)

.PHONY: check
check: ## Formatting, lints, types, stubs, licences and advisories, and the claims of the documents
	scripts/install-packages build
	cargo fmt --all --check
	scripts/build-wheel --tested --deny-warnings
	scripts/install-venv check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python scripts/check_claims.py
	scripts/check-types
	scripts/run-clippy
	scripts/run-cargo-deny
	$(BIN)/python scripts/surface_report.py > target/surface.md

.PHONY: bench
bench: ## Measure against crun, runc, bwrap, plain subprocess and tar in one run; writes benches/results.md
	scripts/install-packages build demo test
	scripts/build-wheel
	scripts/install-venv test
	scripts/build-debian-archive $(ARCHIVE)
	$(BIN)/python -m benches --output benches/results.md $(BENCH_ARGS)

.PHONY: bench-microvm
bench-microvm: ## The microVM against microsandbox 0.7.11 in an emulated machine; writes benches/results-microvm.md
	scripts/install-packages build demo emulator
	scripts/build-wheel
	scripts/run-microvm-bench $(BENCH_ARGS)

.PHONY: fuzz
fuzz: ## Fuzz every reader of hostile input, FUZZ_SECONDS (60) each, with the stable toolchain
	scripts/run-fuzz $(FUZZ_SECONDS)

.PHONY: docs
docs: ## Build the site of the documents into target/site
	scripts/install-packages build
	scripts/install-venv docs
	$(BIN)/python -m mkdocs build --strict --quiet --config-file docs/mkdocs.yml

.PHONY: session
session: ## Record docs/msb-session.txt from real use of the command line
	scripts/record-session docs/msb-session.txt

.PHONY: fmt
fmt: ## Format Rust and Python
	scripts/install-venv check
	cargo fmt --all
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: clean
clean: ## Remove what the targets made (the archive under .cache/ too)
	rm -rf dist $(VENV) .cache .pytest_cache .ruff_cache .mypy_cache
	cargo clean
