# What can be asked of this repository. `make test` is what the README and .ci/run call.
#
# Every cargo command has the same flags: cargo chooses features by what is built together, and other flags would
# build half of the dependencies a second time.

SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

CARGO ?= cargo
FLAGS := --workspace --all-targets --locked

.PHONY: help test check bench fmt servers

help: ## Show this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1	\2/p' $(MAKEFILE_LIST)

test: servers check ## Everything that must hold: format, lints, documentation, all tests against real servers
	if $(CARGO) nextest --version >/dev/null 2>&1; then \
	  $(CARGO) nextest run $(FLAGS); \
	else \
	  $(CARGO) test $(FLAGS); \
	fi
# Neither of the two runs the examples in the documentation.
	$(CARGO) test --workspace --locked --doc

check: ## What needs no test run: format, lints, documentation, licences
	$(CARGO) fmt --all --check
	$(CARGO) clippy $(FLAGS) -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --locked --no-deps
	if $(CARGO) deny --version >/dev/null 2>&1; then $(CARGO) deny --locked check bans licenses sources; fi

bench: ## Measure what we promise about speed
	$(CARGO) bench --workspace --locked --benches

fmt: ## Format everything
	$(CARGO) fmt --all

servers: ## Install the servers that the tests talk to, if they are missing
	scripts/install-test-servers
