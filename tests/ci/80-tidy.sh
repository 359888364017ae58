#!/usr/bin/env bash
# The repository's own rules (tests/xtask), and licences and sources of dependencies where cargo-deny is installed.
source "$(dirname "$0")/lib.sh"

cargo run --quiet --locked --package microfaas-xtask -- tidy
if have cargo-deny; then
    cargo deny --log-level error check bans licenses sources
else
    say "cargo-deny is not installed: deny.toml is not checked here"
fi
