# What a developer types. Every target is a script or one cargo command, so it can be run without make too.
.PHONY: help build test quick demo fmt clean
.DEFAULT_GOAL := help

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## the `microfaas` command and the worker, release
	cargo build --release --workspace --bins

test: ## everything CI runs, in order (tests/ci/*.sh)
	@bash tests/ci/all.sh

quick: ## format, lints and tests: what to run before each commit
	@bash tests/ci/all.sh 10 20 40 80

demo: ## build, serve and call every example function
	@bash tests/ci/demo.sh

fmt: ## format every crate
	@bash tests/ci/10-fmt.sh --fix

clean: ## remove everything that was built
	cargo clean
	rm -rf fuzz/target tests/bench/rivals/target
