#!/usr/bin/env bash
# Models that cannot fail prove nothing: with each mutant of tests/model/mutants.txt chosen, one of them must.
#   55-mutants.sh [NAME…]   only these mutants
# A mutant is a line `mutant("NAME")` in the lane: code that exists only under loom and is chosen when a model starts, by
# MICROFAAS_MUTANT. So the models of stage 50 are run again and nothing is compiled.
source "$(dirname "$0")/lib.sh"

LIST=tests/model/mutants.txt
MUTANT_SECONDS_MAX="${MUTANT_SECONDS_MAX:-300}"
[[ -f $LIST ]] || die "$LIST is missing"

listed="$(sed -e 's/#.*//' -e 's/[[:space:]]//g' -e '/^$/d' "$LIST" | sort -u)"
written="$(grep -rhoP '\bmutant\("\K[a-z0-9_]+(?="\))' core/lane/src | sort -u)"
[[ -n $listed ]] || die "$LIST names no mutant"
difference="$(comm -3 <(echo "$listed") <(echo "$written") | tr -d '\t' | paste -sd' ')"
[[ -z $difference ]] || die "in only one of $LIST and core/lane/src: $difference"

mapfile -t names <<<"$listed"
if (($#)); then names=("$@"); fi

logs="$TARGET/mutants"
mkdir -p "$logs"
logs="$(realpath "$logs")"
export RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR="$TARGET/loom" LOOM_MAX_PREEMPTIONS="${LOOM_MAX_PREEMPTIONS:-2}"

# models ARGS…: as stage 50 runs them.
models() { timeout --kill-after=10 "$MUTANT_SECONDS_MAX" cargo test --quiet --package microfaas-model --tests --release --locked "$@"; }

models --no-run
caught=0
survived=()
for name in "${names[@]}"; do
    [[ $'\n'$written$'\n' == *$'\n'"$name"$'\n'* ]] || die "there is no mutant $name"
    log="$logs/$name.log"
    status=0
    MICROFAAS_MUTANT="$name" models >"$log" 2>&1 || status=$?
    # Everything is compiled, so 101 is a model that failed, by a panic or by an abort; a time-out (124) is neither.
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
