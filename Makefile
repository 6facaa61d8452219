# Builds, tests and measures everything. `make` lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

export CARGO_TARGET_DIR ?= $(HOME)/.cache/rowlock/target
export CARGO_TERM_COLOR ?= auto

# The cargo profile of the demo. The tests of the documentation set `dev`, which is already built.
PROFILE ?= release

SECONDS_OF_CHAOS ?= $(or $(SECONDS),120)
# The registry to push images to; without one they are not pushed.
REGISTRY ?=
TAG ?= 0.1.0

# $(call part,NAME,COMMAND): runs the command and prints how long it took.
define part
	@begin=$$(date +%s); echo "== $(1)"; $(2) && echo "== $(1): $$(($$(date +%s) - begin)) s"
endef

PODS = cargo build --locked -p rowlock-worker && cargo build --locked -p rowlock-operator --features kube

.PHONY: help demo test check workflows dashboard-files dashboards api-server cluster cluster-down cluster-test cluster-tier cluster-disruptive cluster-parallel cluster-given images chaos soak bench-main bench-operator bench-autoscale bench-scaling sizes build packages-demo packages-test packages-cluster packages-bench fmt clippy doc unit servers postgres dev docs kubernetes schema

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-15s %s\n", $$1, $$2}'

demo: packages-demo ## Run 10,000 tasks with a Postgres server, workers and a Python handler
	@cargo build --profile $(PROFILE) --locked -p rowlock
	@ln -sf $(CARGO_TARGET_DIR)/$(PROFILE:dev=debug)/rowlock rowlock
	@./rowlock dev -f examples/quickstart --demo 10000

test: packages-test fmt clippy workflows dashboard-files doc unit servers dev docs kubernetes cluster-test sizes ## Run all tests
	@if [ -s $(SKIPPED) ]; then echo "all parts that can run here passed; 1 skipped: $$(cat $(SKIPPED))"; else echo "all parts passed"; fi

check: fmt clippy workflows dashboard-files sizes ## Check formatting, lints and file sizes

fmt:
	$(call part,formatting,cargo fmt --all --check)

clippy:
	$(call part,lints,cargo clippy --workspace --all-targets --locked -- -D warnings)
	$(call part,lints of the Kubernetes API,cargo clippy -p rowlock-crds --features kube --all-targets --locked -- -D warnings)
	$(call part,lints of the simulated benchmark,cargo clippy -p rowlock-bench --no-default-features --all-targets --locked -- -D warnings)
	$(call part,lints of the operator,cargo clippy -p rowlock-operator --features kube --all-targets --locked -- -D warnings)

# A link to an item that does not exist fails.
DOC = RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --locked

doc:
	$(call part,comments of the API,$(DOC) --workspace)
	$(call part,comments of the operator,$(DOC) -p rowlock-operator --features kube)

