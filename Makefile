# Berth: everything that is done to this tree is done by a target here.
# `make` alone lists them.

SHELL       := /bin/bash -o pipefail
.DEFAULT_GOAL := help

# Targets follow each other: what setup installs, build needs.
.NOTPARALLEL:

GO          ?= go
BIN         := $(CURDIR)/bin
CACHE       := $(CURDIR)/.cache
PREFIX      ?= /usr/local
FUZZTIME    ?= 30s
BENCHFLAGS  ?=
RUNS        ?= 1

# sudo's PATH leaves out where Go's own instructions put it.
ifeq ($(shell command -v $(GO)),)
export PATH := $(PATH):/usr/local/go/bin
endif

# The version is stamped below, and git refuses root the clones of others: Go
# would not build there, and the version would be unknown.
export GOFLAGS := $(strip $(GOFLAGS) -buildvcs=false)

VERSION     ?= $(shell git -c safe.directory='$(CURDIR)' describe --tags --always --dirty 2>/dev/null || echo v0.0.0-unknown)
LDFLAGS     := -s -w -X main.version=$(VERSION)

GOLANGCI_VERSION := v2.15.0
GOLANGCI         := $(CACHE)/bin/golangci-lint-$(GOLANGCI_VERSION)

# The commands that people run are pure Go. berth-runtime needs C for the
# namespace switch and for libseccomp, berthd for its decoder of gzip and for
# SHA-256; both are linked statically. berthd does without the interpreter of NRI
# plugins in WebAssembly.
PURE        := CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)'
STATIC      := CGO_ENABLED=1 $(GO) build -trimpath -tags 'seccomp netgo osusergo nri_no_wasm' \
               -ldflags '$(LDFLAGS) -linkmode external -extldflags "-static"'

# The tests link libct as the binary does.
TEST        := $(GO) test -tags seccomp
UNITS       := ./pkg/... ./cmd/... ./test/arch/... ./test/bench/... ./test/demo/... ./test/images/... ./test/install/... ./test/testutil/... ./test/vm/...

.PHONY: help
help: ## print this list
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

##@ Build

.PHONY: build
build: setup-build ## compile bin/berthd, bin/berth-runtime, bin/berth, bin/berth-bench and bin/cni/*
	@mkdir -p $(BIN)/cni $(CACHE)
	$(PURE) -o $(BIN)/ ./cmd/berth ./cmd/berth-bench
	$(STATIC) -o $(BIN)/ ./cmd/berthd ./cmd/berth-runtime
	@$(PURE) -o $(BIN)/cni/ $$($(GO) list tool | grep '^github.com/containernetworking/plugins/')
	@if [ $$EUID = 0 ] && [ -n "$$SUDO_UID" ]; then chown -R "$$SUDO_UID:$$SUDO_GID" $(BIN) $(CACHE); fi # or they could not build again

# Root, who installs, may be without Go: what is in bin/ already is taken.
BUILT       := $(addprefix $(BIN)/,berthd berth-runtime berth berth-bench $(shell \
               sed -n 's|^\(tool\)\?[[:space:]]*github.com/containernetworking/plugins/.*/|cni/|p' go.mod))

.PHONY: install
install: ## put what bin/ holds, built if need be, with configuration and units under PREFIX (/usr/local) and /etc
	@for f in $(BUILT); do [ -x $$f ] || exec $(MAKE) build; done
	DESTDIR='$(DESTDIR)' PREFIX='$(PREFIX)' contrib/install.sh install

.PHONY: uninstall
uninstall: ## take away what install put there; data under /var/lib/berth stays
	DESTDIR='$(DESTDIR)' PREFIX='$(PREFIX)' contrib/install.sh uninstall

.PHONY: gen
gen: ## generate the Go code of pkg/api/v1 from its proto
	@contrib/setup.sh gen
	$(GO) generate ./pkg/api/...

.PHONY: clean
clean: ## remove bin/ and .cache/
	rm -rf $(BIN) $(CACHE)

##@ Try

.PHONY: demo
demo: setup build ## set up what is missing, then run a pod and talk to it, with every command shown
	test/demo/run.sh

