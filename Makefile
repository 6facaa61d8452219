# The only door: whatever is built, tested or measured goes through here.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

export CARGO_TARGET_DIR ?= $(HOME)/.cache/rowlock/target
export CARGO_TERM_COLOR ?= auto

# What the demo is built with; the tests of the documentation take `dev`, which is built already.
PROFILE ?= release

SECONDS_OF_CHAOS ?= $(or $(SECONDS),120)
# Where images are pushed to, if anywhere.
REGISTRY ?=
TAG ?= 0.1.0

# $(call part,NAME,COMMAND): runs it and says how long it took.
define part
	@begin=$$(date +%s); echo "== $(1)"; $(2) && echo "== $(1): $$(($$(date +%s) - begin)) s"
endef

PODS = cargo build --locked -p rowlock-worker && cargo build --locked -p rowlock-operator --features kube

.PHONY: help demo test check workflows api-server cluster cluster-down cluster-test cluster-tier cluster-disruptive cluster-parallel cluster-given images chaos soak bench bench-main bench-operator sizes build packages-demo packages-test packages-cluster packages-bench fmt clippy doc unit servers postgres dev docs kubernetes schema

help: ## What there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-14s %s\n", $$1, $$2}'

demo: packages-demo ## 10,000 tasks through an own Postgres, instances and a Python handler
	@cargo build --profile $(PROFILE) --locked -p rowlock
	@ln -sf $(CARGO_TARGET_DIR)/$(PROFILE:dev=debug)/rowlock rowlock
	@./rowlock dev -f examples/quickstart --demo 10000

test: packages-test fmt clippy workflows doc unit servers dev docs kubernetes cluster-test sizes ## Everything that must hold
	@if [ -s $(SKIPPED) ]; then echo "all parts that can run here passed; 1 skipped: $$(cat $(SKIPPED))"; else echo "all parts passed"; fi

check: fmt clippy workflows sizes ## Formatting, lints, sizes

fmt:
	$(call part,formatting,cargo fmt --all --check)

clippy:
	$(call part,lints,cargo clippy --workspace --all-targets --locked -- -D warnings)
	$(call part,lints of the Kubernetes API,cargo clippy -p rowlock-crds --features kube --all-targets --locked -- -D warnings)
	$(call part,lints of the operator,cargo clippy -p rowlock-operator --features kube --all-targets --locked -- -D warnings)

# A link to an item that does not exist fails.
DOC = RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --locked

doc:
	$(call part,comments of the API,$(DOC) --workspace)
	$(call part,comments of the operator,$(DOC) -p rowlock-operator --features kube)

