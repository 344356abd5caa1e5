# Longhaul. `make` or `make help` lists what can be done; CI calls `make check` alone.
# Needs Go, git and, for the race detector, a C compiler. Tools run by pinned
# version through `go run`; nothing is installed globally.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL: # the steps share two cores and the lines they print

# test/lint, which proves that the import walls bite, reads it here.
GOLANGCI_LINT := go run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
GOVULNCHECK   := go run golang.org/x/vuln/cmd/govulncheck@v1.9.0

BIN     := bin/longhaul
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
COMMIT  := $(shell git rev-parse HEAD 2>/dev/null)
DATE    := $(shell TZ=UTC0 git log -1 --date=format-local:%Y-%m-%dT%H:%M:%SZ --format=%cd 2>/dev/null)
LDFLAGS := -s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT) -X main.date=$(DATE)

# Two packages at a time, four parallel tests in each: most of a test is waiting
# for a broker, and two cores must carry them all. The timeout is per package.
TESTFLAGS ?= -p 2 -parallel 4 -timeout 8m
FUZZTIME  ?= 10s
PKG       ?= ./...
SOAK      ?= 1h
ARGS      ?=

# A core that can be read in a day: docs/adr/0010.
CORE_MAX  ?= 10500

.PHONY: help
help: ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## build bin/longhaul, static
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN) ./cmd/longhaul

.PHONY: check
check: fmt-check vet lint tidy-check build core-size compose-check kubernetes-check release-check race secured-short ## everything that CI demands

.PHONY: test
test: ## run the tests, without the race detector (PKG=./pkg/... to choose)
	go test $(TESTFLAGS) $(PKG)

.PHONY: race
race: ## run the tests with the race detector
	go test -race $(TESTFLAGS) $(PKG)

.PHONY: secured
secured: ## run the end-to-end tests on a broker with TLS, accounts and a user per role
	LONGHAUL_E2E_SECURED=1 go test -count=1 -timeout 15m ./test/e2e

.PHONY: e2e-cluster
e2e-cluster: ## run the end-to-end tests on three brokers with three replicas (LONGHAUL_E2E_SECURED=1 for secured ones)
	LONGHAUL_E2E_CLUSTER=1 go test -count=1 -timeout 20m ./test/e2e

.PHONY: secured-short
secured-short: ## two of these, as `make check` does, beside test/security
	LONGHAUL_E2E_SECURED=1 go test -count=1 -timeout 8m -run '^(TestPause|TestSignalOverKill9)$$' ./test/e2e

.PHONY: lint
lint: ## run the linters, the import walls among them
	$(GOLANGCI_LINT) run --allow-parallel-runners ./...

.PHONY: fmt-check
fmt-check: ## fail if gofmt would change a file
	@out=$$(gofmt -l .); if [ -n "$$out" ]; then echo "gofmt -w these:"; echo "$$out"; exit 1; fi

.PHONY: vet
vet: ## go vet
	go vet ./...
	cd test/bench/peers && go vet ./...
	cd test/kubernetes && go vet ./...
	cd tools/release && go vet ./...

.PHONY: tidy-check
tidy-check: ## fail if go mod tidy would change a file
	go mod tidy -diff
	cd test/compose && go mod tidy -diff
	cd test/bench/peers && go mod tidy -diff
	cd test/kubernetes && go mod tidy -diff
	cd tools/release && go mod tidy -diff

.PHONY: core-size
core-size: ## count the lines of the core, fail above CORE_MAX
	@go run ./test/lint/coresize -max $(CORE_MAX) pkg/contracts pkg/runlog pkg/jsutil services

.PHONY: compose-check
compose-check: ## check compose.yaml, alert rules and dashboard with the libraries of those who read them
	cd test/compose && go test -count=1 ./... # the files stand outside of that module: the cache does not see them change

.PHONY: kubernetes-check
kubernetes-check: ## check deploy/kubernetes against the types of Kubernetes and the schemas of KEDA
	cd test/kubernetes && go test -count=1 ./...

.PHONY: release-check
release-check: ## try a release of this platform, and check THIRD_PARTY.md
	cd tools/release && go test -count=1 ./...

.PHONY: release
release: ## make the archives of a release, their bills of materials and checksums, in dist/
	go -C tools/release run . -root ../.. -out dist

.PHONY: third-party
third-party: ## list the licences of all that is linked, in THIRD_PARTY.md
	go -C tools/release run . -root ../.. -third-party

# Where the known vulnerabilities are asked for; a mirror of your own, or file:///DIR
# with the entries of the database, will do.
VULNDB ?= https://vuln.go.dev

.PHONY: vuln
vuln: ## look for known vulnerabilities in what is called; needs the network, or VULNDB=file:///DIR
	$(GOVULNCHECK) -db '$(VULNDB)' ./...

