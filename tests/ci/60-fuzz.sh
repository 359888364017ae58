#!/usr/bin/env bash
# Each fuzz target for FUZZ_SECONDS (20), from its seeds.
#   60-fuzz.sh [TARGET…]
# A crash leaves its input in fuzz/artifacts/TARGET: make it a unit test.
source "$(dirname "$0")/lib.sh"

FUZZ_SECONDS="${FUZZ_SECONDS:-20}"
REQUIRED=(message_decode lane_hostile_worker lane_hostile_host metrics_region control_packets module_inspect)
need cargo-fuzz "run tests/ci/00-install.sh"

# Inherited by no other build: the fuzz crate has flags and a toolchain of its own.
unset RUSTFLAGS RUSTC_WORKSPACE_WRAPPER
export CARGO_TARGET_DIR="$TARGET/fuzz"
mapfile -t listed < <(cargo +nightly fuzz list --fuzz-dir fuzz)
for target in "${REQUIRED[@]}"; do
    [[ " ${listed[*]} " == *" $target "* ]] || die "fuzz/ has no target $target (it has: ${listed[*]})"
done
targets=("${@:-${listed[@]}}")

cargo +nightly fuzz build --fuzz-dir fuzz
for target in "${targets[@]}"; do
    corpus="$(realpath -m "$TARGET")/fuzz-corpus/$target"
    mkdir -p "$corpus"
    folders=("$corpus")
    [[ -d fuzz/seeds/$target ]] && folders+=("fuzz/seeds/$target")
    log="$corpus.log"
    # The limits are the fuzzer's own: time, memory, and 10 s for a single input.
    if ! timeout --kill-after=10 $((FUZZ_SECONDS + 120)) cargo +nightly fuzz run --fuzz-dir fuzz "$target" "${folders[@]}" -- \
        -max_total_time="$FUZZ_SECONDS" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 >"$log" 2>&1; then
        tail -60 "$log" >&2
        die "$target failed"
    fi
    say "$target: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") inputs, $(grep -c . < <(ls "$corpus")) kept"
done