# Built from its Go module, once.
workflows:
	$(call part,workflow files,cd tests/actionlint && go tool actionlint $(CURDIR)/.github/workflows/*.yaml)

unit:
	$(call part,unit tests,cargo test --workspace --exclude rowlock-tests --locked)
	$(call part,Kubernetes API,cargo test -p rowlock-crds --features kube --locked)
	$(call part,operator,cargo test -p rowlock-operator --features kube --locked)

# More tests at a time than cores: they wait for servers, leases and pods most of the time.
MOSTLY_WAITING = --test-threads 6

# Faults take their time, and leave most of the machine to the tests of each server.
servers: build
	@$(MAKE) --no-print-directory -j2 chaos postgres

# The newest and the oldest supported server.
postgres: build
	$(call part,history checker,cargo test -p rowlock-tests --lib --locked)
	$(call part,PostgreSQL 18,ROWLOCK_TEST_POSTGRES=18 cargo test -p rowlock-tests --test postgres --locked -- $(MOSTLY_WAITING))
	$(call part,PostgreSQL 14,ROWLOCK_TEST_POSTGRES=14 cargo test -p rowlock-tests --test postgres --locked -- $(MOSTLY_WAITING))

# What a user does at a terminal, and what README.md and docs/ say to do there.
dev:
	$(call part,rowlock dev and its commands,cargo test -p rowlock-tests --test dev --locked -- $(MOSTLY_WAITING))

docs:
	$(call part,documentation,cargo test -p rowlock-tests --test docs --locked)

schema: packages-test ## Write queue/schema.sql anew from the migrations
	@ROWLOCK_WRITE_SCHEMA=1 ROWLOCK_TEST_POSTGRES=14 cargo test -q -p rowlock-tests --test postgres --locked schema::the_checked_in_schema

build:
	$(call part,build,cargo build --locked -p rowlock -p rowlock-worker)

api-server: packages-test kubernetes ## The operator against a real API server, built from Go modules (minutes, once)

kubernetes:
	$(call part,Kubernetes programs,tests/cluster/build.sh >/dev/null)
	$(call part,API server,cargo test -p rowlock-tests --test api_server --locked -- $(MOSTLY_WAITING))

# A real Kubernetes on this machine: two nodes in namespaces of their own (root, Debian packages, programs built from source).
cluster: packages-cluster ## Two nodes on this machine, with the images of this checkout; prints the KUBECONFIG
	@$(PODS)
	@tests/cluster/images.sh $(CARGO_TARGET_DIR)/debug $(CARGO_TARGET_DIR)/images >/dev/null
	@tests/cluster/cluster.sh up dev
	@tests/cluster/cluster.sh load dev $(CARGO_TARGET_DIR)/images/*.tar

cluster-down: ## Ends them; nothing is left
	@tests/cluster/cluster.sh down dev

# What the cluster tier lacks here, when it does.
SKIPPED = $(CARGO_TARGET_DIR)/cluster.skipped

# On a cluster that exists: KUBECONFIG=… IMAGE_PREFIX=… and HOST=…, an address of this machine that its pods reach.
cluster-test: ## TaskQueues on a real cluster
	@mkdir -p $(CARGO_TARGET_DIR) && rm -f $(SKIPPED)
	@missing=$$([ -n "$${KUBECONFIG:-}" -a -n "$${IMAGE_PREFIX:-}" ] || tests/install.sh cluster 2>&1 >/dev/null || true); \
	[ -n "$$missing$${IMAGE_PREFIX:-}" ] || missing=$$(tests/cluster/cluster.sh check); \
	if [ -z "$$missing" ]; then $(MAKE) --no-print-directory cluster-tier; \
	elif [ -n "$${CI:-}" ]; then echo "the cluster tier cannot run; $$missing" >&2; exit 1; \
	else echo "== cluster: skipped; $$missing"; echo "cluster ($$missing)" >$(SKIPPED); fi

cluster-tier:
	$(call part,programs of pods,$(PODS))
	$(call part,Kubernetes programs,tests/cluster/build.sh all >/dev/null)
	$(call part,cluster,$(MAKE) --no-print-directory $(if $(and $(KUBECONFIG),$(IMAGE_PREFIX)),cluster-given,-j2 cluster-disruptive cluster-parallel))

CLUSTER = cargo test -p rowlock-tests --test cluster --locked --

DISRUPTIVE = disruptive:: planned_changes::

# Disruptive tests have a cluster to themselves, beside that of all others; on a given cluster they take turns.
cluster-disruptive:
	@ROWLOCK_TEST_CLUSTER=alone $(CLUSTER) $(DISRUPTIVE) --test-threads 1

cluster-parallel:
	@$(CLUSTER) $(addprefix --skip ,$(DISRUPTIVE)) --test-threads 8

cluster-given:
	@$(CLUSTER) $(MOSTLY_WAITING)

# With what there is; docker's client alone builds nothing.
BUILDER ?= $(shell if docker info >/dev/null 2>&1; then echo docker; elif command -v podman >/dev/null; then echo podman; else echo buildah; fi)
# Such as `--platform linux/amd64`: without it images are for the architecture of this machine.
BUILD_FLAGS ?=
# What stands before an image's name: a registry's address, or nothing.
IMAGE_PREFIX ?= $(if $(REGISTRY),$(REGISTRY:/=)/)

images: ## Images of worker and operator, with TAG=…; REGISTRY=… names them for it and pushes them
	@for target in worker operator; do $(BUILDER) build $(BUILD_FLAGS) --target $$target -t $(IMAGE_PREFIX)rowlock-$$target:$(TAG) .; done
	@$(if $(REGISTRY),for target in worker operator; do $(BUILDER) push $(IMAGE_PREFIX)rowlock-$$target:$(TAG); done)

# Faults, drains under load and steps of the clock, at the same time: each has a server of its own.
chaos: packages-test build ## Faults for SECONDS=120; the seed is printed, SEED=… repeats its dice
	$(call part,chaos,ROWLOCK_CHAOS_SECONDS=$(SECONDS_OF_CHAOS) ROWLOCK_CHAOS_SEED=$(SEED) cargo test --locked -p rowlock-tests --test chaos -- --nocapture)

soak: packages-test build ## What needs ten minutes: long transactions, a long pin of the xmin horizon
	$(call part,soak,ROWLOCK_TEST_SOAK=1 cargo test -p rowlock-tests --test postgres --locked -- xmin_horizon late_commits --nocapture)

bench: packages-bench ## All measurements, beside their peers
	@cargo build --release --locked -p rowlock-bench -p rowlock-worker
	@$(CARGO_TARGET_DIR)/release/rowlock-bench main

bench-main: packages-bench ## The main measurements: target/bench/main.json
	@cargo build --release --locked -p rowlock-bench -p rowlock-worker
	@$(CARGO_TARGET_DIR)/release/rowlock-bench main

bench-operator: packages-bench ## The operator with 100 TaskQueues against a real API server: target/bench/operator.json
	@tests/cluster/build.sh etcd kube-apiserver kubectl >/dev/null
	@cargo build --release --locked -p rowlock-bench
	@cargo build --release --locked -p rowlock-operator --features kube
	@$(CARGO_TARGET_DIR)/release/rowlock-bench operator

sizes: ## Files that have grown too long
	$(call part,sizes,tests/sizes.sh)

packages-demo:
	@tests/install.sh demo

packages-test:
	@tests/install.sh test

packages-cluster:
	@tests/install.sh cluster

packages-bench:
	@tests/install.sh bench