##@ Test

.PHONY: setup
setup: ## install the Debian packages that building and testing need, where they are missing
	@contrib/setup.sh

.PHONY: setup-build
setup-build:
	@contrib/setup.sh build

.PHONY: test
test: setup build check test-root e2e crash ## set up what is missing, then everything that CI runs

.PHONY: check
check: lint unit ## lint, unit tests and architecture rules: no root, under 2 minutes

.PHONY: lint
lint: setup-build $(GOLANGCI) ## run the linters of .golangci.yml
	$(GOLANGCI) run ./...

# BERTH_TEST_UNPRIVILEGED makes testutil.Root skip, so that root's and other
# people's `make check` are the same; test-root runs what was skipped.
.PHONY: unit
unit: setup-build ## unit tests and architecture rules
	BERTH_TEST_UNPRIVILEGED=1 $(TEST) $(UNITS)
	CGO_ENABLED=0 $(GO) test ./pkg/image/digester ./pkg/image/inflate # what hashes and decodes gzip where there is no cgo

.PHONY: test-root
test-root: setup ## the tests of the same packages that need root: kernel, mounts, namespaces
	CI=true $(TEST) -timeout 15m ./pkg/... ./cmd/...

.PHONY: e2e
e2e: setup build ## end-to-end tests over the real socket (root)
	CI=true BERTH_BIN=$(BIN) $(TEST) -count=1 -timeout 20m ./test/e2e/...

.PHONY: crash
crash: setup build ## kill daemons in the middle of their work and look for losses (root); RUNS=20 repeats
	CI=true BERTH_BIN=$(BIN) $(TEST) -count=$(RUNS) -timeout $$((15 * $(RUNS)))m ./test/crash/...

.PHONY: vm
vm: build ## in virtual machines: Berth on cgroup v2 with systemd, crashes, a real kubelet; checkpoints; power cuts in the middle of pulls (root, 30 minutes); RUNS=5 for fewer cuts than 20
	@contrib/setup.sh vm
	@mkdir -p $(CACHE)/vm
	@# The power cuts take as long as all the rest, and one processor.
	@run() { \
	  CI=true BERTH_BIN=$(BIN) $(TEST) -count=1 -v -timeout 3h ./test/vm "$$@" -args -cuts $(if $(filter file,$(origin RUNS)),20,$(RUNS)) -cache $(CACHE)/vm; \
	}; \
	run -run PowerCuts > $(CACHE)/vm/cuts.log 2>&1 & cuts=$$!; \
	run -skip PowerCuts; rest=$$?; \
	wait $$cuts; cut=$$?; cat $(CACHE)/vm/cuts.log; exit $$((rest | cut))

.PHONY: fuzz
fuzz: setup-build ## run each fuzz target for FUZZTIME (30s)
	@test/fuzz.sh $(FUZZTIME)

##@ Measure

.PHONY: bench
bench: setup build ## measure Berth alone, on a private root and network namespace (root)
	$(GO) run ./test/bench/peers --bin $(BIN) --only berth $(BENCHFLAGS)

.PHONY: bench-peers
bench-peers: setup build ## measure Berth and containerd in turn and print the ratios (root)
	$(GO) run ./test/bench/peers --bin $(BIN) --cache $(CACHE)/peers $(BENCHFLAGS)

.PHONY: bench-pull
bench-pull: setup build ## pull large images with Berth and containerd in turn and print what each costs (root; makes the images once)
	$(GO) run ./test/bench/pulls --bin $(BIN) --cache $(CACHE)/peers --images $(CACHE)/images $(BENCHFLAGS)

$(GOLANGCI):
	@mkdir -p $(CACHE)/bin
	@echo "building golangci-lint $(GOLANGCI_VERSION) into .cache/bin (some minutes, once)"
	@cd $(CACHE)/bin && GOBIN=$(CACHE)/bin GOFLAGS= $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION) \
	  || { echo "make check needs golangci-lint $(GOLANGCI_VERSION), and 'go install' could not get it" >&2; exit 1; }
	@mv $(CACHE)/bin/golangci-lint $@
