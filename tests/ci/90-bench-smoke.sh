#!/usr/bin/env bash
# Every benchmark runs and prints what it promises. No figure is judged: this machine may be busy.
source "$(dirname "$0")/lib.sh"

# Release, as the benchmark builds them: compiled once for both.
cargo test --quiet --release --locked --manifest-path tests/bench/rivals/Cargo.toml

cargo build --quiet --release --workspace --bins --locked
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

# bench NAME ARGUMENTS…: its own lines on standard error say what failed; what it reported is shown where it is not as it must be.
bench() {
    local status=0
    timeout --kill-after=10 900 "$TARGET/release/microfaas" bench "$@" --json >"$work/report" || status=$?
    if ((status == 0)) && python3 tests/ci/check_bench.py "$1" "$work/report"; then return; fi
    cat "$work/report" >&2
    die "microfaas bench $1 (exit $status): what is wrong stands above, and the report"
}

bench warm --seconds 5
bench preempt --seconds 2 --plot "$work/plot.svg"
grep -q '<svg' "$work/plot.svg" || die "microfaas bench preempt: no plot"
bench runaway --seconds 2
bench chaos --seconds 19
# All cases are run by 40-tests.sh; here a few, to see that the benchmark runs them.
mkdir "$work/cases"
cp tests/attacks/{001,039,099}_*.rs "$work/cases"
MICROFAAS_ATTACKS="$work/cases" bench attacks
