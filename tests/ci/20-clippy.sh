#!/usr/bin/env bash
# No warning, from the compiler or from clippy, in any target of the workspace.
source "$(dirname "$0")/lib.sh"

cargo clippy --quiet --workspace --all-targets --locked -- -D warnings
