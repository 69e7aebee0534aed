# One door for people, CI and the README: every target below is what they all call. `make help` lists them.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NICE ?=
# The wheel, the tests and the lints share one target directory and one profile, so nothing heavy is built twice.
export CARGO_TERM_COLOR ?= never
export PYO3_PYTHON := $(CURDIR)/$(BIN)/python
export PYTHONDONTWRITEBYTECODE := 1
ARCHIVE := .cache/debian-python.oci.tar
SYSTEMD_ARCHIVE := .cache/debian-systemd.oci.tar
PYTEST_ARGS ?=
FUZZ_SECONDS ?= 60

# What maturin tells the interpreter's bindings: without it lint and wheel would compile them in turns.
AS_MATURIN := PYO3_BUILD_EXTENSION_MODULE=1 PYO3_CONFIG_FILE=$$(echo $(CURDIR)/target/maturin/pyo3-config-*.txt)

.PHONY: help
help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## Build the wheel, install it in .venv and run examples/quickstart.py, twice isolated
	scripts/install-packages build demo
	scripts/build-wheel
	scripts/build-debian-archive $(ARCHIVE)
	$(BIN)/python examples/quickstart.py $(ARCHIVE)

.PHONY: wheel
wheel: ## Build the wheel into dist/ and install it in .venv
	scripts/install-packages build
	scripts/build-wheel

.PHONY: test
test: ## Install what the tests need, then run the Rust and Python tests, and those of the microVM in an emulated machine
	scripts/install-packages build demo test emulator
	scripts/build-wheel
	scripts/install-venv test
	scripts/build-debian-archive $(ARCHIVE)
	DEBIAN_PACKAGES=systemd-sysv,dbus scripts/build-debian-archive $(SYSTEMD_ARCHIVE)
	scripts/run-cargo-tests
	scripts/run-python-tests
	scripts/run-microvm-tests

.PHONY: test-python
test-python: ## The Python tests alone; PYTEST_ARGS="tests/conformance -k exec" narrows
	scripts/build-wheel
	scripts/install-venv test
	scripts/run-python-tests $(PYTEST_ARGS)

.PHONY: test-microvm
test-microvm: ## The tests of the microVM alone, in an emulated machine; PYTEST_ARGS narrows
	scripts/install-packages build demo emulator
	scripts/build-wheel
	scripts/install-venv test
	DEBIAN_PACKAGES=systemd-sysv,dbus scripts/build-debian-archive $(SYSTEMD_ARCHIVE)
	scripts/run-microvm-tests $(PYTEST_ARGS)

.PHONY: check
check: ## Formatting, lints, types, stubs, licences and advisories, and the claims of the documents
	scripts/install-packages build
	scripts/build-wheel
	scripts/install-venv check
	cargo fmt --all --check
	$(NICE) $(AS_MATURIN) cargo clippy --locked --release --workspace --all-targets -- -D warnings
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	scripts/check-types
	scripts/run-cargo-deny
	$(BIN)/python scripts/check_claims.py
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
fuzz: ## Fuzz every decoder, FUZZ_SECONDS (60) each; needs a nightly toolchain and cargo-fuzz
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
