#!/usr/bin/env bash
# The documentation builds without a warning: no dead link, no missing text.
source "$(dirname "$0")/lib.sh"

RUSTDOCFLAGS="-D warnings" cargo doc --quiet --workspace --no-deps --document-private-items --locked
