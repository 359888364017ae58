#!/usr/bin/env bash
# No warning, from the compiler or from clippy, in any target of the workspace, the example functions and the rivals.
source "$(dirname "$0")/lib.sh"

cargo clippy --quiet --workspace --all-targets --locked -- -D warnings
crates core/sdk/examples | while read -r manifest; do
    cargo clippy --quiet --all-targets --locked --manifest-path "$manifest" --target-dir "$TARGET/examples" -- -D warnings </dev/null
done
cargo clippy --quiet --all-targets --locked --manifest-path tests/bench/rivals/Cargo.toml --target-dir "$TARGET/rivals" -- -D warnings
