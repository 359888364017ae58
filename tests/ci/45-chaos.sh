#!/usr/bin/env bash
# Every chaos experiment, briefly: what is killed, stopped, starved or replaced costs no call its answer. Prints its seed.
source "$(dirname "$0")/lib.sh"

cargo build --quiet --workspace --bins --locked
"$TARGET/debug/chaos" --seconds "${CHAOS_SECONDS:-1.5}" ${CHAOS_SEED:+--seed "$CHAOS_SEED"}
