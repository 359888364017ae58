#!/usr/bin/env bash
# The benchmark runs and prints what it promises. No figure is judged: this machine may be busy.
source "$(dirname "$0")/lib.sh"

# Release, as the benchmark builds them: compiled once for both.
cargo test --quiet --release --locked --manifest-path tests/bench/rivals/Cargo.toml

cargo build --quiet --release --workspace --bins --locked
report="$(mktemp)"
trap 'rm -f "$report"' EXIT
timeout --kill-after=10 900 "$TARGET/release/microfaas" bench warm --json --seconds 5 >"$report" ||
    die "microfaas bench warm: exit $?"
python3 tests/ci/check_bench.py warm "$report"