# Go builds actionlint from its module, once.
workflows:
	$(call part,workflow files,cd tests/actionlint && go tool actionlint $(CURDIR)/.github/workflows/*.yaml)

# Go builds the decoder of dashboards from its module, once.
dashboard-files:
	$(call part,dashboards,cd tests/dashboards && go vet . && go test -count 1 .)

dashboards: ## Rewrite charts/rowlock/dashboards from tests/dashboards
	@cd tests/dashboards && go run .

unit:
	$(call part,unit tests,cargo test --workspace --exclude rowlock-tests --locked)
	$(call part,Kubernetes API,cargo test -p rowlock-crds --features kube --locked)
	$(call part,operator,cargo test -p rowlock-operator --features kube --locked)

# More test threads than cores, since these tests mostly wait for servers, leases and pods.
MOSTLY_WAITING = --test-threads 6

# The chaos tests mostly wait, which leaves the machine to the tests of the PostgreSQL versions.
servers: build
	@$(MAKE) --no-print-directory -j2 chaos postgres

# The newest and the oldest supported PostgreSQL.
postgres: build
	$(call part,history checker,cargo test -p rowlock-tests --lib --locked)
	$(call part,PostgreSQL 18,ROWLOCK_TEST_POSTGRES=18 cargo test -p rowlock-tests --test postgres --locked -- $(MOSTLY_WAITING))
	$(call part,PostgreSQL 14,ROWLOCK_TEST_POSTGRES=14 cargo test -p rowlock-tests --test postgres --locked -- $(MOSTLY_WAITING))

# The commands of a user at a terminal, then the commands in README.md and docs/.
dev:
	$(call part,rowlock dev and its commands,cargo test -p rowlock-tests --test dev --locked -- $(MOSTLY_WAITING))

docs:
	$(call part,documentation,cargo test -p rowlock-tests --test docs --locked)

schema: packages-test ## Rewrite queue/schema.sql from the migrations
	@ROWLOCK_WRITE_SCHEMA=1 ROWLOCK_TEST_POSTGRES=14 cargo test -q -p rowlock-tests --test postgres --locked schema::the_checked_in_schema

build:
	$(call part,build,cargo build --locked -p rowlock -p rowlock-worker)

api-server: packages-test kubernetes ## Test the operator with a real API server, which is built once (minutes)

kubernetes:
	$(call part,Kubernetes programs,tests/cluster/build.sh >/dev/null)
	$(call part,API server,cargo test -p rowlock-tests --test api_server --locked -- $(MOSTLY_WAITING))

# A Kubernetes cluster on this machine: two nodes in separate namespaces. Needs root and Debian packages; the
# Kubernetes programs are built from source.
cluster: packages-cluster ## Start a two-node cluster on this machine with images of this checkout; prints KUBECONFIG=…
	@$(PODS)
	@tests/cluster/images.sh $(CARGO_TARGET_DIR)/debug $(CARGO_TARGET_DIR)/images >/dev/null
	@tests/cluster/cluster.sh up dev
	@tests/cluster/cluster.sh load dev $(CARGO_TARGET_DIR)/images/*.tar

cluster-down: ## Stop that cluster and remove everything that belongs to it
	@tests/cluster/cluster.sh down dev

# Holds the reason if the cluster tests cannot run on this machine.
SKIPPED = $(CARGO_TARGET_DIR)/cluster.skipped

# For an existing cluster set KUBECONFIG=…, IMAGE_PREFIX=… and HOST=…, an address of this machine that pods
# can reach.
cluster-test: ## Test TaskQueues on a real cluster
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

# Disruptive tests have a separate cluster. On an existing cluster the tests themselves exclude each other.
cluster-disruptive:
	@ROWLOCK_TEST_CLUSTER=alone $(CLUSTER) $(DISRUPTIVE) --test-threads 1

cluster-parallel:
	@$(CLUSTER) $(addprefix --skip ,$(DISRUPTIVE)) --test-threads 5

cluster-given:
	@$(CLUSTER) $(MOSTLY_WAITING)

# The first builder that works. A docker client without a daemon does not.
BUILDER ?= $(shell if docker info >/dev/null 2>&1; then echo docker; elif command -v podman >/dev/null; then echo podman; else echo buildah; fi)
# For example `--platform linux/amd64`. By default images are for the architecture of this machine.
BUILD_FLAGS ?=
# Prefix of image names: the address of a registry, or nothing.
IMAGE_PREFIX ?= $(if $(REGISTRY),$(REGISTRY:/=)/)

images: ## Build the images of worker and operator with TAG=…; REGISTRY=… pushes them
	@for target in worker operator; do $(BUILDER) build $(BUILD_FLAGS) --target $$target -t $(IMAGE_PREFIX)rowlock-$$target:$(TAG) .; done
	@$(if $(REGISTRY),for target in worker operator; do $(BUILDER) push $(IMAGE_PREFIX)rowlock-$$target:$(TAG); done)

# Faults, drains under load and clock steps run at the same time, each with a separate server.
chaos: packages-test build ## Inject faults for SECONDS=120; prints its seed, SEED=… repeats a run's random choices
	$(call part,chaos,ROWLOCK_CHAOS_SECONDS=$(SECONDS_OF_CHAOS) ROWLOCK_CHAOS_SEED=$(SEED) cargo test --locked -p rowlock-tests --test chaos -- --nocapture)

soak: packages-test build ## Run the tests of long transactions and a held xmin horizon (ten minutes)
	$(call part,soak,ROWLOCK_TEST_SOAK=1 cargo test -p rowlock-tests --test postgres --locked -- xmin_horizon late_commits --nocapture)

bench-main: packages-bench ## Run the main benchmarks, which write target/bench/main.json
	@cargo build --release --locked -p rowlock-bench -p rowlock-worker
	@$(CARGO_TARGET_DIR)/release/rowlock-bench main

bench-operator: packages-bench ## Run the benchmarks of the operator with 100, 1,000 and 5,000 TaskQueues: target/bench/operator.json
	@tests/cluster/build.sh etcd kube-apiserver kubectl >/dev/null
	@cargo build --release --locked -p rowlock-bench
	@cargo build --release --locked -p rowlock-operator --features kube
	@$(CARGO_TARGET_DIR)/release/rowlock-bench operator

bench-autoscale: packages-bench ## Scale queues by the operator and by KEDA with HPA, both real: target/bench/autoscale.json
	@tests/cluster/build.sh etcd kube-apiserver kubectl kube-controller-manager keda-operator keda-adapter keda-crds >/dev/null
	@cargo build --release --locked -p rowlock-bench
	@cargo build --release --locked -p rowlock-operator --features kube
	@$(CARGO_TARGET_DIR)/release/rowlock-bench autoscale

bench-scaling: ## Replay loads through our scaling decisions and those of others: target/bench/scaling.json
	@cargo build --release --locked -p rowlock-bench --no-default-features
	@$(CARGO_TARGET_DIR)/release/rowlock-bench scaling

sizes: ## Find files that are too long
	$(call part,sizes,tests/file_lengths.sh)

packages-demo:
	@tests/install.sh demo

packages-test:
	@tests/install.sh test

packages-cluster:
	@tests/install.sh cluster

packages-bench:
	@tests/install.sh bench
