#!/usr/bin/env bash
# Models that cannot fail prove nothing: with each mutant of tests/model/mutants.txt built in, they must.
#   55-mutants.sh [NAME…]   only these mutants
# A mutant is `#[cfg(mutant = "NAME")]` in the lane. The flag is passed by a compiler wrapper, one a mutant,
# that cargo applies to crates of this workspace only: dependencies are built once for all of them.
source "$(dirname "$0")/lib.sh"

LIST=tests/model/mutants.txt
MUTANT_SECONDS_MAX="${MUTANT_SECONDS_MAX:-300}"
[[ -f $LIST ]] || die "$LIST is missing"

if (($#)); then
    names=("$@")
else
    mapfile -t names < <(sed -e 's/#.*//' -e 's/[[:space:]]//g' -e '/^$/d' "$LIST")
fi
((${#names[@]})) || die "$LIST names no mutant"

wrappers="$(realpath -m "$TARGET")/mutants"
export RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR="$TARGET/loom" LOOM_MAX_PREEMPTIONS="${LOOM_MAX_PREEMPTIONS:-2}"

# models ARGS…: cargo test with the mutant of $RUSTC_WORKSPACE_WRAPPER.
models() { timeout --kill-after=10 "$MUTANT_SECONDS_MAX" cargo test --quiet --package microfaas-model --tests --release --locked "$@"; }

caught=0
survived=()
for name in "${names[@]}"; do
    grep -rqF "mutant = \"$name\"" core || die "$LIST: no code has cfg(mutant = \"$name\")"
    mkdir -p "$wrappers/$name"
    wrapper="$wrappers/$name/rustc"
    printf '#!/bin/sh\nexec "$@" --cfg '\''mutant="%s"'\''\n' "$name" >"$wrapper"
    chmod +x "$wrapper"
    export RUSTC_WORKSPACE_WRAPPER="$wrapper"
    log="$wrappers/$name/log"
    models --no-run >"$log" 2>&1 || { cat "$log" >&2; die "mutant $name does not compile"; }
    status=0
    models --no-fail-fast >"$log" 2>&1 || status=$?
    # It compiles (above), so 101 is a model that failed, by a panic or by an abort; a time-out (124) is not one.
    if ((status == 101)); then
        caught=$((caught + 1))
        by="$(sed -n 's/^    \([a-z_0-9:]*\)$/\1/p' "$log" | sort -u | paste -sd' ')"
        say "$name: caught by ${by:-an abort, log in $log}"
    else
        survived+=("$name")
        say "$name: NOT caught (exit $status, log in $log)"
    fi
done
echo "mutants: $caught caught, ${#survived[@]} survived"
((${#survived[@]} == 0)) || die "the models do not see: ${survived[*]}"