.PHONY: fuzz-short
fuzz-short: ## run each fuzz target for FUZZTIME (10s)
	@for pkg in $$(go list ./...); do \
	  for target in $$(go test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
	    echo "$$pkg $$target"; \
	    go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -parallel 2 $$pkg; \
	  done; \
	done

.PHONY: demo
demo: build ## watch it work: two workers, one killed, a run resumed
	./$(BIN) demo

.PHONY: bench
bench: build ## measure the broker's floor and our runs per second, as ratios (ARGS='--only end-to-end --rounds 3' for a part)
	go run ./test/bench $(ARGS)

.PHONY: bench-scale
bench-scale: build ## measure large systems: 500,000 runs that wait, a million that are kept, 10,000 at once; half an hour
	go run ./test/bench -scale 1 $(ARGS)

.PHONY: bench-peers
bench-peers: build ## measure asynq on Redis and River on PostgreSQL beside us, as far as they are installed (ARGS='--rounds 1')
	go build -o bin/bench ./test/bench
	cd test/bench/peers && go build -o ../../../bin/peers .
	./bin/peers $(ARGS)

.PHONY: recovery
recovery: build ## kill, stop and restart what runs, hold the figures against their bounds
	go run ./test/recovery

.PHONY: recovery-sabotage
recovery-sabotage: ## take guarantees out, and see that recovery notices
	go run ./test/sabotage recovery

.PHONY: cluster
cluster: build ## three brokers under load: kill, step down and restart each, and see what it costs (ARGS='-rate 100 -json')
	go run ./test/recovery -cluster 3 $(ARGS)

.PHONY: schedules
schedules: build ## measure runs that wait for their time, 100,000 of them among others
	go run ./test/recovery -only 7

SEED     ?= $(shell date +%s)
DURATION ?= 5m
CLUSTER  ?= 1

.PHONY: torture
torture: build ## random faults for DURATION (5m), from SEED (the time), on CLUSTER (1 or 3) brokers
	go run ./test/torture -seed $(SEED) -duration $(DURATION) -cluster $(CLUSTER)

.PHONY: torture-sabotage
torture-sabotage: ## take guarantees out, and see that torture notices
	go run ./test/sabotage torture

.PHONY: torture-short
torture-short: ## a quarter of a minute of faults on one broker and on three, as `make check` does
	go test -count=1 -run '^TestShort$$' ./test/torture

OLD ?=

.PHONY: upgrade-test
upgrade-test: build ## swap the services of OLD (a tag or commit) for these and back, under load: nothing lost, nothing executed twice
	@[ -n "$(OLD)" ] || { echo "say which version to come from: make upgrade-test OLD=v0.1.0"; exit 1; }
	@dir=$$(mktemp -d); trap 'rm -rf "$$dir"' EXIT; \
	  git archive --format=tar $(OLD) | tar -x -C "$$dir"; \
	  (cd "$$dir" && CGO_ENABLED=0 go build -trimpath -buildvcs=false -o "$$dir/old-longhaul" ./cmd/longhaul); \
	  go run ./test/upgrade -old "$$dir/old-longhaul" -new $(BIN) $(ARGS)

.PHONY: upgrade-record
upgrade-record: ## have OLD (a tag or commit) make test/upgrade/testdata/OLD, which `make check` replays
	@[ -n "$(OLD)" ] || { echo "say which version is to be recorded: make upgrade-record OLD=v0.1.0"; exit 1; }
	@dir=$$(mktemp -d); trap 'rm -rf "$$dir"' EXIT; \
	  git archive --format=tar $(OLD) | tar -x -C "$$dir"; \
	  (cd "$$dir" && CGO_ENABLED=0 go build -trimpath -buildvcs=false -o "$$dir/old-longhaul" ./cmd/longhaul); \
	  mkdir -p test/upgrade/testdata/$(OLD); cp "$$dir"/docs/schemas/*.json test/upgrade/testdata/$(OLD)/; \
	  go run ./test/upgrade -old "$$dir/old-longhaul" -record test/upgrade/testdata/$(OLD)/system.jsonl

.PHONY: soak
soak: build ## an even load for SOAK (1h), 200,000 runs; fail if memory, goroutines or disk grow
	go run ./test/soak -duration $(SOAK) -plot docs/soak.svg

.PHONY: cover
cover: ## run the tests with coverage, by function, into cover.out
	go test $(TESTFLAGS) -coverpkg=./pkg/...,./services/... -coverprofile=cover.out $(PKG)
	go tool cover -func=cover.out | tail -n 1

.PHONY: tidy
tidy: ## go mod tidy, in all modules
	go mod tidy
	cd test/compose && go mod tidy
	cd test/bench/peers && go mod tidy
	cd test/kubernetes && go mod tidy
	cd tools/release && go mod tidy

.PHONY: clean
clean: ## remove what the targets made
	rm -rf bin dist cover.out
