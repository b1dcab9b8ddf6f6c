# Cairn. `make` alone lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X cairn.network/cairn/version.Version=$(VERSION)
TOOL    := go tool -modfile=tools/go.mod
OUT     := $(CURDIR)/bin

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  %-12s %s\n", $$1, $$2}'

.PHONY: build
build: ## build bin/cairn, bin/cairn-cni and bin/cairn-lab
	@echo "building $(OUT) …"
	@CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o $(OUT)/ ./cmd/...

.PHONY: demo
demo: ## bring up a routed cluster of four nodes on this machine and prove it
	@scripts/packages demo
	@$(MAKE) --no-print-directory build
	@$(OUT)/cairn-lab demo

.PHONY: demo-down
demo-down: ## remove what make demo made
	@$(OUT)/cairn-lab down --name plain

.PHONY: test
test: ## everything: lint, then unit, conformance and end-to-end tests with the race detector, VM
	@scripts/packages test
	@$(MAKE) --no-print-directory lint build
	@scripts/gotest -race -timeout 15m ./...
	@scripts/vmtest

.PHONY: test-vm
test-vm: ## the tests that need what not every kernel has, in a VM with Debian's
	@scripts/packages test
	@scripts/vmtest

.PHONY: unit
unit: ## the fast tests only: no end-to-end scenarios
	@go test $$(go list ./... | grep -v /e2e)

.PHONY: e2e
e2e: build ## the scenarios on the lab
	@go test -count=1 -v ./e2e

.PHONY: lint
lint: ## gofmt, vet, staticcheck, errcheck
	@scripts/lint

.PHONY: bench
bench: build ## measure, and print a table beside the yardsticks
	@scripts/packages test
	@scripts/bench

.PHONY: fuzz
fuzz: ## run each fuzz target for FUZZTIME (default 30s)
	@scripts/fuzz

.PHONY: generate
generate: ## write the generated code again
	@$(TOOL) controller-gen object paths=./api/v1/...

.PHONY: clean
clean: ## remove what build made
	@rm -rf $(OUT)
