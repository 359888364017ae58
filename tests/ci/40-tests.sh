#!/usr/bin/env bash
# Every test of the workspace, then every example in its documentation,
# then the unit tests of the example functions, which need no node.
source "$(dirname "$0")/lib.sh"

need cargo-nextest "run tests/ci/00-install.sh"
# End-to-end tests start the worker and the command; a test build alone would not make those.
cargo build --quiet --workspace --bins --examples --locked
cargo nextest run --workspace --locked --profile ci
cargo test --quiet --workspace --doc --locked

crates core/sdk/examples | while read -r manifest; do
    cargo test --quiet --locked --manifest-path "$manifest" --target-dir "$TARGET/examples" </dev/null
done
