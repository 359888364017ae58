#!/usr/bin/env bash
# Everything CI runs, in order; `make test` is this.
#   all.sh [NUMBER…]    only the stages whose file begins with one of these
# Every stage runs, also after one has failed: a single run shows all that is wrong.
# The last line counts tests (nextest, cargo test) and, as one each, stages that failed without a failed test.
source "$(dirname "$0")/lib.sh"

STAGE_SECONDS_MAX=2400
logs="$TARGET/ci"
rm -rf "$logs"
mkdir -p "$logs"
if [[ -n "${CI:-}" ]]; then export CARGO_TERM_COLOR=never CARGO_INCREMENTAL=0; fi

stages=()
for script in tests/ci/[0-9]*.sh; do
    name="$(basename "$script" .sh)"
    if (($# == 0)) || [[ " $* " == *" ${name%%-*} "* ]]; then stages+=("$name"); fi
done
((${#stages[@]})) || die "no stage begins with: $*"

# count KIND LOG: tests passed or failed that the runners in this log report.
count() {
    sed -n -e "s/.*tests\{0,1\} run:.* \([0-9][0-9]*\) $1.*/\1/p" -e "s/^test result:.* \([0-9][0-9]*\) $1;.*/\1/p" "$2" |
        awk '{ sum += $1 } END { print sum + 0 }'
}

table=""
passed=0
failed=0
broken=()
for name in "${stages[@]}"; do
    printf '\n==== %s\n' "$name"
    begin=$SECONDS
    log="$logs/$name.log"
    status=0
    timeout --kill-after=30 "$STAGE_SECONDS_MAX" bash "tests/ci/$name.sh" </dev/null 2>&1 | tee "$log" || status=$?
    seconds=$((SECONDS - begin))
    stage_failed="$(count failed "$log")"
    passed=$((passed + $(count passed "$log")))
    failed=$((failed + stage_failed))
    word=ok
    if ((status != 0)); then
        word="FAILED (exit $status)"
        broken+=("$name")
        if ((stage_failed == 0)); then failed=$((failed + 1)); fi
    fi
    printf '==== %s: %s, %d s\n' "$name" "$word" "$seconds"
    table+="$(printf '%6d s  %-16s %s' "$seconds" "$name" "$word")"$'\n'
    # Nothing can work without its tools.
    if [[ $name == 00-* ]] && ((status != 0)); then break; fi
done

printf '\n%s%6d s  in all\n' "$table" "$SECONDS"
printf '%d passed, %d failed\n' "$passed" "$failed"
((${#broken[@]} == 0))
