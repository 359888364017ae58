#!/usr/bin/env bash
# The models of ring, doorbell and call state: every interleaving with at most three preemptions.
# The flag reaches every dependency, hence the target folder of their own.
source "$(dirname "$0")/lib.sh"

export RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR="$TARGET/loom" LOOM_MAX_PREEMPTIONS="${LOOM_MAX_PREEMPTIONS:-3}"
cargo test --quiet --package microfaas-model --tests --release --locked
