export CARGO_TARGET_DIR ?= $(HOME)/.cache/rowlock/target

.PHONY: test
test:
	cargo fmt --all --check
	cargo clippy --all-targets -- -D warnings
	cargo test
